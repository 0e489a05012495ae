"""Small simulations that need neither TensorFlow nor a file: banks with made-up rows, learners in numpy."""

from __future__ import annotations

from typing import Any

from p2pfed.config import ThresholdSection
from p2pfed.core.consortium import Admin, GossipPolicy, Manifest, Member
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.identity import Identity
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import Probe
from p2pfed.core.rows import BankRows
from p2pfed.learning.by_model import ByModel
from p2pfed.learning.learner import ManyLearner, StackedBank
from p2pfed.learning.numpy_learner import NumpyLearner
from p2pfed.learning.one_by_one import OneByOne
from p2pfed.sim.engine import Engine
from p2pfed.sim.history import History
from p2pfed.sim.population import Population, cast, poisoned, successor
from p2pfed.sim.scenario import Scenario
from tests.learning.rows import draw

WIDTH = 6
QUICK: dict[str, Any] = {
    "version": 1,
    "nodes": 6,
    "rounds": 5,
    "model": {"hidden": [4], "dropout": 0.0},
    "training": {"local_steps": 3, "batch": 32, "learning_rate": 0.01},
    "gossip": {"heartbeat_seconds": 1.0, "adoption_seconds": 10.0},
    "compute": {"seconds_per_step": 1.0, "load_seconds": 1.0},
}


def scenario(**changes: Any) -> Scenario:
    """A quick scenario with some keys changed; sections are merged. A calendar says how many rounds there are."""
    merged = {key: value for key, value in QUICK.items() if key != "rounds" or "calendar" not in changes}
    for key, value in changes.items():
        before = merged.get(key)
        merged[key] = before | value if isinstance(before, dict) and isinstance(value, dict) else value
    return Scenario.model_validate(merged)


def population(s: Scenario, train: int = 200) -> Population:
    """Its nodes, with `train` made-up training rows each."""
    roles = cast(s)
    identities = tuple(Identity.from_seed(i.to_bytes(32, "big")) for i in range(1, s.nodes + 1))
    columns = tuple(FeatureColumn(f"x{i}", "numeric", (), "none") for i in range(WIDTH))
    model = ModelSpec("mlp", WIDTH, s.layers, s.model.dropout)
    topology, fanout = s.graph
    manifest = Manifest(
        consortium="00" * 16,
        name=s.name,
        version=1,
        previous="",
        issued=0,
        expires=10**9,
        admins=(Admin("admin", Identity.from_seed(b"\0" * 32).public_key.hex()),),
        threshold=1,
        members=tuple(
            Member(
                name,
                identity.public_key.hex(),
                (),
                () if i in roles.dial_out else (f"10.0.{i // 250}.{i % 250 + 1}:7443",),
            )
            for i, (name, identity) in enumerate(zip(s.names, identities, strict=True))
        ),
        model=model,
        generation=1,
        seed=s.seed,
        initial_sha256=model.initial_weights(s.seed).digest,
        contract=FeatureContract(columns, "fraud", "contract", Moments((0.0,) * WIDTH, (1.0,) * WIDTH), 10.0),
        training=s.policy,
        gossip=GossipPolicy(
            rule=s.gossip.rule,
            fanout=fanout,
            heartbeat_seconds=s.gossip.heartbeat_seconds,
            round_interval_seconds=s.gossip.round_interval_seconds,
            encoding=s.gossip.encoding,
            adoption_seconds=s.gossip.adoption_seconds,
            publish_min_frauds=s.gossip.publish_min_frauds,
            reputation=s.gossip.reputation,
            topology=topology,
        ),
        calendar=s.agreed_calendar,
    )
    pooled = draw(300, 1_000_000)
    banks = []
    for i in range(s.nodes):
        rows = BankRows(draw(train, 3 * i), draw(100, 3 * i + 1), draw(100, 3 * i + 2), pooled, legitimate_per_day=50.0)
        banks.append(StackedBank(rows, 1.0, i, ThresholdSection()))
    frauds = tuple(bank.rows.train.frauds for bank in banks)
    probes = tuple(Probe.of(bank.rows) for bank in banks)
    banks = [poisoned(bank, roles.attackers.get(i)) for i, bank in enumerate(banks)]
    new = successor(s, manifest)
    return Population(manifest, identities, tuple(banks), (train,) * s.nodes, frauds, probes, roles, successor=new)


def learner(p: Population) -> ManyLearner:
    """Numpy learners for all of them, and all of their models."""
    learners = {
        m.model.schema().size: OneByOne(
            [
                NumpyLearner(m.model, m.training, b.rows, b.threshold, positive_weight=b.positive_weight, seed=b.seed)
                for b in p.banks
            ]
        )
        for m in p.versions
    }
    return ByModel(learners) if p.successor else learners[p.manifest.model.schema().size]


def simulated(s: Scenario | None = None, **changes: Any) -> History:
    """The history of a quick scenario, with its transcript."""
    s = s or scenario(**changes)
    p = population(s)
    return Engine(p, s, learner(p), transcript=True).run()
