"""A consortium on one machine: each bank's keys, join request and configuration, and one manifest for all.

The steps are those of banks that found a real one; the only admin is the launcher, whose key lies beside the banks.
"""

from __future__ import annotations

import random
import socket
import sys
import time
import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import yaml

from p2pfed.cluster.options import ClusterOptions, poisons_rows
from p2pfed.config import (
    AdminSection,
    DataSection,
    LearningSection,
    NodeConfig,
    NodeSection,
    ParquetSource,
    PeersSection,
)
from p2pfed.core.consortium import Admin, GossipPolicy, Manifest, SignedManifest
from p2pfed.core.contract import FeatureColumn, FeatureContract
from p2pfed.core.identity import Identity
from p2pfed.core.joining import JoinRequest, open_join_request
from p2pfed.core.model import ModelSpec
from p2pfed.core.succession import verify_root
from p2pfed.core.types import NodeId
from p2pfed.data.describe import describe, propose_contract
from p2pfed.data.features import contract_moments, declared
from p2pfed.data.leaks import check_leaks
from p2pfed.data.table import read_table
from p2pfed.errors import UsageError
from p2pfed.runtime import enrolment
from p2pfed.store.state_dir import StateDir, write_atomically

HEARTBEAT_SECONDS = 1.0
MANIFEST_DAYS = 365
LONGEST_SOCKET_PATH = 100
"""Unix socket addresses hold 107 bytes."""
PORTS = range(20_000, 32_000)
"""Below the ports that the system hands to outgoing connections, so that none is taken between choice and use."""


@dataclass(frozen=True)
class Shards:
    """The files an experiment's rows were dealt into."""

    names: tuple[str, ...]
    banks: tuple[Path, ...]
    """One Parquet file a bank."""
    sample: Path
    """A Parquet file of training rows from which the contract's columns are proposed."""
    test: Path
    """The pooled test rows, which no bank has."""
    label: str
    event_time: str | None
    split: Literal["stratified", "time"]
    drop: tuple[str, ...]
    """Columns that are no features, besides label and time."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows in none of the files, by cause."""


@dataclass(frozen=True)
class Bank:
    """One founded bank."""

    name: str
    id: NodeId
    config: Path
    state: StateDir
    data: DataSection
    attack: str = ""
    """The kind of attack that it makes; empty is an honest bank."""


@dataclass(frozen=True)
class LocalCluster:
    """A founded consortium, ready to start. While this object lives no other cluster chooses its ports."""

    folder: Path
    banks: tuple[Bank, ...]
    manifest: Manifest
    left_out: Mapping[str, int]
    """Rows that no bank learns from, by cause."""

    @property
    def spawner_socket(self) -> Path:
        """Where the honest banks' shared trainer spawner listens."""
        return spawner_socket(self.folder)

    @property
    def poisoners(self) -> dict[str, Path]:
        """Kinds of attack on training rows, and where the spawner of such attackers' trainers listens."""
        kinds = {bank.attack for bank in self.banks if poisons_rows(bank.attack)}
        return {kind: spawner_socket(self.folder, kind) for kind in sorted(kinds)}

    def log(self, name: str) -> Path:
        """What the process `name` writes to standard output and error."""
        return self.folder / f"{name}.log"


def found(options: ClusterOptions, shards: Shards, folder: Path, dial_out: Collection[str] = ()) -> LocalCluster:
    """Make keys, manifest and configurations in `folder`; the banks of `dial_out` open no listener.

    Raises DataError, UsageError.
    """
    _check_folder(folder, shards.names)
    with ExitStack() as claims:
        cluster = _found(options, shards, folder, dial_out, claimed_ports(2 * len(shards.names), claims))
        weakref.finalize(cluster, claims.pop_all().close)
    return cluster


def _found(
    options: ClusterOptions, shards: Shards, folder: Path, dial_out: Collection[str], free: Iterable[int]
) -> LocalCluster:
    now = time.time()
    columns, dropped = _columns(shards, now)
    attacks = _cast(options, shards)
    ports = iter(free)
    requests, banks = [], []
    for i, (name, rows) in enumerate(zip(shards.names, shards.banks, strict=True)):
        listen, admin = (f"127.0.0.1:{next(ports)}" for _ in range(2))
        address = None if name in dial_out else listen
        config = _config(options, shards, folder, name, rows, address, admin, options.seed + i)
        if poisons_rows(attacks.get(name, "")):
            changed = {"trainer_socket": spawner_socket(folder, attacks[name])}
            config = config.model_copy(update={"learning": config.learning.model_copy(update=changed)})
        bank, request = _join(config, columns, folder / name, now)
        banks.append(replace(bank, attack=attacks.get(name, "")))
        requests.append(request)
    signed = _manifest(options, shards, columns, requests, folder, now)
    manifest = verify_root(signed, signed.fingerprint)
    for bank in banks:
        bank.state.save_manifest(manifest.version, signed.to_bytes())
    left_out = Counter(shards.left_out) + Counter(dropped)
    return LocalCluster(folder, tuple(banks), manifest, left_out)


def _cast(options: ClusterOptions, shards: Shards) -> dict[str, str]:
    """The attackers' kinds by name: drawn from the seed, of the banks that have frauds enough to be heard."""
    kinds = [kind for kind, count in options.attacks for _ in range(count)]
    if not kinds:
        return {}
    trained = 1 - DataSection.model_fields["validation_share"].default - options.own_test_share
    least = enrolment.PUBLISH_MIN_FRAUDS + 1 if options.model == "mlp" else 0
    heard = [
        name
        for name, rows in zip(shards.names, shards.banks, strict=True)
        if describe(ParquetSource(kind="parquet", path=rows), shards.label)["frauds"] * trained >= least
    ]
    if len(heard) < len(kinds):
        raise UsageError(f"--attack: only {len(heard)} of the banks have frauds enough to publish; ask for fewer")
    return dict(zip(random.Random(options.seed).sample(heard, len(kinds)), kinds, strict=True))


def spawner_socket(folder: Path, kind: str = "") -> Path:
    """Where the spawner of honest trainers listens, or of those that poison rows as attackers of `kind` do."""
    return folder / f"trainer{f'-{kind}' if kind else ''}.sock"


def claimed_ports(count: int, claims: ExitStack) -> list[int]:
    """`count` different TCP ports of the loopback address that nobody uses now.

    Until `claims` is closed no other cluster chooses them: the daemons may listen there much later.
    """
    ports: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            if sys.platform == "linux":  # a name without a file, which is free again when its process dies
                claim.bind(f"\0p2pfed port {port}")
            with socket.socket() as candidate:
                candidate.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        claims.enter_context(claim)
        ports.append(port)
        if len(ports) == count:
            return ports
    raise UsageError(f"this machine has no {count} free ports between {PORTS.start} and {PORTS.stop}")


def _check_folder(folder: Path, names: Sequence[str]) -> None:
    longest = max(len(str(StateDir(folder / name / "state").admin_socket.resolve())) for name in names)
    if longest > LONGEST_SOCKET_PATH:
        raise UsageError(f"--dir {folder} is too long a path for the nodes' sockets; choose a shorter one")
    if taken := next((folder / name for name in names if (folder / name).exists()), None):
        raise UsageError(f"{taken} exists: --dir needs a directory without a cluster in it")


def _columns(shards: Shards, now: float) -> tuple[tuple[FeatureColumn, ...], dict[str, int]]:
    """The contract's columns, and the rows that banks will leave out, by cause.

    Leaks are looked for here, once in all rows: a dozen frauds give false alarms.
    """
    source = ParquetSource(kind="parquet", path=shards.sample)
    columns = propose_contract(source, label=shards.label, drop=shards.drop, event_time=shards.event_time)
    rows = DataSection(source=source, label=shards.label, event_time=shards.event_time, split="stratified")
    table = read_table(rows, columns, now)
    check_leaks(table, columns)
    return columns, table.dropped


def _config(
    options: ClusterOptions,
    shards: Shards,
    folder: Path,
    name: str,
    rows: Path,
    listen: str | None,
    admin: str,
    seed: int,
) -> NodeConfig:
    return NodeConfig(
        version=1,
        node=NodeSection(name=name, state_dir=folder / name / "state"),
        peers=PeersSection(listen=listen),
        admin=AdminSection(listen=admin),
        data=DataSection(
            source=ParquetSource(kind="parquet", path=rows),
            label=shards.label,
            event_time=shards.event_time,
            split=shards.split,
            test_share=options.own_test_share,
            pooled_test=shards.test,
            leak_alarm=False,
            seed=options.seed,
        ),
        learning=LearningSection(
            rounds=options.total_rounds,
            evaluate_every=options.evaluation_period,
            seed=seed,
            trainer_socket=spawner_socket(folder),
        ),
    )


def _join(config: NodeConfig, columns: tuple[FeatureColumn, ...], folder: Path, now: float) -> tuple[Bank, JoinRequest]:
    """What `p2pfed init` does at one bank; returns its join request as an admin reads it."""
    name = config.node.name
    state = StateDir(config.node.state_dir).create()
    identity, _ = enrolment.make_keys(state, name, now)
    path = folder / "node.yaml"
    document = yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    write_atomically(path, document.encode())
    moments, told, _ = declared(config.data, columns, now)
    sealed = enrolment.join_request(config, state, identity, moments, told, made=now)
    write_atomically(folder / "join-request.json", sealed)
    return Bank(name, identity.node_id, path, state, config.data), open_join_request(sealed)


def _manifest(
    options: ClusterOptions,
    shards: Shards,
    columns: tuple[FeatureColumn, ...],
    requests: Sequence[JoinRequest],
    folder: Path,
    now: float,
) -> SignedManifest:
    """Version 1, signed by the one admin."""
    admin = Identity.generate()
    write_atomically(folder / "admin.key", admin.seed.hex().encode() + b"\n")
    centres = contract_moments([request.moments for request in requests if request.moments is not None])
    contract = FeatureContract(columns, shards.label, "contract", centres, enrolment.CONTRACT_CLIP)
    model = ModelSpec(options.model, contract.width, options.layers, options.dropout)
    topology, fanout = options.graph
    gossip = GossipPolicy(
        rule=options.rule,
        fanout=fanout,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        round_interval_seconds=options.round_interval,
        encoding="float32",
        adoption_seconds=enrolment.ADOPTION_SECONDS,
        publish_min_frauds=enrolment.PUBLISH_MIN_FRAUDS,
        topology=topology,
        reputation=options.reputation,
    )
    people = ("local cluster", requests, [Admin("launcher", admin.public_key.hex())], 1)
    agreed = (contract, model, options.policy(), gossip)
    manifest = enrolment.first_manifest(*people, *agreed, seed=options.seed, now=now, days=MANIFEST_DAYS)
    return SignedManifest.unsigned(replace(manifest, calendar=options.calendar(now))).sign(admin)
