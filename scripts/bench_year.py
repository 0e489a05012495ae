"""A simulated year: twelve banks, a cycle a day, everything that goes wrong in a year, against the same without faults.

    python scripts/bench_year.py                        # 365 days, a seed
    python scripts/bench_year.py --days 30 --seeds 3
    python scripts/bench_year.py --attack signflip      # three of the banks, from the third month on

Each bank restarts once a week at a random time; a day a month the banks are in two groups that cannot talk to each
other; one bank is away for three weeks; a hundredth of the exchanges fails; clocks are set, wrongly and back. Payments
are drawn: a new fraud pattern appears each month and stays for four, and labels are ten days late.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from p2pfed.adversary.attacks import attack_from_name
from p2pfed.config import ThresholdSection
from p2pfed.core import forward
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.events import Event
from p2pfed.core.rows import BankRows, Rows
from p2pfed.data.banks import LoadedBanks
from p2pfed.learning import metrics
from p2pfed.learning.learner import StackedBank
from p2pfed.learning.numpy_learner import NumpyLearner
from p2pfed.learning.one_by_one import OneByOne
from p2pfed.sim.engine import Engine
from p2pfed.sim.host import Host
from p2pfed.sim.population import Population, populate
from p2pfed.sim.scenario import Scenario, scenario_from

BANKS, ATTACKERS, ATTACK_FROM = 12, 3, 60
"""Who attacks does so from this day on."""
DAY, FIRST = 86400.0, 600.0
ROUNDS, ROUND_SECONDS = 10, 1200.0
INPUTS, A_DAY, FRAUDS_A_DAY = 12, 60, 3
"""Columns of a payment; payments and frauds of a bank on a day."""
WINDOW, MATURITY, STAYS = 40, 10, 4
"""Days of payments that are trained on, days until labels are known, months for which a fraud pattern stays."""


def main() -> None:
    """Run every seed with and without faults, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--attack", help="signflip, labelflip, fraudblind, ...: three of the banks, from the third month"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.days < 1 or options.seeds < 1:
        sys.exit("--days and --seeds should be 1 or more")
    results = [year(options.days, seed, options.attack) for seed in range(options.seeds)]
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print("seed  honest quarantines  AUPRC  without faults  share  attackers caught  wall seconds")
    for r in results:
        print(
            f"{r['seed']:4}  {r['honest_quarantines']:18}  {r['auprc']:.3f}  {r['auprc_without']:14.3f}  "
            f"{r['share']:.3f}  {r['caught']:16.0%}  {r['seconds']:12.0f}"
        )


def year(days: int, seed: int, attack: str | None = None) -> dict[str, Any]:
    """One seed's year with faults (and attackers), and the same of honest banks without any; figures by name."""
    begin = time.monotonic()
    faulty = Year(scenario(days, seed, attack, faults=True), attack)
    faulty.run()
    seconds = time.monotonic() - begin
    plain = Year(scenario(days, seed, None, faults=False), None, banks=faulty.honest_numbers)
    plain.run()
    mean, reference = (float(np.mean(run.daily)) for run in (faulty, plain))
    return {
        "seed": seed,
        "days": days,
        "attack": attack,
        "honest_quarantines": faulty.honest_quarantines,
        "auprc": mean,
        "auprc_without": reference,
        "share": mean / reference,
        "caught": faulty.caught,
        "seconds": seconds,
    }


def scenario(days: int, seed: int, attack: str | None, *, faults: bool) -> Scenario:
    """What happens to whom."""
    dense = max(1, int(DAY // (ROUNDS * ROUND_SECONDS)))
    values: dict[str, Any] = {
        "version": 1,
        "name": "year",
        "seed": seed,
        "nodes": BANKS,
        "calendar": {
            "every_hours": 24,
            "rounds": ROUNDS,
            "round_seconds": ROUND_SECONDS,
            "cycles": dense + days - 1,
            "first_seconds": FIRST,
        },
        "model": {"hidden": [16], "dropout": 0.0},
        "training": {"local_steps": 20, "batch": 64},
        "gossip": {"heartbeat_seconds": 300.0, "topology": "random:6"},
        "compute": {"seconds_per_step": 1.0, "load_seconds": 60.0},
        "evaluate": {"every": 10**6},
    }
    if attack is not None and not attack_from_name(attack).poisons_rows:
        start = (dense + ATTACK_FROM) * ROUNDS
        names = [f"bank-{i + 1}" for i in range(BANKS - ATTACKERS, BANKS)]
        values["attackers"] = [{"kind": attack, "nodes": names, "start": start}]
    return scenario_from(values | (_faults(days, seed) if faults else {}))


def _faults(days: int, seed: int) -> dict[str, Any]:
    """A year's, as a scenario has them."""
    rng = np.random.default_rng([seed, 1])
    names = [f"bank-{i + 1}" for i in range(BANKS)]
    partitions, steps = [], []
    for month in range(max(1, days // 30)):
        start = FIRST + DAY * float(rng.uniform(30 * month + 2, min(30 * month + 28, max(days - 1, 3))))
        side = {str(name) for name in rng.choice(names, int(rng.integers(1, BANKS // 2 + 1)), replace=False)}
        groups = [sorted(side), sorted(set(names) - side)]
        partitions.append({"groups": groups, "start": start, "end": start + DAY})
        who, at = [str(rng.choice(names))], FIRST + DAY * float(rng.uniform(30 * month + 1, 30 * month + 29))
        seconds = float(rng.choice([-7200, -3600, 3600, 7200]))
        steps.append({"nodes": who, "at": at, "seconds": seconds})
        steps.append({"nodes": who, "at": at + float(rng.uniform(600, DAY)), "seconds": -seconds})
    away = FIRST + DAY * float(rng.uniform(0.2 * days, 0.4 * days))
    return {
        "churn": {"share": 1.0, "mean_up": 7 * DAY, "mean_down": 600},
        "network": {"loss": 0.01},
        "partitions": partitions,
        "clock_steps": steps,
        "outages": [{"nodes": [str(rng.choice(names[: BANKS - ATTACKERS]))], "start": away, "end": away + 21 * DAY}],
    }


# --- payments ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def payments(seed: int, bank: int, day: int) -> Rows:
    """A bank's payments of a day (float32 [payments, INPUTS]); days before the first are negative."""
    rng = np.random.default_rng([seed, 2, bank, day + 1000])
    labels = np.zeros(A_DAY, np.float32)
    labels[:FRAUDS_A_DAY] = 1
    features = rng.standard_normal((A_DAY, INPUTS)).astype(np.float32)
    features += np.random.default_rng([seed, 3, bank]).normal(0, 0.3, INPUTS).astype(np.float32)
    month = (day + 1000 * 30) // 30
    for row in range(FRAUDS_A_DAY):
        pattern = month - int(rng.integers(0, STAYS))
        features[row] += _pattern(seed, pattern)
    return Rows(features, labels)


@lru_cache(maxsize=256)
def _pattern(seed: int, number: int) -> Any:
    """What a fraud pattern adds to a payment: a sign that all have a little of, and one of its own."""
    rng = np.random.default_rng([seed, 4, number])
    own = rng.normal(0, 1, INPUTS)
    shared = np.random.default_rng([seed, 5]).normal(0, 1, INPUTS)
    return (2.2 * own / np.linalg.norm(own) + 1.6 * shared / np.linalg.norm(shared)).astype(np.float32)


def rows_of(seed: int, bank: int, today: int) -> BankRows:
    """What a bank's trainer reads on a day: the window of payments whose labels are known, a fifth to validate."""
    parts = [payments(seed, bank, day) for day in range(today - MATURITY - WINDOW, today - MATURITY)]
    features, labels = (np.concatenate([getattr(p, name) for p in parts]) for name in ("features", "labels"))
    held = np.arange(len(labels)) % 5 == 0
    none = Rows(features[:0], labels[:0])
    train, validation = Rows(features[~held], labels[~held]), Rows(features[held], labels[held])
    return BankRows(train, validation, none, none, legitimate_per_day=float(A_DAY - FRAUDS_A_DAY))


class Year(Engine):
    """A year that scores every day's payments with what serves at each honest bank that morning."""

    def __init__(self, s: Scenario, attack: str | None, banks: frozenset[int] | None = None) -> None:
        """`banks` are those whose models are scored; None takes the honest ones."""
        people = _people(s, attack)
        make = _maker(people)
        super().__init__(people, s, OneByOne([make(bank) for bank in people.banks], make))
        attackers = frozenset(range(BANKS - ATTACKERS, BANKS)) if attack else frozenset()
        self.honest_numbers = frozenset(range(BANKS)) - attackers if banks is None else banks
        self.daily: list[float] = []
        """Mean AUPRC of the honest banks' models on each day's payments, of all banks together."""
        self._day = 0

    def emitted(self, time: float, host: Host, event: Event) -> None:
        """See `Watcher`."""
        super().emitted(time, host, event)
        today = int((time - FIRST) // DAY)
        if time >= FIRST and today > self._day:
            self._day = today
            self._score(today)

    def _score(self, today: int) -> None:
        everybody = [payments(self._scenario.seed, bank, today) for bank in sorted(self.honest_numbers)]
        features, labels = (np.concatenate([getattr(p, name) for p in everybody]) for name in ("features", "labels"))
        spec, found = self._population.manifest.model, []
        for number in sorted(self.honest_numbers):
            if (champion := self._hosts[number].disk.champion) is not None:
                scores = forward.scores(spec, champion.vector, features)
                found.append(metrics.average_precision(metrics.curve(scores, labels)) or 0.0)
        if found:
            self.daily.append(float(np.mean(found)))

    @property
    def honest_quarantines(self) -> int:
        """How often an honest bank quarantined an honest one."""
        honest = self.honest_numbers
        return sum(s.what == "quarantined" and s.observer in honest and s.subject in honest for s in self._standing)

    @property
    def caught(self) -> float:
        """Share of the pairs of an honest bank and an attacker in which the one quarantined the other."""
        bad = set(range(BANKS)) - self.honest_numbers
        pairs = {
            (s.observer, s.subject)
            for s in self._standing
            if s.what == "quarantined" and s.observer in self.honest_numbers and s.subject in bad
        }
        return len(pairs) / max(len(bad) * len(self.honest_numbers), 1)


def _people(s: Scenario, attack: str | None) -> Population:
    columns = tuple(FeatureColumn(f"x{i}", "numeric", (), "none") for i in range(INPUTS))
    scale = Moments((0.0,) * INPUTS, (1.0,) * INPUTS)
    contract = FeatureContract(columns, "fraud", "contract", scale, 10.0)
    banks = tuple(rows_of(s.seed, bank, 0) for bank in range(s.nodes))
    people = populate(s, LoadedBanks(banks, contract, {}))
    poison = attack_from_name(attack) if attack is not None else None

    def rows_at(bank: int, begins: float) -> BankRows:
        today = int((begins - FIRST) // DAY)
        rows = rows_of(s.seed, bank, today)
        if poison is None or not poison.poisons_rows or bank < BANKS - ATTACKERS or today < ATTACK_FROM:
            return rows
        return dataclasses.replace(rows, train=poison.rows(rows.train))

    return dataclasses.replace(people, rows_at=rows_at)


def _maker(people: Population) -> Any:
    m = people.manifest

    def make(bank: StackedBank) -> NumpyLearner:
        extra: Mapping[str, Any] = {"positive_weight": bank.positive_weight, "seed": bank.seed}
        return NumpyLearner(m.model, m.training, bank.rows, ThresholdSection(), **extra)

    return make


if __name__ == "__main__":
    main()
