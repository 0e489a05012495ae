"""A process without keys that imports TensorFlow once and forks a trainer for each daemon that connects.

`python -m p2pfed.runtime.spawner TOGETHER SOCKET` listens on the Unix socket SOCKET (mode 0600) and ends, with its
children, on SIGTERM or when the process that started it dies. Its first TOGETHER children begin to train together.
TensorFlow is imported but never run before a fork: its thread pools start with the first operation, so a child starts
its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeAlias

from p2pfed.runtime.process import StartLine, die_with_parent, for_life, training_environment
from p2pfed.runtime.trainer_child import learner_class, serve, step_back

if TYPE_CHECKING:
    from p2pfed.core.rows import Rows

POLL_SECONDS = 1.0
BACKLOG = 1024

Change: TypeAlias = "Callable[[Rows], Rows] | None"
"""What is done to a trainer's training rows, as of `trainer_child.serve`."""


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
    listener.setblocking(False)
    return listener


def serve_forks(listeners: Mapping[socket.socket, Change], together: int) -> None:
    """Fork a child for every connection until the parent of this process dies; the first ones start `together`."""
    parent, children = os.getppid(), set[int]()
    start = StartLine() if together else None
    try:
        while os.getppid() == parent:
            for listener in select.select(listeners, [], [], POLL_SECONDS)[0]:
                with contextlib.suppress(BlockingIOError), listener.accept()[0] as connection:
                    children.add(_fork(connection, listeners, listeners[listener], start))
                    together -= 1
                    if start is not None and together == 0:
                        start.leave()
                        start = None
            children -= _ended(children)
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def _fork(
    connection: socket.socket, listeners: Iterable[socket.socket], change: Change, start: StartLine | None
) -> int:
    spawner = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(spawner)
        step_back()
        for listener in listeners:
            listener.close()
        connection.setblocking(True)
        serve(connection, change, start)
        code = 0
    finally:  # a fork must never return into the spawner's loop
        os._exit(code)


def _ended(children: set[int]) -> set[int]:
    return {child for child in children if os.waitpid(child, os.WNOHANG)[0]}


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def main(arguments: list[str]) -> None:
    """Serve as the two arguments say."""
    if len(arguments) != 2 or not arguments[0].isdigit():
        raise SystemExit("usage: python -m p2pfed.runtime.spawner TOGETHER SOCKET")
    serve_at({Path(arguments[1]): None}, int(arguments[0]))


def serve_at(changes: Mapping[Path, Change], together: int) -> None:
    """Be a spawner on these sockets, until SIGTERM or the parent's death."""
    os.environ.update(training_environment(next(iter(changes)).parent))
    faulthandler.enable()
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with contextlib.ExitStack() as stack:  # first of all: a daemon that connects meanwhile waits in the backlog
            listeners = {stack.enter_context(listen(path)): change for path, change in changes.items()}
            preload()
            serve_forks(listeners, together)
    except Terminated:
        pass
    finally:
        for path in changes:
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
