"""How real daemons take trouble: one stopped for a minute, banks that only dial out, kill -9. Run by bench_node.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from p2pfed.api.client import AdminClient
from p2pfed.cluster.founding import Bank, LocalCluster, found
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.running import RunningCluster
from p2pfed.core.types import Address
from p2pfed.core.wire import trust_of
from p2pfed.errors import Unavailable
from p2pfed.experiment.shards import deal
from p2pfed.net.client import HttpTransport
from p2pfed.net.transport import Traffic, Unreachable

ENDLESS = 1_000_000
KILLS = 50

Figures = dict[str, Any]


@contextlib.contextmanager
def founded(options: ClusterOptions, dial_out: tuple[str, ...] = ()) -> Iterator[LocalCluster]:
    """A consortium in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="p2pfed-bench-") as folder:
        yield found(options, deal(options, Path(folder) / "data"), Path(folder), dial_out)


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`, asked until then; raises Unavailable after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Unavailable):
            if value := condition():
                return value
        if time.monotonic() > deadline:
            raise Unavailable(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.02)


def bench_freeze(seconds: float = 60.0) -> Figures:
    with (
        founded(ClusterOptions(nodes=4, rounds=ENDLESS, evaluate_every=50, round_interval=0.5)) as cluster,
        RunningCluster(cluster) as running,
    ):
        *others, frozen = cluster.banks

        def rounds(banks: list[Bank]) -> int:
            return sum(running.status(bank)["learning"]["round"] for bank in banks)

        until(lambda: rounds([frozen]) > 10, 120, "the tenth round")
        before = rounds(others)
        time.sleep(seconds)
        start = rounds(others)
        running.processes.signal(frozen.name, signal.SIGSTOP)
        time.sleep(seconds)
        end = rounds(others)
        running.processes.signal(frozen.name, signal.SIGCONT)
        begin, at = time.monotonic(), running.status(frozen)["learning"]
        until(lambda: running.status(frozen)["learning"]["merged_total"] > at["merged_total"], 60, "a merge")
        merged = time.monotonic() - begin
        seen = {bank.name: _newest(running, bank, frozen) for bank in others}
        until(lambda: all(_newest(running, b, frozen) > seen[b.name] for b in others), 60, "being heard again")
        heard = time.monotonic() - begin
    return {
        "rounds of the other three in a minute before": start - before,
        "and in the minute while one is stopped": end - start,
        "pace kept (1 is the same)": (end - start) / (start - before),
        "s until the stopped one merges again": merged,
        "s until all have heard of it again": heard,
    }


def _newest(running: RunningCluster, observer: Bank, member: Bank) -> int:
    """The newest update of `member` that `observer` has accepted."""
    rows = AdminClient(observer.state.root).get("/api/v1/updates")
    return next(row["seq"] or 0 for row in rows if row["id"] == member.id)


def bench_dialout() -> Figures:
    silent = ("bank-1", "bank-2")
    options = ClusterOptions(nodes=3, rounds=ENDLESS, evaluate_every=50, round_interval=0.2)
    with founded(options, dial_out=silent) as cluster, RunningCluster(cluster) as running:
        one, other, third = cluster.banks

        def heard(observer: Bank, member: Bank) -> bool:
            rows = AdminClient(observer.state.root).get("/api/v1/updates")
            return any(row["id"] == member.id and row["via"] == third.name and row["accepted"] >= 3 for row in rows)

        until(lambda: running.status(third)["learning"]["round"] > 0, 120, "the first round")
        begin = time.monotonic()
        until(lambda: heard(one, other) and heard(other, one), 120, "three relayed updates each way")
        return {"s until each has three of the other's updates, through the third": time.monotonic() - begin}


class Observer:
    """A member that only watches: pulls every bank's newest update again and again and remembers what it was given."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster, self._watcher = cluster, cluster.banks[-1]
        self.served: dict[tuple[str, int], str] = {}
        """(member, sequence number) -> digest of the statement."""
        self.newest: dict[str, int] = {}
        self.conflicts: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()))

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _watch(self) -> None:
        transport = HttpTransport(self._watcher.state.tls, trust_of(self._cluster.manifest), Traffic())
        members = self._cluster.manifest.by_id
        try:
            while not self._stop.is_set():
                for bank in self._cluster.banks[:-1]:
                    addresses = [Address.parse(text) for text in members[bank.id].endpoints]
                    with contextlib.suppress(Unreachable):
                        update = await transport.pull(bank.id, addresses, bank.id, 0)
                        if update is not None:
                            self._note(bank, update.statement.seq, update.digest)
                await asyncio.sleep(0.02)
        finally:
            await transport.close()

    def _note(self, bank: Bank, seq: int, digest: str) -> None:
        if self.served.setdefault((bank.name, seq), digest) != digest:
            self.conflicts.append(f"{bank.name} signed update {seq} twice")
        if seq < self.newest.get(bank.name, 0):
            self.conflicts.append(f"{bank.name} fell back from update {self.newest[bank.name]} to {seq}")
        self.newest[bank.name] = max(seq, self.newest.get(bank.name, 0))


def bench_kill(kills: int = KILLS) -> Figures:
    options = ClusterOptions(nodes=5, rounds=ENDLESS, evaluate_every=50, round_interval=0.1)
    rng = random.Random()
    restarts, lost, count = [], 0, {"daemon": 0, "trainer": 0}
    with founded(options) as cluster, RunningCluster(replace(cluster, banks=cluster.banks[:-1])) as running:
        banks = running.cluster.banks
        until(lambda: all(running.status(b)["learning"]["seq"] > 3 for b in banks), 180, "the first updates")
        with Observer(cluster) as observer:
            until(lambda: len(observer.newest) == len(banks), 60, "the observer's first pulls")
            for _ in range(kills):
                time.sleep(rng.uniform(0.1, 2.0))
                bank, what = rng.choice(banks), rng.choice(("daemon", "trainer"))
                trainer = running.status(bank)["self"]["trainer"]["pid"]
                if what == "trainer" and trainer is None:
                    what = "daemon"  # its trainer is on its way back from the last kill
                elif what == "trainer":
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(trainer, signal.SIGKILL)
                count[what] += 1
                if what == "daemon":
                    served = observer.newest[bank.name]
                    running.processes.kill(bank.name)
                    begin = time.monotonic()
                    running.start(bank)
                    lost += running.wait(bank, 30)["learning"]["seq"] < served
                    restarts.append(time.monotonic() - begin)
            reached = {b.name: observer.newest[b.name] for b in banks}
            until(lambda: all(observer.newest[b.name] > reached[b.name] + 3 for b in banks), 180, "going on")
        refused = [
            event["fields"]["detail"]
            for bank in banks
            for event in running.events(bank)
            if event["kind"] == "update_refused" and event["fields"]["reason"] == "equivocation"
        ]
    return {
        "daemons killed": count["daemon"],
        "trainers killed": count["trainer"],
        "restarts that answered": len(restarts),
        "s to answer after kill -9, slowest": max(restarts),
        "updates recorded by the observer": len(observer.served),
        "sequence numbers signed twice or fallen back (bar 0)": len(observer.conflicts),
        "equivocations seen by the nodes (bar 0)": len(refused),
        "restarts behind what had been served (bar 0)": lost,
    }
