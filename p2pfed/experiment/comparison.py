"""`p2pfed cluster run`: banks dealt from one file learn together as real daemons, then rivals get the same budget."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from p2pfed import results
from p2pfed.cluster import launcher
from p2pfed.cluster.founding import LocalCluster, found
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.processes import interruptible
from p2pfed.cluster.progress import Screen
from p2pfed.data import report
from p2pfed.experiment import rivals
from p2pfed.experiment.shards import deal
from p2pfed.results import Alone, Baselines, NodeRun, RunFile

LINE_SECONDS = 5.0


def run(options: ClusterOptions, screen: Screen) -> RunFile:
    """The whole comparison; leaves no process, and no directory unless told to keep it.

    Writes the run file if `options.json` names one. Raises Interrupted on Ctrl-C, and what founding, launching and
    the baselines raise.
    """
    with interruptible(), workspace(options, screen) as folder:
        screen.step("dealing payments to the banks")
        shards = deal(options, folder / "data")
        screen.step(f"founding a consortium of {options.nodes} banks in {folder}")
        cluster = found(options, shards, folder)
        if cluster.left_out:
            screen.step(f"rows {report.counted(report.LEFT_OUT, cluster.left_out)}")
        screen.step("starting the trainers' spawner and the banks' daemons")
        measured = launcher.run(options, cluster, screen)
        if options.baselines:
            measured = _with_rivals(measured, options, cluster, screen)
    if options.json is not None:
        results.write(measured, options.json)
    return measured


@contextlib.contextmanager
def workspace(options: ClusterOptions, screen: Screen) -> Iterator[Path]:
    """The cluster's directory, removed afterwards unless it is to be kept or was there before."""
    if options.directory is not None:
        folder, ours = options.directory.resolve(), not options.directory.exists()
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder, ours = Path(tempfile.mkdtemp(prefix="p2pfed-")), True
    folder.chmod(0o700)
    try:
        yield folder
    finally:
        if options.keep or not ours:
            screen.step(f"the cluster's files are in {folder}")
        else:
            shutil.rmtree(folder)


def _with_rivals(run_file: RunFile, options: ClusterOptions, cluster: LocalCluster, screen: Screen) -> RunFile:
    """The run with its baselines trained and filled in."""
    screen.step(f"training the baselines at equal budget: {', '.join(options.baselines)}")
    last_line = time.monotonic()

    def tell(what: str, number: int) -> None:
        nonlocal last_line
        if time.monotonic() - last_line >= LINE_SECONDS:
            last_line = time.monotonic()
            screen.step(f"{what}: round {number} of {options.total_rounds}")

    found_rivals = rivals.run(cluster, options.baselines, options.total_rounds, tell)
    nodes = tuple(_beside_alone(node, found_rivals) for node in run_file.nodes)
    centralised, fedavg = found_rivals.centralised, found_rivals.fedavg
    return replace(
        run_file,
        nodes=nodes,
        baselines=Baselines(centralised and centralised.get("test"), fedavg and fedavg.get("test")),
    )


def _beside_alone(node: NodeRun, found_rivals: rivals.Rivals) -> NodeRun:
    metrics = found_rivals.alone.get(node.name)
    if metrics is None:
        return node
    return replace(node, alone=Alone(metrics.get("test"), metrics.get("own_test")))
