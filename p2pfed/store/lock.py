"""One daemon per state directory: two that share a key would sign different updates with one sequence number."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

from p2pfed.errors import DiskFault, StateLocked
from p2pfed.store.state_dir import StateDir, disk_faults


class StateLock:
    """An exclusive `flock`, freed by the kernel when the process dies however it dies.

    The file stays behind on purpose: unlinking it would let two processes hold locks on two files of one name.
    """

    def __init__(self, state: StateDir, software: str, now: float) -> None:
        """Take the lock and write pid, software version and start time.

        Raises StateLocked naming the holder, or DiskFault if the disk is full.
        """
        try:
            descriptor = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateLocked(
                f"cannot open {state.lock}: {error.strerror}; the daemon needs a state directory it may write to"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StateLocked(
                    f"cannot lock {state.lock}: {error.strerror}; keep the state directory on a local disk"
                ) from None
            raise StateLocked(
                f"{state.root} is in use by {_holder(state.lock)}; stop that daemon or choose another node.state_dir"
            ) from None
        self._descriptor: int | None = descriptor
        holder = json.dumps({"pid": os.getpid(), "software": software, "started": round(now)})
        try:
            with disk_faults(state.lock):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder.encode(), 0)
        except DiskFault:
            self.release()
            raise

    def release(self) -> None:
        """Let another daemon start here."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> StateLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(state: StateDir) -> str | None:
    """Who holds the lock of `state`, without taking it; None if nobody does."""
    try:
        descriptor = os.open(state.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # never taken, or not ours to look at
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _holder(state.lock)
    finally:
        os.close(descriptor)
    return None


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
        return f"p2pfed {holder['software']}, process {holder['pid']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another daemon"  # it holds the lock but has not written its name yet
