"""The text that Prometheus reads; a module of its own because its library is imported at the first scrape only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from p2pfed.api.counts import Counts
from p2pfed.api.schemas import MemberRow, Status
from p2pfed.core.types import DAY

CONTENT_TYPE = CONTENT_TYPE_LATEST


def text(version: str, counts: Counts, status: Status, members: list[MemberRow], events_dropped: int) -> bytes:
    """The text exposition of one moment, as CONTENT_TYPE."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Counted(version, counts))
    registry.register(_Read(status, members, events_dropped))
    return generate_latest(registry)


class _Counted:
    """A collector of what the events have told."""

    def __init__(self, version: str, counts: Counts) -> None:
        self._version, self._counts = version, counts

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        counts = self._counts
        yield _states("p2pfed_build_info", "Always 1", "version", {self._version: 1})
        yield _counts("p2pfed_updates", "Updates of peers by result", "result", counts.updates)
        yield CounterMetricFamily("p2pfed_merged_updates", "Peers' models averaged in", counts.merged)
        yield _counts("p2pfed_exchange_failures", "Failed exchanges that benched the peer", "peer", counts.failures)
        buckets = [(floatToGoString(bound), number) for bound, number in counts.rounds_within()]
        yield HistogramMetricFamily(
            "p2pfed_round_duration_seconds", "Time between completed rounds", buckets, counts.round_seconds
        )
        yield GaugeMetricFamily("p2pfed_train_loss", "Training loss of the newest round", counts.loss)
        yield GaugeMetricFamily("p2pfed_merge_displacement", "Distance the newest merge moved", counts.displacement)
        yield _counts("p2pfed_model_decisions", "About which model serves, by result", "result", counts.decisions)
        yield _states("p2pfed_auprc", "AUPRC of the newest evaluated model", "rows", counts.auprc)
        if counts.gain is not None:
            yield GaugeMetricFamily("p2pfed_gain_auprc", "What serves beside a model that trains alone", counts.gain)
        served = "How what served did on the payments whose labels matured last"
        yield _states("p2pfed_served", served, "figure", counts.served)


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
        learning = status.learning
        yield _states("p2pfed_learning_state", "1 for what the node is at", "state", {learning.state: 1})
        if learning.cycle is not None:
            yield GaugeMetricFamily("p2pfed_cycle", "The cycle that is under way or was last", learning.cycle)
        if learning.next_begins is not None:
            next_begins = learning.next_begins
            yield GaugeMetricFamily("p2pfed_next_cycle_timestamp_seconds", "When the next one begins", next_begins)
        if learning.serves is not None:
            since = learning.serves.since
            yield GaugeMetricFamily("p2pfed_model_timestamp_seconds", "Since when the present model serves", since)
        if learning.data.newest_payment is not None:
            newest = learning.data.newest_payment
            yield GaugeMetricFamily("p2pfed_newest_payment_timestamp_seconds", "The newest payment read", newest)
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
        judged = [member for member in self._members if member.standing is not None]
        trust = {member.name: member.trust or 0.0 for member in judged}
        yield _states("p2pfed_peer_reputation", "Factor on the weight of a peer's models, 0 to 1", "peer", trust)
        score = {member.name: member.score or 0.0 for member in judged}
        yield _states("p2pfed_peer_suspicion", "What speaks against a peer; 4 quarantines", "peer", score)
        yield GaugeMetricFamily(
            "p2pfed_peers_quarantined", "Peers whose models are not merged", self._status.consortium.quarantined
        )

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


def _states(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _counts(name: str, meaning: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
