"""Real daemons and trainers under kill -9, SIGSTOP and one-way firewalls: nobody waits, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from p2pfed.api.client import AdminClient
from p2pfed.cluster.founding import Bank, found
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.running import RunningCluster
from p2pfed.experiment.shards import deal
from p2pfed.store.sqlite import SqliteStore

DIAL_OUT = ("bank-1", "bank-2")
"""Two banks behind firewalls that let nobody in."""
ENDLESS = 100_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Five daemons that train for ever, two of which can only dial out."""
    folder = tmp_path_factory.mktemp("faults")
    options = ClusterOptions(nodes=5, rounds=ENDLESS, round_interval=0.25, evaluate_every=20, partition="iid")
    cluster = found(options, deal(options, folder / "data"), folder, dial_out=DIAL_OUT)
    with RunningCluster(cluster) as running:
        for bank in cluster.banks:
            _until(lambda b=bank: _round(running, b) >= 3, 120)
        yield running


def _until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "the cluster did not get there in time"
        time.sleep(0.1)


def _learning(running: RunningCluster, bank: Bank) -> dict[str, Any]:
    learning: dict[str, Any] = running.wait(bank, 30)["learning"]
    return learning


def _round(running: RunningCluster, bank: Bank) -> int:
    return int(_learning(running, bank)["round"])


def _signed(bank: Bank) -> dict[str, tuple[int, str]]:
    """What the others' databases remember of each member: its highest (seq, digest). Read without disturbing them."""
    connection = sqlite3.connect(f"file:{bank.state.database}?mode=ro", uri=True)
    try:
        return {m: (seq, digest) for m, seq, digest in connection.execute("SELECT member, seq, digest FROM marks")}
    finally:
        connection.close()


def test_two_banks_that_can_only_dial_out_learn_from_each_other(running: RunningCluster) -> None:
    banks = {b.name: b for b in running.cluster.banks}
    for one, other in (DIAL_OUT, DIAL_OUT[::-1]):

        def through_a_third(one: str = one, other: str = other) -> bool:
            rows = AdminClient(banks[one].state.root).get("/api/v1/updates")
            row = next(r for r in rows if r["name"] == other)
            return row["accepted"] > 0 and row["via"] not in (one, other)

        _until(through_a_third, 60)


def test_nobody_waits_for_a_stopped_daemon_and_it_catches_up(running: RunningCluster) -> None:
    victim, *others = running.cluster.banks[::-1]
    before = {b.name: _round(running, b) for b in others}
    running.processes.signal(victim.name, signal.SIGSTOP)
    try:
        time.sleep(8)
        gained = [_round(running, b) - before[b.name] for b in others]
    finally:
        running.processes.signal(victim.name, signal.SIGCONT)
    assert min(gained) >= 0.6 * 8 / 0.25, f"rounds gained in 8 s at one every 0.25 s: {gained}"
    at = _round(running, victim)
    _until(lambda: _round(running, victim) >= at + 5, 60)


def test_kill_9_of_daemons_and_trainers_loses_nothing(running: RunningCluster) -> None:
    rng = np.random.default_rng(0)
    signed: dict[tuple[str, int], set[str]] = defaultdict(set)
    for number in range(6):
        time.sleep(float(rng.uniform(0.2, 1.0)))
        bank = running.cluster.banks[int(rng.integers(5))]
        acknowledged = max(
            (seq for b in running.cluster.banks for m, (seq, _) in _signed(b).items() if m == bank.id), default=0
        )
        if number % 2:
            running.processes.kill(bank.name)
            running.start(bank)
        else:
            pid = running.wait(bank, 30)["self"]["trainer"]["pid"]
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        at = _learning(running, bank)["seq"]
        assert at >= acknowledged, "an acknowledged update is lost"
        _until(lambda b=bank, a=at: _learning(running, b)["seq"] > a, 90)
        for other in running.cluster.banks:
            for member, (seq, digest) in _signed(other).items():
                signed[(member, seq)].add(digest)
    assert max(len(digests) for digests in signed.values()) == 1, "a sequence number was used for two updates"


def test_histories_verify_after_all_that(running: RunningCluster) -> None:
    running.stop()
    for bank in running.cluster.banks:
        store = SqliteStore(bank.state)
        try:
            assert store.restore().checkpoint is not None
            assert asyncio.run(store.verify_chain()) > 0
        finally:
            store.close()
