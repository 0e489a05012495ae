#!/usr/bin/env python3
"""What a node and a cluster of real daemons cost, and how they take trouble, measured on this machine.

    scripts/bench_node.py [--only start,rounds,freeze,dialout,kill,run] [--json OUT]

start    one daemon: seconds until it listens, its memory, the CPU of the command line
rounds   ten daemons, 200,000 training rows of 30 features over them, one epoch a round: seconds a round, latency of
         `status` meanwhile, memory, and the time to the first merged exchange beside one import of TensorFlow
freeze   one of four daemons is stopped for a minute: do the others go on at the same pace, does it catch up
dialout  two banks that only dial out: do they learn from each other through a third
run      `scripts/run` in a clean clone, twice
kill     daemons and trainers killed at random 50 times while an observer records every update served
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from bench_faults import ENDLESS, Figures, bench_dialout, bench_freeze, bench_kill, founded, until

from p2pfed.cluster.founding import Bank
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.processes import interruptible
from p2pfed.cluster.running import RunningCluster
from p2pfed.core.types import Address
from p2pfed.errors import Unavailable

TRAIN_ROWS, FEATURES = 200_000, 30


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


def private_bytes(pid: int) -> int:
    """Memory that only this process has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def cpu_seconds(pid: int) -> float:
    """What a running process has spent so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
        (endpoint,) = cluster.manifest.by_id[bank.id].endpoints
        address = Address.parse(endpoint)

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((address.host, address.port), 1):
                return True
            return False

        seconds, spent = [], []
        try:
            for _ in range(5):
                begin = time.monotonic()
                running.start(bank)
                until(listens, 20, "listening")
                seconds.append(time.monotonic() - begin)
                spent.append(cpu_seconds(running.processes.pid(bank.name)))
                running.wait(bank, 10)
                status_cpu = child_cpu("-m", "p2pfed", "status", "--config", str(bank.config))
                time.sleep(2)
                memory = running.status(bank)["self"]
                running.processes.stop(bank.name)
        finally:
            running.stop()
    return {
        "listening after start, median of 5 (bar 1.5 s)": statistics.median(seconds),
        "CPU s until it listens": statistics.median(spent),
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
        "private MB of a daemon, largest": max(c["alone"] for c in costs) / 1e6,
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
        "alone": private_bytes(daemon),
        "private": private_bytes(daemon) + private_bytes(costs["trainer"]["pid"]),
    }


def bench_run() -> Figures:
    here = Path(__file__).resolve().parent.parent
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(here), f"{folder}/p2pfed"], check=True)
        for _ in range(2):
            begin = time.monotonic()
            subprocess.run(["scripts/run"], cwd=f"{folder}/p2pfed", check=True)
            seconds.append(time.monotonic() - begin)
    return {
        "s of scripts/run in a clean clone (bar 240)": seconds[0],
        "s the second time (bar 90)": seconds[1],
    }


SECTIONS: dict[str, Callable[[], Figures]] = {
    "start": bench_start,
    "rounds": bench_rounds,
    "freeze": bench_freeze,
    "dialout": bench_dialout,
    "kill": bench_kill,
    "run": bench_run,
}

if __name__ == "__main__":
    main()
