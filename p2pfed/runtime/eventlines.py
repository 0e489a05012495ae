"""Events as log lines: each kind at its level, repeats of a refusal collapsed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from p2pfed.api.sentences import sentence
from p2pfed.api.stream import kind
from p2pfed.core.events import (
    EquivocationProven,
    Event,
    ModelEvaluated,
    PeerBenched,
    PeerChanged,
    ProblemRaised,
    RoundCompleted,
    StandingChanged,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.types import NodeId, PeerState, Verdict
from p2pfed.logs import NodeLogger

REPEAT_SECONDS = 900.0
"""A refusal or failure that repeats is written at once, then at most this often, with its count."""


class EventLines:
    """An observer of an EventLog that writes to the node's logger."""

    def __init__(self, log: NodeLogger, name_of: Callable[[NodeId], str]) -> None:
        self._log, self._name_of = log, name_of
        self._written: dict[tuple[str, ...], float] = {}
        self._held: Counter[tuple[str, ...]] = Counter()

    def observe(self, now: float, event: Event) -> None:
        """Write one event, unless it repeats one just written."""
        key = _repeats(event)
        level = _level(event)
        if key is not None and level >= logging.INFO:
            self._held[key] += 1
            if now - self._written.get(key, float("-inf")) < REPEAT_SECONDS:
                return
            self._written[key] = now
        extra: dict[str, object] = {"event": kind(event)}
        if key is not None and (count := self._held.pop(key, 1)) > 1:
            extra["count"] = count
        self._log.log(level, sentence(event, self._name_of), extra=extra)


def _level(event: Event) -> int:
    if isinstance(event, UpdateRefused):
        return logging.WARNING if event.reason.verdict is Verdict.REJECT else logging.DEBUG
    if isinstance(event, ProblemRaised):
        return logging.ERROR if event.severity == "error" else logging.WARNING
    if isinstance(event, EquivocationProven):
        return logging.WARNING
    if isinstance(event, StandingChanged):
        return logging.WARNING if event.after == "quarantined" else logging.INFO
    if isinstance(event, (UpdateAccepted, PeerBenched, RoundCompleted, ModelEvaluated)):
        return logging.DEBUG
    return logging.INFO


def _repeats(event: Event) -> tuple[str, ...] | None:
    if isinstance(event, UpdateRefused):
        return ("refused", event.blamed, event.reason.code)
    if isinstance(event, ProblemRaised):
        return ("problem", event.code, event.subject)
    if isinstance(event, PeerChanged) and PeerState.LEFT in (event.before, event.after):
        return ("good-bye", event.member, event.after.value)  # it can say so as often as it likes
    return None
