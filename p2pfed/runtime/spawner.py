"""A process without keys that imports TensorFlow once and forks a trainer for each daemon that connects.

`python -m p2pfed.runtime.spawner SOCKET` listens on the Unix socket SOCKET (mode 0600) and ends, with its children,
on SIGTERM or when the process that started it dies. TensorFlow is imported but never run before a fork: its thread
pools start with the first operation, so a child starts its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from p2pfed.runtime.process import ONE_THREAD, die_with_parent, for_life
from p2pfed.runtime.trainer_child import learner_class, serve, step_back

if TYPE_CHECKING:
    from p2pfed.core.rows import Rows

POLL_SECONDS = 1.0
BACKLOG = 1024


class Terminated(BaseException):
    """SIGTERM or SIGINT arrived."""


def listen(path: Path) -> socket.socket:
    """Bind the Unix socket `path` for this user only, replacing one that a dead spawner left; raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    umask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(umask)
    listener.listen(BACKLOG)
    listener.settimeout(POLL_SECONDS)
    return listener


def serve_forks(listener: socket.socket, change: Callable[[Rows], Rows] | None = None) -> None:
    """Fork a child for every connection until the parent of this process dies; `change` as of `trainer_child.serve`."""
    parent, children = os.getppid(), set[int]()
    try:
        while os.getppid() == parent:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                connection = None
            if connection is not None:
                children.add(_fork(connection, listener, change))
                connection.close()
            children -= _ended(children)
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def _fork(connection: socket.socket, listener: socket.socket, change: Callable[[Rows], Rows] | None) -> int:
    spawner = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(spawner)
        step_back()
        listener.close()
        connection.setblocking(True)
        serve(connection, change)
        code = 0
    finally:  # a fork must never return into the spawner's loop
        os._exit(code)


def _ended(children: set[int]) -> set[int]:
    return {child for child in children if os.waitpid(child, os.WNOHANG)[0]}


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def main(arguments: list[str], change: Callable[[Rows], Rows] | None = None) -> None:
    """Serve on the socket path that is the only argument; `change` as of `trainer_child.serve`."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m p2pfed.runtime.spawner SOCKET")
    os.environ.update(ONE_THREAD)
    faulthandler.enable()
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    path = Path(arguments[0])
    try:
        with listen(path) as listener:  # first of all: a daemon that connects meanwhile waits in the backlog
            preload()
            serve_forks(listener, change)
    except Terminated:
        pass
    finally:
        path.unlink(missing_ok=True)


def preload() -> None:
    """Import what every trainer needs, so that the forks share its memory."""
    with for_life():
        import p2pfed.data.features
        import p2pfed.data.imbalance  # noqa: F401
        from p2pfed.data import sources

        sources.preload()
    learner_class("keras")


if __name__ == "__main__":
    main(sys.argv[1:])
