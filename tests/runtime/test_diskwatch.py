"""A disk that fills up is a problem of the running node, and over once there is room."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

import pytest

from p2pfed.core.events import Event, ProblemCleared, ProblemRaised
from p2pfed.core.inputs import Input, TroubleOver, TroubleSeen
from p2pfed.runtime import diskwatch
from p2pfed.store import disk
from tests.core.heap import started


async def told(root: Path, free: list[int]) -> list[Input]:
    """What a watch puts while the disk has these many bytes free, one after the other."""
    heard: list[Input] = []
    looks = deque(free)
    with pytest.raises(IndexError):  # what ends the watch, and here the test
        await asyncio.wait_for(diskwatch.watch(root, lambda: 10, heard.append, lambda _: looks.popleft()), 10)
    return heard


async def test_a_full_disk_is_told_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diskwatch, "PERIOD", 0.0)
    monkeypatch.setattr(disk, "not_local", lambda root: None)
    least = disk.LEAST_FREE
    heard = await told(tmp_path, [least, least - 1, 0, least, least, 5])
    assert [(type(x), x.code) for x in heard if isinstance(x, TroubleSeen | TroubleOver)] == [
        (TroubleSeen, "DISK_LOW"),
        (TroubleSeen, "DISK_LOW"),
        (TroubleOver, "DISK_LOW"),
        (TroubleSeen, "DISK_LOW"),
    ]
    node = started(1, rounds=0).nodes.popitem()[1]
    seen = [len(node.handle(x, 100.0)) for x in heard]
    assert seen == [1, 0, 1, 1], "raised once, cleared once, raised again"
    assert "DISK_LOW" in node.problems


async def test_a_network_file_system_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diskwatch, "PERIOD", 0.0)
    monkeypatch.setattr(disk, "network_filesystem", lambda *_: "nfs4")
    [doubt] = await told(tmp_path, [disk.LEAST_FREE] * 3)
    assert isinstance(doubt, TroubleSeen) and doubt.code == "STATE_NOT_LOCAL"


def test_a_locked_database_is_a_problem_until_it_is_free() -> None:
    told: list[Event] = []
    tell = diskwatch.locked(told.append)
    tell(True)
    tell(False)
    raised, cleared = told
    assert isinstance(raised, ProblemRaised) and isinstance(cleared, ProblemCleared)
    assert raised.code == cleared.code == "STATE_BUSY" and "5 minutes" in raised.hint
