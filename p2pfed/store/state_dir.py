"""What lies where in a bank's state directory, and how files there are written so that no crash leaves half of one."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pfed import newfile
from p2pfed.errors import ConfigError, DiskFault, NoDescriptors, NotPermitted, StateLocked
from p2pfed.store import descriptors

SOCKET_PATH_BYTES = 107
"""What a Unix socket address has room for."""

_MANIFEST_FILE = re.compile(r"([1-9][0-9]{0,8})\.json")


@dataclass(frozen=True)
class StateDir:
    """The paths inside one state directory."""

    root: Path

    def create(self) -> StateDir:
        """Make the directory (0700) if it is not there; raises StateLocked if that cannot be done, and as `check_depth`
        and `check_private` do.
        """
        self.check_depth()
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StateLocked(
                f"cannot make the state directory {self.root}: {error.strerror}; "
                "set node.state_dir to a directory this user may write to"
            ) from None
        self.check_private()
        return self

    def check_depth(self) -> None:
        """Raise ConfigError if the paths in here are too long for a socket."""
        if len(os.fsencode(self.admin_socket)) > SOCKET_PATH_BYTES:
            raise ConfigError(
                f"node.state_dir is too deep: {self.admin_socket} is longer than the {SOCKET_PATH_BYTES} bytes of a "
                "socket; name a shorter one"
            )

    def check_private(self) -> None:
        """Raise NotPermitted if others may write to the directory: they could put keys of theirs there."""
        mode = stat.S_IMODE(self.root.stat().st_mode)
        if mode & 0o022:
            raise NotPermitted(f"{self.root} has mode {mode:o}: others may write to it. Run: chmod 700 {self.root}")

    def sweep(self) -> None:
        """Remove what a crash has left half written; the caller holds the lock."""
        for folder in (self.root, self.root / "manifests", self.models):
            for path in folder.glob(newfile.TEMPORARY):
                with disk_faults(path):
                    path.unlink(missing_ok=True)

    @property
    def lock(self) -> Path:
        """Held by the running daemon."""
        return self.root / "lock"

    @property
    def database(self) -> Path:
        """Checkpoint, sequence number, replay marks, reputation, events."""
        return self.root / "node.sqlite"

    @property
    def member_key(self) -> Path:
        """Seed of the Ed25519 identity key, hex."""
        return self.root / "member.key"

    @property
    def tls(self) -> Path:
        """TLS key and certificate, PEM."""
        return self.root / "tls.pem"

    @property
    def admin_token(self) -> Path:
        """Bearer token for writes over the admin TCP listener."""
        return self.root / "admin.token"

    @property
    def admin_socket(self) -> Path:
        """Unix socket of the running daemon's admin API."""
        return self.root / "admin.sock"

    @property
    def temporary(self) -> Path:
        """Folder for what trainers write for a moment: of a read-only machine nothing else can be written to."""
        return self.root / "tmp"

    @property
    def model(self) -> Path:
        """The model bundle the bank scores with."""
        return self.root / "model.p2pfed"

    @property
    def models(self) -> Path:
        """Folder of the versions of that bundle, and of an index of them."""
        return self.root / "models"

    @property
    def alone(self) -> Path:
        """The model that trains alone, to be compared with; NumPy archive."""
        return self.root / "alone.npz"

    @property
    def reading(self) -> Path:
        """What was last read of the payments, counts only: the next reading is compared with it; JSON."""
        return self.root / "reading.json"

    @property
    def curve(self) -> Path:
        """How what served has fared, by day, counts only; JSON."""
        return self.root / "curve.json"

    @property
    def blocklist(self) -> Path:
        """Ids of the members that the operator has blocked, besides those of the configuration; JSON."""
        return self.root / "blocklist.json"

    def manifest(self, version: int) -> Path:
        """The signed manifest of one version."""
        return self.root / "manifests" / f"{version}.json"

    def manifests(self) -> dict[int, bytes]:
        """The stored signed manifests by version, the lowest first; not verified. Raises NotPermitted if one is
        unreadable.
        """
        folder = self.root / "manifests"
        try:
            names = [m for m in map(_MANIFEST_FILE.fullmatch, os.listdir(folder))] if folder.is_dir() else []
            versions = sorted(int(m[1]) for m in names if m)
            return {version: self.manifest(version).read_bytes() for version in versions}
        except OSError as error:
            problem = f"cannot read {error.filename}: {error.strerror}; it must belong to the daemon's user"
            raise NotPermitted(problem) from None

    def save_manifest(self, version: int, signed: bytes) -> None:
        """Keep a verified signed manifest; raises DiskFault."""
        path = self.manifest(version)
        with disk_faults(path):
            path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, signed)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`, durably: readers and crashes see the old file or the new one. Raises DiskFault or
    NoDescriptors.
    """
    with disk_faults(path):
        with newfile.replacing(path, mode) as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)


def sync_directory(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a DiskFault that names `path`, or into NoDescriptors."""
    try:
        yield
    except OSError as error:
        if descriptors.out(error):
            raise NoDescriptors(f"cannot open {path}: {error.strerror}; raise the limit (`ulimit -n`)") from error
        raise DiskFault(f"cannot write {path}: {error.strerror}; free some space or make it writable") from error
