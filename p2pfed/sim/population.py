"""Who takes part in a simulation: a consortium made from the scenario's seed, its banks' rows, and each one's role."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from p2pfed.config import ThresholdSection
from p2pfed.core.consortium import Admin, GossipPolicy, Manifest, Member, SignedManifest
from p2pfed.core.identity import Identity
from p2pfed.core.joining import declaration
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import Probe
from p2pfed.core.reputation.params import STANDARD, ReputationParams
from p2pfed.core.rows import BankRows
from p2pfed.core.succession import change_problems
from p2pfed.data import report, synthetic
from p2pfed.data.banks import LoadedBanks, OddBank, Payments, generated_payments, load_banks, read_payments
from p2pfed.data.imbalance import learning_rows
from p2pfed.errors import DataError, LocalFault, UsageError
from p2pfed.learning.learner import StackedBank
from p2pfed.runtime import enrolment
from p2pfed.sim.feasibility import available_memory, check, edges_of
from p2pfed.sim.scenario import Place, Scenario, pools
from p2pfed.sim.sections import AttackersSection, Selection

MANIFEST_DAYS = 3650
PORT = 7443


@dataclass(frozen=True)
class Roles:
    """Who does what; nodes are numbered from 0."""

    stragglers: Mapping[int, float]
    """How many times slower."""
    dial_out: frozenset[int]
    outages: tuple[tuple[int, ...], ...]
    """For each of the scenario's outages."""
    churning: frozenset[int]
    joiners: Mapping[int, float]
    """When they start, in virtual seconds."""
    leavers: Mapping[int, float]
    """When they leave; none of them is among the joiners."""
    partitions: tuple[tuple[tuple[int, ...], ...], ...]
    """The groups of each of the scenario's partitions."""
    attackers: Mapping[int, AttackersSection]
    clock_steps: tuple[tuple[int, ...], ...] = ()
    """For each of the scenario's entries, as of the next two."""
    restores: tuple[tuple[int, ...], ...] = ()
    refusals: tuple[tuple[int, ...], ...] = ()
    change: tuple[int, ...] = ()
    """Who is given the next version of the manifest."""


@dataclass(frozen=True)
class Population:
    """All that an engine needs to know of the nodes, in the order of the manifest's members."""

    manifest: Manifest
    identities: tuple[Identity, ...]
    banks: tuple[StackedBank, ...]
    train_rows: tuple[int, ...]
    """Before resampling, as a trainer reports them."""
    train_frauds: tuple[int, ...]
    probes: tuple[Probe, ...]
    roles: Roles
    rows_at: Callable[[int, float], BankRows] | None = None
    """The rows of a bank's trainer by the time, in seconds of right clocks, at which its cycle begins; None where they
    never change."""
    successor: Manifest | None = None
    """The version with which the model changes."""
    judging: ReputationParams = STANDARD
    """What every node's reputation goes by."""

    @property
    def versions(self) -> tuple[Manifest, ...]:
        """Every version of the manifest, in order."""
        return (self.manifest,) if self.successor is None else (self.manifest, self.successor)

    def reading(self, bank: int, cycle: int) -> tuple[BankRows, StackedBank] | None:
        """What the trainer of a cycle reads of a bank, as it is and as it trains on it; None where rows never change.

        An attacker that poisons its rows says what it had.
        """
        if self.rows_at is None:
            return None
        rows = self.rows_at(bank, self.manifest.calendar.begins(cycle))
        learned = _learning(self.manifest, rows, self.banks[bank].seed)
        return rows, poisoned(learned, self.roles.attackers.get(bank))


def load(scenario: Scenario) -> LoadedBanks:
    """Every bank's rows, read or generated, after a look whether the scenario can be run here.

    Raises what `feasibility.check` and `load_banks` raise.
    """
    memory = available_memory()
    check(scenario, None, memory)
    payments, data = _payments(scenario), scenario.data
    rows = len(payments.frame)
    check(scenario, rows, memory)
    odd = scenario.odd
    with _at(scenario, "data"):
        loaded = load_banks(
            payments,
            scenario.nodes,
            seed=scenario.seed,
            clip=enrolment.CONTRACT_CLIP,
            test_share=data.test_share,
            gap_days=data.gap_days,
            own_test_share=data.own_test_share,
            min_rows=scenario.min_rows,
            test_rows=data.test_rows,
            odd=None if odd is None else OddBank(_number(odd.bank), odd.rows, odd.shift),
        )
    check(scenario, rows, memory, loaded.contract.width)
    _check_frauds(scenario, loaded)
    return loaded


def notes(loaded: LoadedBanks) -> list[str]:
    """What whoever runs the scenario should know of its rows, a sentence each."""
    found = [f"rows {report.counted(report.LEFT_OUT, loaded.dropped)}"] if loaded.dropped else []
    if not loaded.banks[0].pooled_test.frauds:
        found.append("the pooled test has no fraud: neither AUPRC nor recall can be measured")
    return found


def _check_frauds(scenario: Scenario, loaded: LoadedBanks) -> None:
    """Raise DataError where an MLP has no fraud to learn from or to be measured on; an autoencoder needs none."""
    if scenario.model.kind == "autoencoder":
        return
    place, more = (scenario.at("data", "label"), "another column or file")
    if scenario.data.file is None:
        place, more = scenario.at("data", "rows"), "more rows"
    if not any(rows.train.frauds for rows in loaded.banks):
        raise DataError(f"{place}: no bank has a fraud to train on; take {more}, or model.kind: autoencoder")
    if not loaded.banks[0].pooled_test.frauds:
        raise DataError(
            f"{place}: the pooled test has no fraud, so that no model could be measured; take {more}, a larger "
            "data.test_share, or data.split: stratified"
        )


@contextmanager
def _at(scenario: Scenario, *keys: str) -> Iterator[None]:
    """Begin what the block's errors say with the place in the scenario that they are about."""
    try:
        yield
    except LocalFault as error:
        raise type(error)(f"{scenario.at(*keys)}: {error}") from None


def _payments(scenario: Scenario) -> Payments:
    data = scenario.data
    if data.file is not None:
        with _at(scenario, "data", "file"):
            return read_payments(data.file, data.label, data.time, scenario.split, scenario.dealing, data.drop)
    rows = data.rows or synthetic.PAYMENTS_A_BANK * scenario.nodes
    made_at = min(max(rows // synthetic.PAYMENTS_A_BANK, 1), scenario.nodes)
    if scenario.dealing == f"by:{synthetic.BANK}":
        made_at = scenario.nodes
    made = generated_payments(rows, made_at, scenario.seed, scenario.data.unusual)
    return replace(made, split=scenario.split).dealt(scenario.dealing)


def populate(scenario: Scenario, loaded: LoadedBanks) -> Population:
    """The nodes of a scenario whose rows are loaded; the same for the same arguments."""
    roles = cast(scenario, _publishers(scenario, loaded))
    identities = tuple(_identity(scenario.seed, name) for name in scenario.names)
    manifest = _manifest(scenario, loaded, identities, roles.dial_out)
    return Population(
        manifest=manifest,
        identities=identities,
        banks=tuple(
            poisoned(_learning(manifest, rows, scenario.seed + i), roles.attackers.get(i))
            for i, rows in enumerate(loaded.banks)
        ),
        train_rows=tuple(len(rows.train) for rows in loaded.banks),
        train_frauds=tuple(rows.train.frauds for rows in loaded.banks),
        probes=tuple(map(Probe.of, loaded.banks)),
        roles=roles,
        successor=successor(scenario, manifest),
    )


def successor(scenario: Scenario, manifest: Manifest) -> Manifest | None:
    """The version that changes the model, if one does; raises UsageError where it may not follow `manifest`.

    Nobody verifies signatures of manifests in a simulation: all believe the admins.
    """
    change = scenario.change
    if change is None:
        return None
    model = replace(manifest.model, hidden=change.hidden)
    new = replace(
        manifest,
        version=manifest.version + 1,
        previous=SignedManifest.unsigned(manifest).sha256,
        issued=int(scenario.clock_skew.offset_seconds + change.at),
        model=model,
        generation=manifest.generation + 1,
        initial_sha256=model.initial_weights(manifest.seed).digest,
        from_cycle=change.cycle,
        generation_cycle=change.cycle,
    )
    problems = change_problems(manifest, new)
    if model.schema().size == manifest.model.schema().size:
        problems.append("the other model has as many weights as the one before: they could not be told apart")
    if problems:
        raise UsageError(f"{scenario.at('change')}: {'; '.join(problems)}")
    return new


def poisoned(bank: StackedBank, attackers: AttackersSection | None) -> StackedBank:
    """The bank as it trains where it is one of `attackers`: some poison the rows that they train on."""
    if attackers is None:
        return bank
    train = attackers.campaign().attack.rows(bank.rows.train)
    return replace(bank, rows=replace(bank.rows, train=train))


def _publishers(scenario: Scenario, loaded: LoadedBanks) -> list[int]:
    """Banks with frauds enough to publish what they train."""
    least = 0 if scenario.model.kind == "autoencoder" else scenario.gossip.publish_min_frauds
    return [node for node, rows in enumerate(loaded.banks) if rows.train.frauds >= least]


def cast(scenario: Scenario, publishers: Collection[int] | None = None) -> Roles:
    """Choose the nodes of every role: those named, and as many drawn from the seed as are asked for.

    Each list is drawn by itself, so that one more straggler changes no attacker. A share of attackers is drawn among
    `publishers`, who are everybody unless they are named; raises DataError where it is nobody.
    """
    chosen: dict[Place, tuple[int, ...]] = {}
    for name, pool in pools(scenario).items():
        taken = {_number(scenario.odd.bank)} if name == "attackers" and scenario.odd is not None else set[int]()
        chosen |= _draw(pool, scenario.nodes, taken, _stream(scenario.seed, name))
    _draw_shares(scenario, range(scenario.nodes) if publishers is None else publishers, chosen)
    churn = 0 if scenario.churn is None else round(scenario.churn.share * scenario.nodes)
    churning = _draw([(("churn",), churn)], scenario.nodes, set(), _stream(scenario.seed, "churn"))

    def each(field: str) -> Iterator[tuple[int, int]]:
        """Every chosen node of a list with the number of its entry."""
        for i in range(len(getattr(scenario, field))):
            for node in chosen[field, i, "nodes"]:
                yield node, i

    def entries(field: str) -> tuple[tuple[int, ...], ...]:
        """The nodes of every entry of a list."""
        return tuple(chosen[field, i, "nodes"] for i in range(len(getattr(scenario, field))))

    return Roles(
        stragglers={node: scenario.stragglers[i].slower for node, i in each("stragglers")},
        dial_out=frozenset(chosen["dial_out",]),
        outages=entries("outages"),
        churning=frozenset(churning["churn",]),
        joiners={node: scenario.joiners[i].at for node, i in each("joiners")},
        leavers={node: scenario.leavers[i].at for node, i in each("leavers")},
        partitions=tuple(
            tuple(chosen["partitions", i, "groups", j] for j in range(len(partition.groups)))
            for i, partition in enumerate(scenario.partitions)
        ),
        attackers={node: scenario.attackers[i] for node, i in each("attackers")},
        clock_steps=entries("clock_steps"),
        restores=entries("restores"),
        refusals=entries("refusals"),
        change=chosen.get(("change", "nodes"), ()),
    )


def _number(name: str) -> int:
    return int(name.removeprefix("bank-")) - 1


def _stream(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, crc32(name.encode())])


def _draw(
    pool: Sequence[tuple[Place, Selection]], nodes: int, taken: set[int], rng: np.random.Generator
) -> dict[Place, tuple[int, ...]]:
    """The nodes of each place, none of them twice: the named ones first, for who draws must not take them."""
    chosen = {place: tuple(map(_number, s)) for place, s in pool if not isinstance(s, int)}
    taken = taken.union(*chosen.values())
    free = rng.permutation([node for node in range(nodes) if node not in taken]).tolist()
    for place, selection in pool:
        if isinstance(selection, int):
            chosen[place], free = tuple(sorted(free[:selection])), free[selection:]
    return chosen


def _draw_shares(scenario: Scenario, publishers: Collection[int], chosen: dict[Place, tuple[int, ...]]) -> None:
    """Add to `chosen` the attackers that are asked for as a share of the publishers."""
    taken = {node for place, nodes in chosen.items() if place[0] == "attackers" for node in nodes}
    if scenario.odd is not None:
        taken.add(_number(scenario.odd.bank))
    free = [node for node in publishers if node not in taken]
    free = _stream(scenario.seed, "attackers' share").permutation(free).tolist()
    for i, entry in enumerate(scenario.attackers):
        if entry.share is None:
            continue
        count = round(entry.share * len(publishers))
        place = scenario.at("attackers", i, "share")
        if count == 0:
            raise DataError(f"{place}: {entry.share:g} of the {len(publishers)} banks that publish is nobody")
        if count > len(free):
            raise DataError(f"{place}: {count} attackers, but only {len(free)} banks that publish are left")
        chosen["attackers", i, "nodes"], free = tuple(sorted(free[:count])), free[count:]


def _identity(seed: int, name: str) -> Identity:
    return Identity.from_seed(hashlib.sha256(f"p2pfed simulation {seed} {name}".encode()).digest())


def _manifest(
    scenario: Scenario, loaded: LoadedBanks, identities: Sequence[Identity], dial_out: frozenset[int]
) -> Manifest:
    """What a founder would make, with keys and consortium id from the seed, and no certificates: nobody dials."""
    contract = loaded.contract
    model = ModelSpec(scenario.model.kind, contract.width, scenario.layers, scenario.model.dropout)
    topology, fanout = scenario.graph
    g = scenario.gossip
    gossip = GossipPolicy(
        rule=g.rule,
        fanout=fanout,
        heartbeat_seconds=g.heartbeat_seconds,
        round_interval_seconds=g.round_interval_seconds,
        encoding=g.encoding,
        adoption_seconds=g.adoption_seconds,
        publish_min_frauds=g.publish_min_frauds,
        reputation=g.reputation,
        topology=topology,
        edges=edges_of(scenario),
    )
    admin = _identity(scenario.seed, "admin")
    consortium = hashlib.sha256(admin.public_key).hexdigest()[:32]
    people = (scenario.name, (), [Admin("admin", admin.public_key.hex())], 1)
    agreed = (contract, model, scenario.policy, gossip)
    founded = enrolment.first_manifest(*people, *agreed, seed=scenario.seed, now=0, days=MANIFEST_DAYS)
    members = tuple(
        Member(
            name,
            identity.public_key.hex(),
            (),
            () if i in dial_out else (_endpoint(i),),
            *declaration(len(bank.train), bank.train.frauds),
        )
        for i, (name, identity, bank) in enumerate(zip(scenario.names, identities, loaded.banks, strict=True))
    )
    return replace(founded, consortium=consortium, members=members, calendar=scenario.agreed_calendar)


def _endpoint(node: int) -> str:
    """An address of its own in 10.0.0.0/8."""
    number = node + 1
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:{PORT}"


def _learning(manifest: Manifest, rows: BankRows, seed: int) -> StackedBank:
    resampled, weight = learning_rows(rows, manifest.model, manifest.training, seed)
    return StackedBank(resampled, weight, seed, ThresholdSection())
