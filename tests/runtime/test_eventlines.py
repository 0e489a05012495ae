"""Events as log lines: what repeats is written once in a while, with its count."""

from __future__ import annotations

import logging

import pytest

from p2pfed import logs
from p2pfed.core.events import Event, PeerChanged, RunFinished, UpdateRefused
from p2pfed.core.types import NodeId, PeerState, Reason
from p2pfed.runtime.eventlines import REPEAT_SECONDS, EventLines

A = NodeId("A" * 56)
LEFT = PeerChanged(A, PeerState.ALIVE, PeerState.LEFT)
BACK = PeerChanged(A, PeerState.LEFT, PeerState.ALIVE)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> EventLines:
    caplog.set_level(logging.INFO)
    return EventLines(logs.for_node("bank-0"), lambda member: "bank-1")


@pytest.mark.parametrize(
    "flood", [[UpdateRefused(A, A, Reason.FORGED_SIGNATURE, "")], [LEFT, BACK]], ids=["refused", "good-byes"]
)
def test_a_members_flood_does_not_fill_the_log(
    lines: EventLines, caplog: pytest.LogCaptureFixture, flood: list[Event]
) -> None:
    for i in range(1000):
        for event in flood:
            lines.observe(i * 0.01, event)
    assert len(caplog.records) == len(flood)
    lines.observe(REPEAT_SECONDS + 1, flood[0])
    assert caplog.records[-1].count == 1000  # type: ignore[attr-defined]


def test_other_events_are_each_a_line(lines: EventLines, caplog: pytest.LogCaptureFixture) -> None:
    for after in (PeerState.SUSPECT, PeerState.ALIVE, PeerState.SUSPECT):
        lines.observe(0.0, PeerChanged(A, PeerState.ALIVE, after))
    lines.observe(0.0, RunFinished(3))
    assert len(caplog.records) == 4
