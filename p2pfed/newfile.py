"""How files are written: whole or not at all, and never through what somebody else has put in their place."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".p2pfed-*.new"
"""Names of files that are being written; the star is not to be foreseen."""


def create(path: Path, mode: int) -> BinaryIO:
    """A new file, of `mode` but for what the umask takes; raises FileExistsError if there is anything, even a link."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode), "wb")


def write_once(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not be there yet, durably; raises as `create`."""
    with create(path, mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that takes the place of `path`, a link too, once the block has ended well; else nothing is left of it."""
    temporary = path.with_name(TEMPORARY.replace("*", secrets.token_hex(8)))
    file = create(temporary, mode)
    try:
        with file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
