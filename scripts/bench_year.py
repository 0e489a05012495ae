"""A simulated year: twelve banks, a cycle a day, everything that goes wrong in a year, against the same without faults.

    python scripts/bench_year.py                        # 365 days, a seed
    python scripts/bench_year.py --days 30 --seeds 3
    python scripts/bench_year.py --days 30 --seeds 3 --unusual
    python scripts/bench_year.py --days 120 --attack signflip labelflip fraudblind waiting

Each bank restarts once a week at a random time; a day a month the banks are in two groups that cannot talk to each
other; one bank is away for three weeks; a hundredth of the exchanges fails; clocks are set, wrongly and back. Payments
are drawn: a new fraud pattern appears each month and stays for four, and labels are ten days late. With `--unusual`
five of the banks are as those of `p2pfed data make --unusual`: with eight times the others' share of frauds, with
customers of another kind, tiny, huge, and open in one week of four.

Every morning the banks that are up score the day's payments of all of them with what serves there. The share is their
mean AUPRC by that of the same banks on the same days in another run: of the same twelve without faults; where three
attack, from that day on, of the nine honest ones alone with the same faults.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
from p2pfed.data.unusual import FRAUD_TIMES, HUGE, KINDS, WEEKS
from p2pfed.learning import metrics
from p2pfed.learning.learner import StackedBank
from p2pfed.learning.numpy_learner import NumpyLearner
from p2pfed.learning.one_by_one import OneByOne
from p2pfed.sim.engine import Engine
from p2pfed.sim.history import Progress, Standing
from p2pfed.sim.host import Host
from p2pfed.sim.population import Population, poisoned, populate
from p2pfed.sim.scenario import Scenario, scenario_from
from p2pfed.sim.sections import AttackersSection

BANKS, HONEST = 12, 9
"""Banks, and how many of them are honest where there are attackers: the first ones."""
NAMES = [f"bank-{i + 1}" for i in range(BANKS)]
ATTACK_FROM, CATCH_WITHIN = 60, 2
"""The day from which on they attack, and the days, a cycle each, in which all should be caught."""
DAY, FIRST = 86400.0, 600.0
ROUNDS, ROUND_SECONDS = 10, 1200.0
DOWN_SECONDS, AWAY_DAYS = 600.0, 21
"""How long a restart takes on average; how long one bank is away."""
INPUTS, A_DAY, FRAUDS_A_DAY = 12, 60, 3
"""Columns of a payment; payments and frauds of a bank on a day."""
MOVED, TINY, TINY_FRAUDS = 3, 7, 0.3
"""Of unusual banks: columns that customers of another kind move; a tiny bank's payments and frauds on a day."""
KINDS_OF: dict[int, str] = {}
"""What is unusual of which bank; see `unusual.KINDS`."""
WINDOW, MATURITY, STAYS = 40, 10, 4
"""Days of payments that are trained on, days until labels are known, months for which a fraud pattern stays."""


def main() -> None:
    """Run every seed with faults or attacks, and what that is compared with; print what came of it."""
    options = _options()
    if options.unusual:
        KINDS_OF.update(enumerate(KINDS))
    tell = Teller(options.seeds * (1 + len(options.attack)))
    results, table = [], sys.stderr if options.json else sys.stdout
    print(HEAD, file=table)
    for seed in range(options.seeds):
        other = compared(options.days, seed, options.attack != [None], tell)
        for attack in options.attack:
            results.append(year(options.days, seed, attack, other, tell))
            print(*_lines(results[-1]), sep="\n", file=table, flush=True)
    if options.json:
        print(json.dumps(results, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seeds", type=int, default=1)
    said = "what three banks do from the third month on; a run for each"
    parser.add_argument("--attack", nargs="+", default=[None], metavar="KIND", help=said)
    parser.add_argument("--unusual", action="store_true", help="five of the banks are")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    least = 2 if options.attack == [None] else ATTACK_FROM + CATCH_WITHIN + 1
    if options.days < least or options.seeds < 1:
        sys.exit(f"--days should be {least} or more, and --seeds 1 or more")
    return options


HEAD = "attack      seed  honest quarantines  AUPRC  to compare  share  caught in time  caught  pairs  wall seconds"


def _lines(r: Mapping[str, Any]) -> Iterator[str]:
    """A row of the table, and who was quarantined that was honest, and who was not that attacked."""
    yield (
        f"{r['attack'] or 'none':10}  {r['seed']:4}  {len(r['honest_quarantines']):18}  {r['auprc']:.3f}  "
        f"{r['auprc_to_compare']:10.3f}  {r['share']:.3f}  {r['caught_in_time']:14}  {r['caught']:6}  {r['pairs']:5}  "
        f"{r['seconds']:12.0f}"
    )
    for bank, whom, day in r["honest_quarantines"]:
        yield f"      bank-{bank + 1} quarantined bank-{whom + 1}, which was honest, on day {day:.1f}"
    for bank, whom, day in r["not_in_time"]:
        when = "never" if day is None else f"on day {day:.1f}"
        yield f"      bank-{bank + 1} quarantined bank-{whom + 1}, which attacked, {when}"


class Teller:
    """Says on standard error how far the runs are."""

    SECONDS = 20.0

    def __init__(self, runs: int) -> None:
        self._runs, self._begin = runs, time.monotonic()
        self._done, self._last = 0, self._begin

    def run(self, what: str) -> Callable[[Progress], None]:
        """What watches the next run."""
        self._done += 1

        def watch(progress: Progress) -> None:
            now = time.monotonic()
            if now - self._last < self.SECONDS:
                return
            self._last, share = now, (self._done - 1 + progress.share_done) / self._runs
            to_go = (now - self._begin) * (1 / max(share, 1e-6) - 1)
            day = max(progress.virtual_seconds - FIRST, 0.0) / DAY
            print(f"{what}: day {day:.0f}; about {to_go / 60:.1f} min to go", file=sys.stderr, flush=True)

        return watch


Served = Mapping[tuple[int, int], float]
"""AUPRC by day and bank."""


def compared(days: int, seed: int, attacked: bool, tell: Teller) -> Served:
    """What a seed's banks are held against: no faults, or where banks are `attacked` the honest ones alone."""
    alone, all_well = scenario(days, seed, banks=HONEST), scenario(days, seed, faults=False)
    run = Year(alone if attacked else all_well, None, tell.run(f"seed {seed}, to compare"))
    run.run()
    return run.served


def year(days: int, seed: int, attack: str | None, other: Served, tell: Teller) -> dict[str, Any]:
    """One seed's run, held against `other`; figures by name. Banks are numbered from 0."""
    tried = Year(scenario(days, seed, attack), attack, tell.run(f"seed {seed}, {attack or 'faults'}"))
    begin = time.monotonic()
    tried.run()
    seconds = time.monotonic() - begin
    both = [key for key in tried.served.keys() & other.keys() if attack is None or key[0] >= ATTACK_FROM]
    mean, to_compare = (float(np.mean([served[key] for key in both])) for served in (tried.served, other))
    caught = tried.caught
    late = FIRST + (ATTACK_FROM + CATCH_WITHIN) * DAY
    return {
        "seed": seed,
        "days": days,
        "attack": attack,
        "honest_quarantines": tried.honest_quarantines,
        "auprc": mean,
        "auprc_to_compare": to_compare,
        "share": mean / to_compare,
        "pairs": len(caught),
        "caught_in_time": sum(at is not None and at <= late for at in caught.values()),
        "caught": sum(at is not None for at in caught.values()),
        "not_in_time": [
            (*pair, None if at is None else _day(at)) for pair, at in caught.items() if at is None or at > late
        ],
        "seconds": seconds,
    }


def _day(at: float) -> float:
    return (at - FIRST) / DAY


def scenario(days: int, seed: int, attack: str | None = None, *, faults: bool = True, banks: int = BANKS) -> Scenario:
    """What happens to whom; the first `banks` are there."""
    dense = max(1, int(DAY // (ROUNDS * ROUND_SECONDS)))
    values: dict[str, Any] = {
        "version": 1,
        "name": "year",
        "seed": seed,
        "nodes": banks,
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
    if attack is not None and _poison(attack) is None:
        # the first day has `dense` cycles, every other one
        start = (dense + ATTACK_FROM - 1) * ROUNDS + 1
        values["attackers"] = [{"kind": attack, "nodes": NAMES[HONEST:], "start": start}]
    return scenario_from(values | (_faults(days, seed, banks) if faults else {}))


def _faults(days: int, seed: int, banks: int) -> dict[str, Any]:
    """A year's, as a scenario has them; what happens to one bank does not depend on who else is there."""
    rng = np.random.default_rng([seed, 1])
    there = set(NAMES[:banks])
    partitions: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    outages: list[dict[str, Any]] = []
    for month in range(max(1, days // 30)):
        start = FIRST + DAY * float(rng.uniform(30 * month + 2, min(30 * month + 28, max(days - 1, 3))))
        side = set(map(str, rng.choice(NAMES, int(rng.integers(1, BANKS // 2 + 1)), replace=False)))
        groups = [sorted(group) for group in (side & there, there - side) if group]
        if len(groups) > 1:
            partitions.append({"groups": groups, "start": start, "end": start + DAY})
        who, at = str(rng.choice(NAMES)), FIRST + DAY * float(rng.uniform(30 * month + 1, 30 * month + 29))
        seconds, back = float(rng.choice([-7200, -3600, 3600, 7200])), at + float(rng.uniform(600, DAY))
        steps += [{"nodes": [who], "at": when, "seconds": by} for when, by in ((at, seconds), (back, -seconds))]
    for name in NAMES:
        for week in range(0, days, 7):
            start = FIRST + DAY * float(rng.uniform(week, week + 7))
            outages.append({"nodes": [name], "start": start, "end": start + 1 + float(rng.exponential(DOWN_SECONDS))})
    # it comes back a week before the end at the latest, and after attackers have begun
    latest = max(days - AWAY_DAYS - 7, 1)
    away = FIRST + DAY * float(rng.uniform(min(ATTACK_FROM + CATCH_WITHIN, latest), latest))
    outages.append({"nodes": [str(rng.choice(NAMES[:HONEST]))], "start": away, "end": away + AWAY_DAYS * DAY})
    return {
        "network": {"loss": 0.01},
        "partitions": partitions,
        "clock_steps": [step for step in steps if there.issuperset(step["nodes"])],
        "outages": [outage for outage in outages if there.issuperset(outage["nodes"])],
    }


# --- payments ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def payments(seed: int, bank: int, day: int) -> Rows:
    """A bank's payments of a day (float32 [payments, INPUTS]); days before the first are negative."""
    rng = np.random.default_rng([seed, 2, bank, day + 1000])
    count, frauds = _a_day(KINDS_OF.get(bank), day, rng)
    labels = np.zeros(count, np.float32)
    labels[:frauds] = 1
    features = rng.standard_normal((count, INPUTS)).astype(np.float32)
    features += np.random.default_rng([seed, 3, bank]).normal(0, 0.3, INPUTS).astype(np.float32)
    if KINDS_OF.get(bank) == "customers":
        features[:, :MOVED] += 1.5
    month = (day + 1000 * 30) // 30
    for row in range(frauds):
        pattern = month - int(rng.integers(0, STAYS))
        features[row] += _pattern(seed, pattern)
    return Rows(features, labels)


def _a_day(kind: str | None, day: int, rng: np.random.Generator) -> tuple[int, int]:
    """Payments and frauds of such a bank on a day."""
    if kind == "frauds":
        return A_DAY, min(FRAUD_TIMES * FRAUDS_A_DAY, A_DAY)
    if kind == "tiny":
        return TINY, int(rng.random() < TINY_FRAUDS)
    if kind == "huge":
        return HUGE * A_DAY, HUGE * FRAUDS_A_DAY
    if kind == "season" and day // 7 % WEEKS:
        return 0, 0
    return A_DAY, FRAUDS_A_DAY


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
    """A year that scores every day's payments with what serves at each honest bank that is up in the morning."""

    def __init__(self, s: Scenario, attack: str | None, watch: Callable[[Progress], None] | None = None) -> None:
        """`attack` is that of the last banks, if any."""
        people = _people(s)
        make = _maker(people)
        super().__init__(people, s, OneByOne([make(bank) for bank in people.banks], make), watch)
        self._attacked, self._poison = attack is not None, _poison(attack)
        self.honest_numbers = range(min(s.nodes, HONEST) if self._attacked else s.nodes)
        self.served: dict[tuple[int, int], float] = {}
        """AUPRC by day and bank, on the payments of that day of all honest banks together."""
        self._day = 0

    def _read(self, host: Host, cycle: int) -> None:
        super()._read(host, cycle)
        begins = self._population.manifest.calendar.begins(cycle)
        if self._poison is None or host.index < HONEST or begins < FIRST + ATTACK_FROM * DAY:
            return
        read = self._population.reading(host.index, cycle)
        assert read is not None and isinstance(self._learner, OneByOne)
        self._learner.read(host.index, poisoned(read[1], self._poison))

    def emitted(self, time: float, host: Host, event: Event) -> None:
        """See `Watcher`."""
        super().emitted(time, host, event)
        today = int((time - FIRST) // DAY)
        if time >= FIRST and today > self._day:
            self._day = today
            self._score(today)

    def _score(self, today: int) -> None:
        everybody = [payments(self._scenario.seed, bank, today) for bank in self.honest_numbers]
        features, labels = (np.concatenate([getattr(p, name) for p in everybody]) for name in ("features", "labels"))
        for number in self.honest_numbers:
            host = self._hosts[number]
            if host.node is not None and host.disk.champion is not None:
                scores = forward.scores(self._population.manifest.model, host.disk.champion.vector, features)
                self.served[today, number] = metrics.average_precision(metrics.curve(scores, labels)) or 0.0

    @property
    def honest_quarantines(self) -> list[tuple[int, int, float]]:
        """Which honest bank quarantined whom that was honest then, and on which day."""
        return [(s.observer, s.subject, _day(s.time)) for s in self._quarantines() if not self._attacks(s)]

    @property
    def caught(self) -> dict[tuple[int, int], float | None]:
        """For each honest bank and attacker, when the one first quarantined the other for its attack; None is never."""
        bad = range(HONEST, BANKS) if self._attacked else range(0)
        caught: dict[tuple[int, int], float | None] = {
            (one, other): None for one in self.honest_numbers for other in bad
        }
        for s in reversed(self._quarantines()):
            if self._attacks(s):
                caught[s.observer, s.subject] = s.time
        return caught

    def _quarantines(self) -> list[Standing]:
        return [s for s in self._standing if s.what == "quarantined" and s.observer in self.honest_numbers]

    def _attacks(self, s: Standing) -> bool:
        return s.subject not in self.honest_numbers and s.time >= FIRST + ATTACK_FROM * DAY


def _people(s: Scenario) -> Population:
    columns = tuple(FeatureColumn(f"x{i}", "numeric", (), "none") for i in range(INPUTS))
    scale = Moments((0.0,) * INPUTS, (1.0,) * INPUTS)
    contract = FeatureContract(columns, "fraud", "contract", scale, 10.0)
    banks = tuple(rows_of(s.seed, bank, 0) for bank in range(s.nodes))

    def rows_at(bank: int, begins: float) -> BankRows:
        return rows_of(s.seed, bank, int((begins - FIRST) // DAY))

    return dataclasses.replace(populate(s, LoadedBanks(banks, contract, {})), rows_at=rows_at)


def _poison(attack: str | None) -> AttackersSection | None:
    """An attack on rows: a scenario has those from its beginning to its end only, and honest nodes train on them."""
    if attack is None or not attack_from_name(attack).poisons_rows:
        return None
    return AttackersSection(kind=attack, nodes=BANKS - HONEST)


def _maker(people: Population) -> Any:
    m = people.manifest

    def make(bank: StackedBank) -> NumpyLearner:
        extra: Mapping[str, Any] = {"positive_weight": bank.positive_weight, "seed": bank.seed}
        return NumpyLearner(m.model, m.training, bank.rows, ThresholdSection(), **extra)

    return make


if __name__ == "__main__":
    main()
