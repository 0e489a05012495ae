"""Running out of file descriptors: nothing is wrong with the disk, and what waits goes on once others are closed."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Awaitable, Callable
from typing import TypeVar

from p2pfed.errors import NoDescriptors
from p2pfed.store.disk import Doubt

T = TypeVar("T")

RETRY_SECONDS = 0.2
NEARLY = 0.9
"""Share of the limit from which on few are left."""


def out(error: OSError) -> bool:
    """Whether `error` says that this process, or the machine, can open nothing more."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def exhausted() -> bool:
    """Whether nothing more can be opened right now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return out(error)
    return False


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """What `work` answers, again and again as long as it raises NoDescriptors; what it does must be all or nothing."""
    while True:
        try:
            return await work()
        except NoDescriptors:
            await asyncio.sleep(RETRY_SECONDS)


def nearly_out() -> Doubt | None:
    """DESCRIPTORS_LOW if few more files and connections can be opened."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError as error:
        used = most if out(error) else 0
    if used < NEARLY * most:
        return None
    return Doubt(
        "DESCRIPTORS_LOW",
        f"{used} of the {most} files and connections that this process may open are open; new ones are refused",
        "see who connects (`ss -tnp`), and raise the limit: LimitNOFILE= of the unit, or `ulimit -n`",
    )
