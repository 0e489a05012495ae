"""Child processes that never outlive the run: started with a log each, stopped and reaped however the run ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType

from p2pfed.errors import Interrupted
from p2pfed.runtime.process import ONE_THREAD, die_with_parent

STOP_SECONDS = 30.0
"""How long a daemon may take to say good-bye and stop its trainer before it is killed."""


class Processes:
    """Named child processes, each in a session of its own so that Ctrl-C reaches only this process."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, arguments: Sequence[str], log: Path) -> int:
        """Start `python ARGUMENTS`, appending what it says to `log`; returns its process id."""
        with open(log, "ab", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as sink:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # even when we die by SIGKILL
                env={**os.environ, **ONE_THREAD, "PYTHONUNBUFFERED": "1"},
            )
        self._running[name] = process
        return process.pid

    def pid(self, name: str) -> int:
        """The process id of `name`, which may have ended."""
        return self._running[name].pid

    def started(self, name: str) -> bool:
        """Whether `name` was started and neither stopped nor killed since."""
        return name in self._running

    def ended(self) -> dict[str, int]:
        """Exit codes of the processes that have ended by themselves."""
        codes = {name: process.poll() for name, process in self._running.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process that still runs."""
        self._running[name].send_signal(number)

    def kill(self, name: str) -> None:
        """SIGKILL a process and reap it; `start` may use its name again."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def stop(self, *names: str, seconds: float = STOP_SECONDS) -> dict[str, int]:
        """Ask the named processes (default all) to end, kill those that do not; returns their exit codes."""
        stopping = {name: self._running[name] for name in names or tuple(self._running)}
        for process in stopping.values():
            process.send_signal(signal.SIGCONT)  # a stopped process could not hear the SIGTERM
            process.terminate()
        deadline = time.monotonic() + seconds
        try:
            for process in stopping.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:  # also when a second Ctrl-C cuts the good-byes short
            for name, process in stopping.items():
                process.kill()
                process.wait()
                del self._running[name]
        return {name: process.returncode for name, process in stopping.items()}

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, Ctrl-C, SIGTERM and a closed terminal raise Interrupted in the main thread: `finally` blocks clean up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped by the operator")

    with handled(interrupt):
        yield


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within, `handler` hears of Ctrl-C, SIGTERM and a closed terminal.

    Not of what was ignored: of a closed terminal `nohup` wants nothing heard, of a script's Ctrl-C its background jobs.
    """
    asked = (signal.SIGINT, signal.SIGHUP)
    numbers = [signal.SIGTERM, *(number for number in asked if signal.getsignal(number) is not signal.SIG_IGN)]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
