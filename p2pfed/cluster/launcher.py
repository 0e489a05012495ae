"""Runs a founded consortium for its rounds and gathers what each node measured."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from p2pfed.cluster.founding import Bank, LocalCluster
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.progress import Screen
from p2pfed.cluster.running import RunningCluster
from p2pfed.core.types import NodeId
from p2pfed.errors import LocalFault, Unavailable
from p2pfed.results import HistoryPoint, NodeHistory, NodeRun, Quarantine, Quarantines, RunFile, versions

POLL_SECONDS = 0.5
STALL_SECONDS = 600.0
"""A cluster in which no node completes a round for so long is given up."""


def run(options: ClusterOptions, cluster: LocalCluster, screen: Screen) -> RunFile:
    """Start every process, wait for the rounds, collect, stop; the run has no baselines yet.

    Raises LocalFault if a process dies or a trainer fails again and again, Unavailable if no round is completed for
    ten minutes.
    """
    begin = time.monotonic()
    with RunningCluster(cluster) as running:
        with screen:
            _wait(running, options.total_rounds, screen, options.rounds if options.cycles else 0)
        wall = time.monotonic() - begin
        gathered = [_gather(running, bank) for bank in cluster.banks]
        screen.step("stopping the nodes")
    told = list(zip(cluster.banks, gathered, strict=True))
    names = {bank.id: bank.name for bank in cluster.banks}
    return RunFile(
        kind="cluster",
        seed=options.seed,
        rounds=options.total_rounds,
        wall_seconds=wall,
        versions=versions(),
        options=_plain_options(options),
        nodes=tuple(node for node, _ in gathered),
        quarantines=tuple(q for bank, (_, events) in told for q in quarantines(bank, names, events)),
        history=tuple(point for bank, (_, events) in told for point in history(bank.name, events)),
    )


def _wait(running: RunningCluster, rounds: int, screen: Screen, per_cycle: int) -> None:
    """Until every node has done its rounds, of which a cycle has `per_cycle`; 0 where there are no cycles."""
    done, last_news = -1, time.monotonic()
    while True:
        progress = running.progress()
        screen.nodes(progress, rounds, per_cycle)
        if all(node.finished for node in progress):
            return
        if (failing := next((node for node in progress if node.trouble), None)) is not None:
            raise LocalFault(f"{failing.name} cannot train, though it was tried several times: {failing.trouble}")
        now, total = time.monotonic(), sum(node.round for node in progress)
        if total != done:
            done, last_news = total, now
        elif now - last_news > STALL_SECONDS:
            raise Unavailable(
                f"no node completed a round for {STALL_SECONDS:.0f} s; look into {running.cluster.folder}"
            )
        time.sleep(POLL_SECONDS)


def _gather(running: RunningCluster, bank: Bank) -> tuple[NodeRun, list[dict[str, Any]]]:
    status = running.status(bank)
    learning, costs = status["learning"], status["self"]
    node = NodeRun(
        name=bank.name,
        id=bank.id,
        role="attacker" if bank.attack else "honest",
        train_rows=learning["train_rows"],
        train_frauds=learning["train_frauds"],
        rounds=learning["round"],
        test=learning["metrics"].get("test"),
        own_test=learning["metrics"].get("own_test"),
        alone=None,
        bytes_sent=costs["bytes_sent"],
        bytes_received=costs["bytes_received"],
        peak_rss_bytes=costs["peak_rss_bytes"],
    )
    return node, running.events(bank)


def history(name: str, events: list[dict[str, Any]]) -> list[HistoryPoint]:
    """A node's rounds, from its events in order."""
    told = NodeHistory(name)
    for event in events:
        fields = event["fields"]
        if event["kind"] == "update_accepted":
            told.accepted(fields["bytes"])
        elif event["kind"] == "round_completed":
            told.completed(fields["round"], fields["loss"], fields["seconds"])
        elif event["kind"] in ("model_evaluated", "model_promoted", "model_held"):
            told.evaluated(fields["round"], fields["metrics"].get("test", {}).get("auprc"))
    return told.points()


def quarantines(bank: Bank, names: Mapping[NodeId, str], events: list[dict[str, Any]]) -> list[Quarantine]:
    """Whom a bank quarantined, from its events in order; of attackers nothing, for they judge as they please."""
    told, round_number = Quarantines(bank.name), 1
    for event in events if not bank.attack else ():
        fields = event["fields"]
        if event["kind"] == "round_completed":
            round_number = fields["round"] + 1
        elif event["kind"] == "standing_changed":
            looks = int(fields["numbers"].get("looks", 0))
            told.changed(names[fields["member"]], fields["after"], round_number, looks)
    return told.told()


def _plain_options(options: ClusterOptions) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(options), default=str))
    return plain
