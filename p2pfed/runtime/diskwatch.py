"""Looking after what a running node uses up: a problem while the disk, or descriptors, may soon be no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from p2pfed.core.events import Event, ProblemCleared, ProblemRaised
from p2pfed.core.inputs import Input, TroubleOver, TroubleSeen
from p2pfed.store import descriptors, disk
from p2pfed.store.sqlite import LOCKED_SECONDS

PERIOD = 30.0
"""Seconds between two looks."""


def locked(emit: Callable[[Event], None]) -> Callable[[bool], None]:
    """Tells of a database that another process keeps locked: at once, for the node itself waits for its `Save`."""

    def tell(locked: bool) -> None:
        message = "another process writes to the node's database: until it ends nothing is saved, trained or published"
        hint = f"end it; a save that has waited for {LOCKED_SECONDS / 60:.0f} minutes ends this daemon"
        emit(ProblemRaised("STATE_BUSY", "error", message, hint) if locked else ProblemCleared("STATE_BUSY"))

    return tell


async def watch(
    root: Path,
    checkpoint_bytes: Callable[[], int],
    put: Callable[[Input], None],
    free: Callable[[Path], int] = disk.free_bytes,
) -> None:
    """Tell the node, through `put`, what is wrong with the disk of its state directory, or that too many files and
    connections are open, and when that is over.
    """
    # in threads: a network file system may answer late, or never
    if doubt := await asyncio.to_thread(disk.not_local, root):
        put(TroubleSeen(doubt.code, doubt.message, doubt.hint))
    low: set[str] = set()
    while True:
        looks = await asyncio.to_thread(disk.nearly_full, root, checkpoint_bytes(), free), descriptors.nearly_out()
        doubts = {doubt.code: doubt for doubt in looks if doubt is not None}
        for doubt in doubts.values():
            put(TroubleSeen(doubt.code, doubt.message, doubt.hint))
        for code in low - doubts.keys():
            put(TroubleOver(code))
        low = set(doubts)
        await asyncio.sleep(PERIOD)
