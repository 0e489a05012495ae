"""Looking after what a running node uses up: a problem while the disk, or descriptors, may soon be no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from p2pfed.core.inputs import Input, TroubleOver, TroubleSeen
from p2pfed.store import descriptors, disk

PERIOD = 30.0
"""Seconds between two looks."""


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
