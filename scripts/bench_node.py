#!/usr/bin/env python3
"""What a node and a cluster of real daemons cost, and how they take trouble, measured on this machine.

    scripts/bench_node.py [--only start,rounds,cli,freeze,dialout,kill] [--json OUT]

start    one daemon: seconds until it listens, its memory, the CPU of the command line
rounds   ten daemons, 200,000 training rows of 30 features over them, one epoch a round: seconds a round, latency of
         `status` meanwhile, memory, and the time to the first merged exchange beside one import of TensorFlow
freeze   one of four daemons is stopped for a minute: do the others go on at the same pace, does it catch up
dialout  two banks that only dial out: do they learn from each other through a third
kill     daemons and trainers killed at random 50 times while an observer records every update served
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from p2pfed.api.client import AdminClient
from p2pfed.cluster.founding import Bank, LocalCluster, found
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.processes import interruptible
from p2pfed.cluster.running import RunningCluster
from p2pfed.core.consortium import members_by_id
from p2pfed.core.types import Address
from p2pfed.core.wire import trust_of
from p2pfed.errors import Unavailable
from p2pfed.experiment.shards import deal
from p2pfed.net.client import HttpTransport
from p2pfed.net.transport import Traffic, Unreachable

ENDLESS = 1_000_000
TRAIN_ROWS, FEATURES = 200_000, 30
KILLS = 50

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Figures] = {}
    with interruptible():
        for name in arguments.only.split(","):
            print(f"--- {name}", flush=True)
            figures[name] = SECTIONS[name]()
            for what, value in figures[name].items():
                print(f"{what:<60} {value:.3f}" if isinstance(value, float) else f"{what:<60} {value}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


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


def private_bytes(pid: int) -> int:
    """Memory that only this process has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def child_cpu(*arguments: str) -> float:
    """Median CPU seconds of five runs of `python ARGUMENTS`."""
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(spent)


# --- costs ------------------------------------------------------------------------------------------------------------


def bench_start() -> Figures:
    with founded(ClusterOptions(nodes=2, rounds=ENDLESS, evaluate_every=50)) as cluster:
        running, bank = RunningCluster(cluster), cluster.banks[0]
        (endpoint,) = members_by_id(cluster.manifest)[bank.id].endpoints
        address = Address.parse(endpoint)

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((address.host, address.port), 1):
                return True
            return False

        seconds = []
        try:
            for _ in range(5):
                begin = time.monotonic()
                running.start(bank)
                until(listens, 20, "listening")
                seconds.append(time.monotonic() - begin)
                running.wait(bank, 10)
                status_cpu = child_cpu("-m", "p2pfed", "status", "--config", str(bank.config))
                time.sleep(2)
                memory = running.status(bank)["self"]
                running.processes.stop(bank.name)
        finally:
            running.stop()
    return {
        "listening after start, median of 5 (bar 1.5 s)": statistics.median(seconds),
        "resident MB of a daemon without trainer (bar 80)": memory["rss_bytes"] / 1e6,
        "CPU s of `p2pfed --version` (bar 0.4)": child_cpu("-m", "p2pfed", "--version"),
        "CPU s of `p2pfed status` (bar 0.4)": status_cpu,
    }


def made_payments(path: Path) -> Path:
    """As many rows as leave 200,000 to train on after the pooled test and the banks' validation rows."""
    rng = np.random.default_rng(0)
    count = round(TRAIN_ROWS / 0.95 / 0.85)
    features = rng.standard_normal((count, FEATURES)).astype(np.float32)
    frame = pd.DataFrame(features, columns=[f"x{i}" for i in range(FEATURES)])
    frame["fraud"] = (features[:, :5].sum(axis=1) + rng.standard_normal(count) > 6).astype(np.int8)
    frame.to_parquet(path, index=False)
    return path


def bench_rounds(rounds: int = 20) -> Figures:
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", "import tensorflow"], capture_output=True, check=True)
    importing = time.monotonic() - begin
    with tempfile.TemporaryDirectory() as folder:
        options = ClusterOptions(
            nodes=10,
            rounds=rounds,
            data=made_payments(Path(folder) / "payments.parquet"),
            label="fraud",
            partition="iid",
            test_share=0.05,
            own_test_share=0,
            local_steps=0,
            evaluate_every=rounds,
        )
        with founded(options) as cluster:
            begin, wall = time.monotonic(), time.time()
            with RunningCluster(cluster) as running:
                latencies = _poll_to_the_end(running)
                costs = [_memory(running, bank) for bank in cluster.banks]
                events = [running.events(bank) for bank in cluster.banks]
    done = [e for one in events for e in one if e["kind"] == "round_completed"]
    merged = [e["time"] for e in done if e["fields"]["merged"]]
    return {
        "s a round, median (bar 1.0, aim 0.5)": statistics.median(
            e["fields"]["seconds"] for e in done if e["fields"]["round"] > 1
        ),
        "of which training": statistics.median(
            e["fields"]["training_seconds"] for e in done if e["fields"]["round"] > 1
        ),
        "updates merged a round, mean": statistics.fmean(
            len(e["fields"]["merged"]) for e in done if e["fields"]["round"] > 1
        ),
        "ms of `status` while training, median": 1000 * statistics.median(latencies),
        "ms of `status` while training, 95th percentile (bar 50)": 1000 * statistics.quantiles(latencies, n=20)[-1],
        "s to import TensorFlow": importing,
        "s to the first merged exchange (bar 2 imports)": min(merged) - wall,
        "first merged exchange, in imports (bar 2)": (min(merged) - wall) / importing,
        "resident MB of a daemon, largest (bar 80)": max(c["daemon"] for c in costs) / 1e6,
        "private MB of daemon and trainer, largest (bar 250)": max(c["private"] for c in costs) / 1e6,
        "peak resident MB of a daemon, largest": max(c["peak"] for c in costs) / 1e6,
    }


def _poll_to_the_end(running: RunningCluster) -> list[float]:
    """Ask one node after the other until all have finished; returns the seconds each answer took while they trained."""
    latencies, finished = [], set()
    while len(finished) < len(running.cluster.banks):
        running.check()
        for bank in running.cluster.banks:
            begin = time.perf_counter()
            try:
                status = running.status(bank)
            except Unavailable:
                continue
            if status["learning"]["round"] > 0 and not finished:
                latencies.append(time.perf_counter() - begin)
            if status["learning"]["state"] == "finished":
                finished.add(bank.name)
        time.sleep(0.05)
    return latencies


def _memory(running: RunningCluster, bank: Bank) -> dict[str, int]:
    costs, daemon = running.status(bank)["self"], running.processes.pid(bank.name)
    return {
        "daemon": costs["rss_bytes"],
        "peak": costs["peak_rss_bytes"],
        "private": private_bytes(daemon) + private_bytes(costs["trainer"]["pid"]),
    }


# --- trouble ----------------------------------------------------------------------------------------------------------


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
        members = members_by_id(self._cluster.manifest)
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
    rng = random.Random(0)
    restarts, lost, count = [], 0, {"daemon": 0, "trainer": 0}
    with founded(options) as cluster, RunningCluster(replace(cluster, banks=cluster.banks[:-1])) as running:
        banks = running.cluster.banks
        until(lambda: all(running.status(b)["learning"]["seq"] > 3 for b in banks), 180, "the first updates")
        with Observer(cluster) as observer:
            until(lambda: len(observer.newest) == len(banks), 60, "the observer's first pulls")
            for _ in range(kills):
                time.sleep(rng.uniform(0.1, 2.0))
                bank, what = rng.choice(banks), rng.choice(("daemon", "trainer"))
                if what == "trainer":
                    trainer = running.status(bank)["self"]["trainer"]
                    if trainer["state"] != "running" and trainer["pid"] is None:
                        what = "daemon"  # its trainer is on its way back from the last kill
                    else:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(trainer["pid"], signal.SIGKILL)
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


SECTIONS: dict[str, Callable[[], Figures]] = {
    "start": bench_start,
    "rounds": bench_rounds,
    "freeze": bench_freeze,
    "dialout": bench_dialout,
    "kill": bench_kill,
}

if __name__ == "__main__":
    main()
