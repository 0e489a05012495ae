"""A training process and the stream to it, started by the daemon itself or forked by a shared spawner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from p2pfed.runtime.process import training_environment
from p2pfed.runtime.trainer_protocol import TrainerMessage, encode, read

TERMINATE_SECONDS = 20.0
"""From SIGTERM to SIGKILL."""

NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Environment by which systemd would take the child for the daemon."""


class Handle(Protocol):
    """What can be done to a process."""

    pid: int

    def send_signal(self, number: int) -> None:
        """Signal it; nothing happens if it has ended."""
        ...

    async def wait(self) -> None:
        """Return once it has ended."""
        ...


@dataclass
class TrainerProcess:
    """A running child that has said hello."""

    handle: Handle
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, message: TrainerMessage) -> None:
        """Send one message; raises OSError when the child is gone."""
        self.writer.writelines(encode(message))
        await self.writer.drain()

    async def hear(self) -> TrainerMessage | None:
        """The next message; None when the child has ended, however. Raises BrokenMessage."""
        try:
            return await read(self.reader)
        except ConnectionError:  # it was killed in the middle of a message, its own or ours
            return None

    async def end(self, kill: bool = False) -> None:
        """Close the stream and see the process dead: SIGTERM, then SIGKILL after 20 s, or `kill` at once."""
        self.writer.transport.abort()
        self.handle.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            async with asyncio.timeout(TERMINATE_SECONDS):
                await self.handle.wait()
        except TimeoutError:
            self.handle.send_signal(signal.SIGKILL)
            await self.handle.wait()


class OwnHandle:
    """A process that this daemon started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    def send_signal(self, number: int) -> None:
        """See `Handle`."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def wait(self) -> None:
        """See `Handle`."""
        await self._process.wait()


class ForkedHandle:
    """A process that the spawner forked: held by a pid descriptor, because its number may be reused."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # elsewhere than on Linux the child ends by itself, within a second of the stream's end
        self._descriptor = os.pidfd_open(pid) if sys.platform == "linux" else None

    def send_signal(self, number: int) -> None:
        """See `Handle`."""
        if sys.platform == "linux" and self._descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    async def wait(self) -> None:
        """See `Handle`."""
        if self._descriptor is None:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = None


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where /proc does not tell or the process is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


async def start_own(temporary: Path) -> TrainerProcess:
    """Start a child of this process, with its temporary files in a folder, and the stream to it; raises OSError."""
    environment = {k: v for k, v in training_environment(temporary).items() if k not in NOT_INHERITED}
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "p2pfed.runtime.trainer_child", "--fd", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
            )
        except BaseException:
            ours.close()
            raise
    reader, writer = await asyncio.open_connection(sock=ours)
    return TrainerProcess(OwnHandle(process), reader, writer)


async def from_spawner(path: Path, seconds: float) -> TrainerProcess:
    """Have the spawner at `path` fork a child and wait up to `seconds` for its hello; raises OSError (TimeoutError)."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        raise ConnectionError(f"no trainer spawner answers at {path}: {error.strerror}") from None
    try:
        async with asyncio.timeout(seconds):
            hello = await read(reader)
        if hello is None:
            raise ConnectionResetError(f"the trainer spawner at {path} closed the connection")
        handle = ForkedHandle(int(hello.fields["pid"]))
    except BaseException:
        writer.transport.abort()
        raise
    return TrainerProcess(handle, reader, writer)
