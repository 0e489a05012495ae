"""Secrets as files that only their owner can read: the member key and the admin token."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from p2pfed.core.identity import Identity
from p2pfed.errors import NotPermitted
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir, write_atomically


def create_member_key(state: StateDir) -> Identity:
    """Make the identity key and, before it, the database that counts what it signs; the caller holds the lock.

    Raises NotPermitted if there is a key already: replacing it would make this bank another member.
    """
    if state.member_key.exists():
        raise NotPermitted(
            f"{state.member_key} exists and is not replaced: the manifest knows this bank by it. "
            "Use another state directory for a new identity"
        )
    SqliteStore(state).close()
    identity = Identity.generate()
    write_atomically(state.member_key, identity.seed.hex().encode() + b"\n")
    return identity


def load_member_key(state: StateDir) -> Identity:
    """The identity key; raises NotPermitted if it is missing, readable by others or not a key."""
    path = state.member_key
    try:
        seed = bytes.fromhex(read_secret(path))
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise NotPermitted(f"{path} does not hold a member key (64 hex digits); restore it from a backup")
    return Identity.from_seed(seed)


def admin_token(state: StateDir) -> str:
    """The bearer token for writes over TCP, made at the first call; raises as `read_secret` does."""
    if not state.admin_token.exists():
        write_atomically(state.admin_token, secrets.token_urlsafe(32).encode() + b"\n")
    return read_secret(state.admin_token)


def read_secret(path: Path) -> str:
    """The stripped text of a file that nobody else may read; raises NotPermitted with the command that repairs it."""
    try:
        file = path.open(encoding="ascii", errors="replace")
    except FileNotFoundError:
        raise NotPermitted(f"{path} does not exist; `p2pfed init` makes it") from None
    except OSError as error:
        raise NotPermitted(f"cannot read {path}: {error.strerror}; it must belong to the daemon's user") from None
    with file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise NotPermitted(f"{path} is open to other users of this machine: chmod 600 {path}")
        return file.read(4096).strip()
