#!/usr/bin/env python3
"""A fraud pattern that nobody has seen appears, and its labels come late: when what serves finds it, day by day.

    scripts/bench_pattern.py [--appears 10] [--late 10] [--days 36] [--split stratified] [--json FILE]

One bank, one cycle a day. A node decides as a daemon's does, real trainer children read the bank's file anew for each
cycle, and only the clock is made up: a day passes as fast as its rounds are trained. Labels of fraud come --late
days after the payment, which is also the configured label maturity. From day --appears on half of the frauds are of a
new pattern. One old payment's label comes four days later still.

With --split time, which validates and tests on the newest payments, training sees the pattern only once it is older
than those: the bar of recall is missed.

The bars: recall on the pattern stays low until its first labels have matured, and is high two cycles later; each
payment is counted once in the curve; the late label is trained on when it has come, and the curve stays as it was. The
exit code is 1 if one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import os
import socket
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from bench_instruments import Bar
from rich.console import Console
from rich.table import Table

from p2pfed import logs
from p2pfed.config import NodeConfig
from p2pfed.core.consortium import Admin, GossipPolicy, Manifest, Member
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.effects import (
    CloseTrainer,
    Effect,
    Emit,
    KeepModel,
    OpenTrainer,
    SetTimer,
    StartEvaluation,
    StartTraining,
)
from p2pfed.core.events import PaymentsServed
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.identity import Identity
from p2pfed.core.inputs import EvaluationFinished, Input, Started, TimerFired, TrainerReady, TrainingFinished
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.node import GossipNode
from p2pfed.core.served import ServedDay
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.types import DAY
from p2pfed.data.features import Matured
from p2pfed.learning.bundle import ModelBundle
from p2pfed.learning.prequential import prequential
from p2pfed.runtime import trainer
from p2pfed.runtime.books import Books
from p2pfed.runtime.lineage import lineage
from p2pfed.runtime.trainer_process import OwnHandle, TrainerProcess
from p2pfed.runtime.trainers import Trainers
from p2pfed.runtime.versions import Versions, served_between
from p2pfed.store.state_dir import StateDir

START = 20_000 * DAY
"""The first cycle begins here, at midnight."""
HISTORY = 20
"""Days of payments before it."""
ROUNDS, ROUND_SECONDS = 10, 1200
A_DAY, FRAUDS_A_DAY = 1000, 16
COLUMNS = ("a", "b", "c", "d")
KNOWN, PATTERN = (3.0, 2.5, 0.0, 0.0), (-0.5, 0.0, 4.0, 3.0)
"""Where the frauds of each kind lie; legitimate payments are at the origin."""
QUIET_SECONDS = 600.0
FLIPPED_LATER = 4
"""Days after its maturity at which the one label comes."""
CHILD = """
import sys, time
now = float(sys.argv.pop(1))
time.time = lambda: now
from p2pfed.runtime.trainer_child import main
main(sys.argv[1:])
"""
LOW, HIGH = 0.2, 0.6
"""Recall on the pattern before its labels have matured, and two cycles later."""


def payments(days: int, appears: int, seed: int) -> pd.DataFrame:
    """Every payment there will be, with its kind: legitimate, known or pattern."""
    rng = np.random.default_rng(seed)
    parts = []
    for day in range(-HISTORY, days):
        new = FRAUDS_A_DAY // 2 if day >= appears else 0
        counts = {"legitimate": A_DAY - FRAUDS_A_DAY, "known": FRAUDS_A_DAY - new, "pattern": new}
        for kind, count in counts.items():
            centre = {"legitimate": (0.0,) * 4, "known": KNOWN, "pattern": PATTERN}[kind]
            frame = pd.DataFrame(rng.standard_normal((count, 4)) + centre, columns=list(COLUMNS))
            parts.append(frame.assign(when=START + (day + rng.random(count)) * DAY, kind=kind))
    return pd.concat(parts).sort_values("when", ignore_index=True)


class Bank:
    """One node, its trainers and its files, and a clock that stands still while they work."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.now, self.late = float(START - 3600), asked.late
        self.payments = payments(asked.days, asked.appears, asked.seed)
        kinds = self.payments["kind"]
        self.flipped = int(kinds[(kinds == "known") & (self.payments["when"] > START + DAY)].index[0])
        self.known_from = self.payments["when"] + self.late * DAY
        self.known_from[self.flipped] += FLIPPED_LATER * DAY
        self.readings: list[dict[str, Any]] = []
        self.counted: dict[str, float] = {}
        """When each day of the curve was counted; a few seconds before midnight are so one reading later."""
        self._folder, self._inputs = folder, asyncio.Queue[Input]()
        self._timers: list[tuple[float, int, str]] = []
        self._due: dict[str, int] = {}
        self._order = itertools.count()
        self._waits = 0
        self.config = self._configured(asked.split)
        self.state = StateDir(self.config.node.state_dir).create()
        self._make_node(asked.seed)
        log = logs.for_node("bank-0")
        window = self.config.data.label_maturity_days + self.config.data.window_days
        self._versions = Versions(self.state, log, window)
        self.books = Books(self.state, log, lambda name, work: None)
        self.trainers = Trainers(
            self.config, self.node.manifest, self._inputs.put_nowait, self.books.take,
            counted_until=lambda: self.books.counted_until, learner=asked.learner,
        )  # fmt: skip

    def _configured(self, split: str) -> NodeConfig:
        return NodeConfig.model_validate(
            {
                "version": 1,
                "node": {"name": "bank-0", "state_dir": str(self._folder / "state")},
                "data": {
                    "source": {"kind": "csv", "path": str(self._folder / "payments.csv")},
                    "label": "fraud", "event_time": "when", "split": split,
                    "label_maturity_days": self.late, "window_days": self.late + 2 * HISTORY,
                },
            }
        )  # fmt: skip

    def _make_node(self, seed: int) -> None:
        bank = Identity.from_seed(bytes([1]) * 32)
        model = ModelSpec("mlp", 4, (16, 8), 0.0)
        columns = tuple(FeatureColumn(name, "numeric", (), "none") for name in COLUMNS)
        length = ROUNDS * ROUND_SECONDS
        # one cycle a day from the first one on
        skipped = tuple(range(START + length, START + DAY - length + 1, length))
        manifest = Manifest(
            "ab" * 16, "alone", 1, "", START - DAY, START + 999 * DAY, (Admin("a", "00" * 32),), 1,
            (Member("bank-0", bank.public_key.hex(), (), ()),), model, 1, seed, model.initial_weights(seed).digest,
            FeatureContract(columns, "fraud", "contract", Moments((0.0,) * 4, (1.0,) * 4), 8.0),
            TrainingPolicy(30, 256, 0.002, (), "class_weight", 50.0),
            GossipPolicy("clip", 6, 3600.0, 0.0, "float32", 60.0, 5),
            calendar=Calendar(START, DAY, ROUNDS, float(ROUND_SECONDS), skipped=skipped),
        )  # fmt: skip
        settings = NodeSettings(evaluate_every=ROUNDS)
        self.node = GossipNode(bank, manifest, settings, Memory(1, "00" * 16), np.random.default_rng(seed))

    # --- the interpreter ----------------------------------------------------------------------------------------------

    async def run(self, until: float) -> None:
        """Let time pass."""
        self._give(Started())
        while self._timers[0][0] < until:
            at, order, name = heapq.heappop(self._timers)
            if self._due[name] != order:
                continue
            self.now = max(self.now, at)
            self._give(TimerFired(name))
            while self._waits:
                async with asyncio.timeout(120):
                    given = await self._inputs.get()
                if not isinstance(given, TrainerReady | TrainingFinished | EvaluationFinished):
                    raise RuntimeError(f"the trainer: {given}")
                if isinstance(given, TrainerReady):
                    assert self.books.reading is not None
                    self.readings[-1]["frauds"] = self.books.reading["frauds"]
                self._waits -= 1
                self._give(given)
        await self.trainers.stop()

    def _give(self, given: Input) -> None:
        for effect in self.node.handle(given, self.now, self.now):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case OpenTrainer(cycle, accept):
                self._waits += 1
                self._export()
                self.trainers.open(cycle, accept)
            case CloseTrainer(cycle):
                self._waits = 0
                self.trainers.close(cycle)
            case StartTraining() | StartEvaluation():
                self._waits += 1
                self.trainers.submit(effect)
            case KeepModel(model):
                scaler = self.trainers.scaler(model.cycle)
                assert scaler is not None
                manifest = self.node.manifest
                made = lineage(model, manifest, self.node.me)
                bundle = ModelBundle(manifest.model, manifest.contract, scaler, model.threshold, model.vector, made)
                self._versions.keep(bundle, effect)
            case SetTimer(name, at):
                self._due[name] = order = next(self._order)
                # alone it has nobody to say anything to, and would every second
                later = self.now + QUIET_SECONDS if name == "heartbeat" else at
                heapq.heappush(self._timers, (max(at, later), order, name))
            case Emit(event):
                self.books.observe(self.now, event)
                if isinstance(event, PaymentsServed):
                    self.counted = {day.day: self.now for day in event.days} | self.counted

    def _export(self) -> None:
        """What the bank's export holds now: payments so far, and of their labels those that have come."""
        frame = self.payments[self.payments["when"] <= self.now]
        fraud = (frame["kind"] != "legitimate") & (self.known_from[frame.index] <= self.now)
        frame[[*COLUMNS, "when"]].assign(fraud=fraud.astype(int)).to_csv(self._folder / "payments.csv", index=False)
        mature = frame["when"].between(self.now - (self.late + 2 * HISTORY) * DAY, self.now - self.late * DAY)
        seen = {"flipped": bool(fraud.get(self.flipped, False)), "labels": int((fraud & mature).sum())}
        self.readings.append(seen)

    async def start_child(self, _: Path) -> TrainerProcess:
        """As `trainer_process.start_own`, for a child that takes it to be the bank's time."""
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            command = (sys.executable, "-c", CHILD, str(self.now), "--fd", str(number))
            process = await asyncio.create_subprocess_exec(*command, pass_fds=(number,))
        reader, writer = await asyncio.open_connection(sock=ours)
        return TrainerProcess(OwnHandle(process), reader, writer)

    # --- what came of it ----------------------------------------------------------------------------------------------

    def found(self, kind: str, until: float) -> dict[str, ServedDay]:
        """How the frauds of a kind fared with what served when they happened, whether their labels are known or not."""
        frame = self.payments[(self.payments["kind"] == kind) & self.payments["when"].between(START, until)]
        contract = self.node.manifest.contract
        rows = Matured(
            contract.columns,
            frame[list(COLUMNS)].to_numpy(np.float32),
            np.empty((len(frame), 0), np.int32),
            np.ones(len(frame), np.float32),
            frame["when"].to_numpy(),
        )
        versions, _ = served_between(self.state.models, START, until)
        return {day.day: day for day in prequential(rows, versions)}


def name_of(day: int) -> str:
    """A day of the calendar as the curve names it."""
    return str(np.datetime64(int(START // DAY) + day, "D"))


def rows_of(bank: Bank, days: int) -> list[dict[str, Any]]:
    """A line of the table for each day."""
    curve = {day.day: day for day in bank.books.days}
    kinds = {kind: bank.found(kind, START + days * DAY) for kind in ("known", "pattern")}
    lines = []
    for day in range(days):
        name, line = name_of(day), {"day": day}
        if (counted := curve.get(name)) is not None:
            figures = {"rows": counted.rows, "frauds": counted.frauds, "auprc": counted.auprc}
            line |= {**figures, "recall": counted.recall, "precision": counted.precision}
            line["counted on day"] = int((bank.counted[name] - START + 60) // DAY)
        line |= {kind: of[name].recall for kind, of in kinds.items() if name in of}
        lines.append(line)
    return lines


def bars_of(bank: Bank, lines: list[dict[str, Any]], asked: argparse.Namespace) -> list[Bar]:
    """What must hold."""
    matures = asked.appears + asked.late + 1  # the cycle of this day is the first that reads labels of the pattern
    recalls = {line["day"]: line["pattern"] for line in lines if "pattern" in line}
    before = [recall for day, recall in recalls.items() if day < matures]
    after = [recall for day, recall in recalls.items() if day >= matures + 2]
    first, last = served_between(bank.state.models, START, bank.now)[0][0][0], bank.books.counted_until
    counted = int(bank.payments["when"].between(first, last).sum())
    flips = [b["flipped"] - a["flipped"] for a, b in itertools.pairwise(bank.readings)]
    other = [reading for reading in bank.readings if reading["frauds"] != reading["labels"]]
    late = bank.payments.loc[bank.flipped]
    day = int((late["when"] - START) // DAY)
    that_day = (bank.payments["when"] // DAY == late["when"] // DAY) & (bank.payments["kind"] != "legitimate")
    known, of_day = int(that_day.sum()) - 1, next(line["frauds"] for line in lines if line["day"] == day)
    in_curve = sum(line.get("rows", 0) for line in lines)
    return [
        Bar("most recall on the pattern, of days before its labels matured", max(before), LOW),
        Bar("mean recall on it, of days from two cycles after", statistics.mean(after), HIGH, at_most=False),
        Bar("payments counted twice in the curve, or not at all", abs(in_curve - counted), 0),
        Bar("readings in which the late label changed, beyond one", abs(flips.count(1) - 1) + flips.count(-1), 0),
        Bar("readings that found other frauds than had labels by then", len(other), 0),
        Bar("frauds of the late label's day in the curve, beside those known in time", abs(of_day - known), 0),
    ]


def shown(lines: list[dict[str, Any]]) -> Table:
    """The lines, as people read them."""
    table = Table(title="by day of the payments")
    columns = ("day", "known", "pattern", "counted on day", "rows", "frauds", "auprc", "recall", "precision")
    for column in columns:
        table.add_column(column, justify="right")
    for line in lines:
        values = (line.get(column) for column in columns)
        table.add_row(*("" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in values))
    return table


def main() -> int:
    """Run it, print the table and the bars; 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--appears", type=int, default=10, help="the day of the pattern's first payment")
    parser.add_argument("--late", type=int, default=10, help="days until a label is known")
    parser.add_argument("--days", type=int, default=36)
    parser.add_argument("--split", choices=("stratified", "time"), default="stratified")
    parser.add_argument("--learner", choices=("keras", "numpy"), default="numpy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the table there as well")
    asked = parser.parse_args()
    lines, bars = asyncio.run(_measured(asked))
    Console(width=None if sys.stdout.isatty() else 140).print(shown(lines))
    for bar in bars:
        print(bar)
    if asked.json:
        asked.json.write_text(json.dumps(lines))
    return 0 if all(bar.reached for bar in bars) else 1


async def _measured(asked: argparse.Namespace) -> tuple[list[dict[str, Any]], list[Bar]]:
    with tempfile.TemporaryDirectory(prefix="p2pfed-bench-") as folder:
        bank = Bank(Path(folder), asked)
        with mock.patch.object(trainer, "start_own", bank.start_child):
            await bank.run(START + asked.days * DAY)
        lines = rows_of(bank, asked.days)
        return lines, bars_of(bank, lines, asked)


if __name__ == "__main__":
    sys.exit(main())
