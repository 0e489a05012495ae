"""Whom this node has nothing to do with: by its configuration, and by its operator's word while it runs."""

from __future__ import annotations

import json

from p2pfed.core.types import NodeId
from p2pfed.errors import DiskFault, StateCorrupt
from p2pfed.store.state_dir import StateDir, write_atomically


class Blocklist:
    """Two lists in one: `peers.blocklist` of the configuration, and `peer block`, kept in the state directory."""

    def __init__(self, state: StateDir, configured: frozenset[NodeId]) -> None:
        """Raises StateCorrupt if the operator's list cannot be read."""
        self._path = state.blocklist
        self.configured = configured
        self._told = self._read()

    @property
    def members(self) -> frozenset[NodeId]:
        """Who is blocked by either."""
        return self.configured | self._told

    def block(self, member: NodeId, blocked: bool) -> None:
        """Put `member` on the operator's list or take it off, durably; raises DiskFault."""
        told = self._told | {member} if blocked else self._told - {member}
        write_atomically(self._path, json.dumps(sorted(told)).encode() + b"\n")
        self._told = told

    def _read(self) -> frozenset[NodeId]:
        try:
            told = json.loads(self._path.read_bytes())
            if not isinstance(told, list) or not all(isinstance(member, str) for member in told):
                raise ValueError("it is no list of ids")
        except FileNotFoundError:
            return frozenset()
        except ValueError as error:
            raise StateCorrupt(
                f"{self._path} cannot be read ({error}): remove it, and block with `p2pfed peer block` again"
            ) from None
        except OSError as error:
            raise DiskFault(f"{self._path} cannot be read: {error.strerror}; make it readable") from None
        return frozenset(map(NodeId, told))
