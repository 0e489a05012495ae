"""What Prometheus is told of one node: counts fed by its events, beside its status at each scrape."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from p2pfed.api.counts import ROUND_BUCKETS, Counts
from p2pfed.api.view import NodeView
from p2pfed.core.events import (
    Event,
    GainMeasured,
    ModelEvaluated,
    ModelHeld,
    ModelPromoted,
    PaymentsServed,
    PeerBenched,
    RoundCompleted,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.served import together
from p2pfed.core.types import NodeId


class NodeMetrics:
    """An observer of an EventLog with counts of its own: many nodes in one process do not mix.

    The label `peer` is a member's name, so it takes at most as many values as the manifest has members.
    """

    def __init__(self, version: str, name_of: Callable[[NodeId], str]) -> None:
        """`version` of the software; `name_of` a member's name."""
        self._version, self._name_of = version, name_of
        self._counts = Counts()

    def observe(self, _: float, event: Event) -> None:
        """Count one event."""
        counts = self._counts
        if isinstance(event, UpdateAccepted):
            counts.updates["accepted"] += 1
        elif isinstance(event, UpdateRefused):
            counts.updates[event.reason.code] += 1
        elif isinstance(event, PeerBenched):
            counts.failures[self._name_of(event.peer)] += 1
        elif isinstance(event, RoundCompleted):
            counts.merged += len(event.merged)
            counts.rounds[bisect_left(ROUND_BUCKETS, event.seconds)] += 1
            counts.round_seconds += event.seconds
            counts.loss, counts.displacement = event.loss, event.displacement
        elif isinstance(event, ModelPromoted | ModelHeld):
            counts.decisions["promoted" if isinstance(event, ModelPromoted) else "held"] += 1
        elif isinstance(event, ModelEvaluated):
            # whole: rows that were read anew may leave nothing to measure where the ones before did
            counts.auprc = {rows: of["auprc"] for rows, of in event.metrics.items() if of.get("auprc") is not None}
        elif isinstance(event, GainMeasured):
            counts.gain = event.gain
        elif isinstance(event, PaymentsServed):
            whole = together(event.days)
            figures = {"auprc": whole.auprc, "recall": whole.recall, "precision": whole.precision}
            counts.served = {name: figure for name, figure in figures.items() if figure is not None}

    def scrape(self, view: NodeView, events_dropped: int) -> tuple[bytes, str]:
        """The text exposition of everything and its content type; `events_dropped` as EventLog counts them."""
        # imported only here: most nodes are never scraped, and it costs a megabyte
        from p2pfed.api import exposition

        text = exposition.text(self._version, self._counts, view.status(), view.members(), events_dropped)
        return text, exposition.CONTENT_TYPE
