"""Prometheus metrics of one node: counters fed by its events, gauges read from its view at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from p2pfed.api.schemas import MemberRow, Status
from p2pfed.api.view import NodeView
from p2pfed.core.events import Event, ModelEvaluated, PeerBenched, RoundCompleted, UpdateAccepted, UpdateRefused
from p2pfed.core.types import DAY, NodeId

ROUND_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class NodeMetrics:
    """An observer of an EventLog with a registry of its own: many nodes in one process do not mix.

    The label `peer` is a member's name, so it takes at most as many values as the manifest has members.
    """

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self, version: str, name_of: Callable[[NodeId], str]) -> None:
        """`version` of the software; `name_of` a member's name."""
        self._name_of = name_of
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge("p2pfed_build_info", "Always 1", ["version"], registry=registry).labels(version).set(1)
        self._updates = Counter("p2pfed_updates", "Updates of peers by result", ["result"], registry=registry)
        self._merged = Counter("p2pfed_merged_updates", "Peers' models averaged in", registry=registry)
        self._failures = Counter("p2pfed_exchange_failures", "Failed exchanges", ["peer"], registry=registry)
        self._rounds = Histogram(
            "p2pfed_round_duration_seconds", "Time between completed rounds", buckets=ROUND_BUCKETS, registry=registry
        )
        self._loss = Gauge("p2pfed_train_loss", "Training loss of the newest round", registry=registry)
        self._displacement = Gauge("p2pfed_merge_displacement", "Distance the newest merge moved", registry=registry)
        self._auprc = Gauge("p2pfed_auprc", "AUPRC of the newest evaluated model", ["rows"], registry=registry)

    def observe(self, _: float, event: Event) -> None:
        """Count one event."""
        if isinstance(event, UpdateAccepted):
            self._updates.labels("accepted").inc()
        elif isinstance(event, UpdateRefused):
            self._updates.labels(event.reason.code).inc()
        elif isinstance(event, PeerBenched):
            self._failures.labels(self._name_of(event.peer)).inc()
        elif isinstance(event, RoundCompleted):
            self._merged.inc(len(event.merged))
            self._rounds.observe(event.seconds)
            self._loss.set(event.loss)
            self._displacement.set(event.displacement)
        elif isinstance(event, ModelEvaluated):
            for rows, metrics in event.metrics.items():
                if metrics.get("auprc") is not None:
                    self._auprc.labels(rows).set(metrics["auprc"])

    def scrape(self, view: NodeView, events_dropped: int) -> bytes:
        """The text exposition of everything, as CONTENT_TYPE; `events_dropped` as EventLog counts them."""
        read = CollectorRegistry()
        read.register(_Read(view.status(), view.members(), events_dropped))
        return generate_latest(self._registry) + generate_latest(read)


class _Read:
    """A collector of one moment's status and members."""

    def __init__(self, status: Status, members: list[MemberRow], events_dropped: int) -> None:
        self._status = status
        self._events_dropped = events_dropped
        self._members = members

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        yield from self._node()
        yield from self._peers()
        yield from self._process()

    def _node(self) -> Iterator[Metric]:
        status = self._status
        yield _states(
            "p2pfed_health", "1 for the state the node is in", "state", {"ok": 0, "degraded": 0, status.health: 1}
        )
        codes: dict[str, int] = {}
        for problem in status.problems:
            codes[problem.code] = codes.get(problem.code, 0) + 1
        yield _states("p2pfed_problems", "Open problems", "code", codes)
        yield GaugeMetricFamily("p2pfed_round", "Completed rounds", status.learning.round)
        yield GaugeMetricFamily("p2pfed_manifest_version", "Manifest in force", status.consortium.manifest_version)
        left = status.consortium.expires_in_days * DAY
        yield GaugeMetricFamily("p2pfed_manifest_expires_in_seconds", "Until the manifest expires", left)

    def _peers(self) -> Iterator[Metric]:
        states: dict[str, int] = {}
        seen = GaugeMetricFamily("p2pfed_peer_seen_seconds", "Since a peer's newest heartbeat", labels=["peer"])
        for member in self._members:
            states[member.status] = states.get(member.status, 0) + 1
            if member.seen_seconds is not None:
                seen.add_metric([member.name], member.seen_seconds)
        yield _states("p2pfed_members", "Members by state", "state", states)
        yield seen

    def _process(self) -> Iterator[Metric]:
        process = self._status.self
        bytes_moved = CounterMetricFamily("p2pfed_bytes", "Bytes exchanged with peers", labels=["direction"])
        bytes_moved.add_metric(["sent"], process.bytes_sent)
        bytes_moved.add_metric(["received"], process.bytes_received)
        yield bytes_moved
        yield _counts("p2pfed_handshakes_refused", "Strangers and peers turned away", "reason", process.refused)
        yield _counts("p2pfed_task_restarts", "Background tasks started again", "task", process.task_restarts)
        dropped = "Events not recorded: a full disk, or a member's flood"
        yield CounterMetricFamily("p2pfed_events_dropped", dropped, self._events_dropped)
        yield CounterMetricFamily("p2pfed_trainer_restarts", "Trainers started again", process.trainer.restarts)
        yield GaugeMetricFamily("p2pfed_connections", "Open connections of peers", process.connections)
        yield GaugeMetricFamily(
            "p2pfed_event_loop_lag_seconds", "How late the loop answers, 99th percentile", process.loop_lag_p99_seconds
        )
        yield GaugeMetricFamily("p2pfed_disk_free_bytes", "Free where the state lies", process.disk_free_bytes)
        if process.trainer.rss_bytes is not None:
            yield GaugeMetricFamily("p2pfed_trainer_rss_bytes", "Of the trainer", process.trainer.rss_bytes)


def _states(name: str, meaning: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _counts(name: str, meaning: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
