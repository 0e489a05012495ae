"""The disk under a state directory: whether SQLite may trust it, and how much is left of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LEAST_FREE = 100 * 2**20
"""Bytes below which a disk is nearly full."""
SAVES_AHEAD = 5
"""A disk that cannot take so many checkpoints more is nearly full too: the write-ahead log holds several."""

MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = re.compile(r"nfs4?|cifs|smb3|smbfs|ncpfs|afs|ceph|lustre|gpfs|beegfs|9p|vboxsf|fuse(\..+)?")
_LOCAL_FUSE = frozenset(("fuse.fuse-overlayfs", "fuse.overlayfs", "fuse.ntfs", "fuse.exfat"))
_ESCAPE = re.compile(r"\\([0-7]{3})")


def network_filesystem(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The kind of file system `path` lies on if that is no local one, such as `nfs4`; None where `mounts` is missing.

    SQLite's write-ahead log needs memory shared by its users, and its lock and ours need flock: on NFS, SMB and most
    FUSE file systems neither holds (https://www.sqlite.org/wal.html).
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    resolved = path.resolve()
    kinds = dict(_mount(line) for line in lines)  # of two on one mount point the later is on top
    kind = next((kinds[folder] for folder in (resolved, *resolved.parents) if folder in kinds), "")
    return kind if _NETWORK.fullmatch(kind) and kind not in _LOCAL_FUSE else None


def _mount(line: str) -> tuple[Path, str]:
    """Mount point and kind of one line: `36 35 98:0 /mnt1 /mnt2 rw master:1 - ext3 /dev/root rw` (proc(5))."""
    before, _, after = line.partition(" - ")
    point = _ESCAPE.sub(lambda digits: chr(int(digits[1], 8)), before.split(" ")[4])
    return Path(point), after.split(" ")[0]


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user can still write on the disk of `path`."""
    return shutil.disk_usage(path).free


@dataclass(frozen=True)
class Doubt:
    """What is wrong with a disk that still works; `code` is stable."""

    code: str
    message: str
    hint: str


def not_local(root: Path, mounts: Path = MOUNTS) -> Doubt | None:
    """STATE_NOT_LOCAL if the state directory `root` lies on a network file system."""
    kind = network_filesystem(root, mounts)
    if kind is None:
        return None
    return Doubt(
        "STATE_NOT_LOCAL",
        f"{root} lies on a network file system ({kind}), where neither database nor lock are safe",
        "stop the daemon, move the directory to a local disk and set node.state_dir",
    )


def nearly_full(root: Path, checkpoint_bytes: int = 0, free: Callable[[Path], int] = free_bytes) -> Doubt | None:
    """DISK_LOW if the disk of `root` may soon be full, for a node whose checkpoints are so long."""
    least = max(LEAST_FREE, SAVES_AHEAD * checkpoint_bytes)
    if free(root) >= least:
        return None
    return Doubt(
        "DISK_LOW",
        f"less than {least // 2**20} MiB are free on the disk of {root}",
        "free some space: the node stops when it cannot save, and goes on from its last round once it can",
    )
