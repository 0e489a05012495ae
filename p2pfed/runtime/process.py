"""What a node's processes have in common: one thread each, no life after their parent, imports that cost little."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
"""Environment: many processes share the cores. To be set before numpy and TensorFlow are imported."""

_PR_SET_PDEATHSIG = 1


def training_environment(temporary: Path) -> dict[str, str]:
    """This process's environment for one that imports TensorFlow, which no import of it does without a folder that can
    be written to: `temporary`, which is made if it is not there; raises OSError.
    """
    temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.environ | ONE_THREAD | {"TMPDIR": str(temporary.absolute())}


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Let Linux send this process `number` when its parent, whose id is `parent`, dies; elsewhere nothing happens."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before the request was made
        os._exit(0)


class StartLine:
    """Where forks of this process wait for each other: each once, until all that hold it have come or have died."""

    def __init__(self) -> None:
        self._finish, self._start = os.pipe()

    def leave(self) -> None:
        """Of the process that forks, once it has forked them all: it does not hold them up."""
        os.close(self._start)
        os.close(self._finish)

    def wait(self, seconds: float) -> None:
        """Until everybody else waits, too, or so long."""
        os.close(self._start)
        select.select([self._finish], [], [], seconds)  # readable once nobody can write: a death closes, too
        os.close(self._finish)


@contextlib.contextmanager
def for_life(collect_every: int = 0) -> Iterator[None]:
    """What is made meanwhile is not looked through for garbage again and again: imported modules stay.

    It takes a seventh off the import of TensorFlow, and a collection in a fork would touch, and so copy, every page.
    With `collect_every`, what is new is looked through once after so many objects: slower, but garbage is used again.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(collect_every)
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*thresholds)


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal are heard after the block.

    In an import they would be swallowed, turned into another error or printed by whatever they cut in the middle.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def without_authorities() -> Iterator[None]:
    """TLS contexts made meanwhile know no public certificate authority.

    aiohttp makes two as it is imported: 2 MB and 50 ms for what a node, which trusts its consortium's own certificates
    only, has no use for.
    """
    ssl.SSLContext.set_default_verify_paths = lambda self: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # what it hides is the base class's
