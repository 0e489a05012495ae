"""A node's words as a journal keeps them: JSON for what is small, byte strings for models, frames, tables, manifests.

Both ways follow the dataclasses of `core` by themselves, so a new input or effect needs nothing here unless it has a
field of a kind that no other has.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from p2pfed.core import wire
from p2pfed.core.consortium import Manifest, SignedManifest, parse_signed
from p2pfed.core.messages import HeartbeatTable, ModelUpdate
from p2pfed.core.succession import governed
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector
from p2pfed.errors import RemoteFault
from p2pfed.runtime.journal import Blob

DIGEST = 16
"""Hex digits of an effect's digest."""


# --- writing ----------------------------------------------------------------------------------------------------------


def plain(value: Any, blobs: list[Blob]) -> Any:
    """`value` as JSON values; what is bytes goes to the end of `blobs`, uncopied, and its place there stands for it.

    Raises TypeError for a type that has no such form.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if type(value) in _AS_BYTES:
        blobs.append(_AS_BYTES[type(value)](value))
        return len(blobs) - 1
    if isinstance(value, Enum):
        return value.name
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name), blobs) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v, blobs) for k, v in value.items()}
    if isinstance(value, frozenset):
        return sorted(plain(v, blobs) for v in value)
    if isinstance(value, (tuple, list)):
        return [plain(v, blobs) for v in value]
    raise TypeError(f"a journal has no form for a value of type {type(value).__name__}")


def digest(value: Any, blobs: Sequence[Blob]) -> str:
    """A short hash of what `plain` made of a value, and of its byte strings."""
    state = hashlib.sha256(json.dumps(value, sort_keys=True).encode())
    for blob in blobs:
        state.update(b"%d:" % len(blob))
        state.update(blob)
    return state.hexdigest()[:DIGEST]


def _raw(vector: Vector) -> Blob:
    return np.ascontiguousarray(vector, "<f4").view(np.uint8).data


def _unsigned(manifest: Manifest) -> Blob:
    """The node is given what the interpreter has verified: without signatures."""
    return SignedManifest.unsigned(manifest).to_bytes()


def _same(data: Blob) -> Blob:
    return data


_AS_BYTES: dict[type, Callable[[Any], Blob]] = {
    bytes: _same,
    bytearray: _same,
    np.ndarray: _raw,
    ModelUpdate: lambda update: update.frame,
    HeartbeatTable: wire.encode_table,
    Manifest: _unsigned,
    SignedManifest: SignedManifest.to_bytes,
}


# --- reading ----------------------------------------------------------------------------------------------------------


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


class ValueReader:
    """Builds the values of one journal again, in order: each manifest read is trusted from then on.

    Updates and heartbeats are verified like a peer's. One that was received shortly before the manifest changed may
    come after it, and what is trained changes later than the members: so the trust before the present one counts too,
    and what each of the last two ways of training was.
    """

    def __init__(self) -> None:
        self._trusts: list[wire.Trust] = []
        self._trained: dict[int, Manifest] = {}
        """The newest version of each cycle from which one holds."""
        self._heartbeats: dict[NodeId, bytes] = {}
        self._from_bytes: dict[Any, Callable[[bytes], Any]] = {
            bytes: bytes,
            Vector: lambda data: np.frombuffer(data, "<f4"),
            ModelUpdate: self._update,
            HeartbeatTable: self._table,
            Manifest: lambda data: self._manifest(data).manifest,
            SignedManifest: self._manifest,
        }

    def build(self, kind: Any, value: Any, blobs: Sequence[bytes]) -> Any:
        """The `kind` (a type or annotation) that `plain` made `value` and `blobs` of; raises ValueError."""
        try:
            return self._build(kind, value, blobs)
        except (LookupError, AttributeError, TypeError, RemoteFault) as error:
            raise ValueError(f"{getattr(kind, '__name__', kind)}: {error or type(error).__name__}") from None

    def _build(self, kind: Any, value: Any, blobs: Sequence[bytes]) -> Any:
        kind = getattr(kind, "__supertype__", kind)
        if kind is Any:
            return value
        if kind in self._from_bytes:
            return self._from_bytes[kind](blobs[value])
        if get_origin(kind) is not None:
            return self._build_generic(kind, value, blobs)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            hints = _hints(kind)
            return kind(**{name: self._build(hints[name], v, blobs) for name, v in value.items()})
        if issubclass(kind, Enum):
            return kind[value]
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
        return value

    def _build_generic(self, kind: Any, value: Any, blobs: Sequence[bytes]) -> Any:
        origin, args = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType):
            (given,) = (a for a in args if a is not type(None))
            return None if value is None else self._build(given, value, blobs)
        if origin is Literal:
            if value not in args:
                raise ValueError(f"{value!r} is none of {args}")
            return value
        if origin is dict:
            return {k: self._build(args[1], v, blobs) for k, v in value.items()}
        if origin is tuple and args[-1] is not Ellipsis:
            return tuple(self._build(a, v, blobs) for a, v in zip(args, value, strict=True))
        if origin in (tuple, frozenset):
            return origin(self._build(args[0], v, blobs) for v in value)
        raise TypeError(f"a journal has no form for {kind}")

    def _manifest(self, data: bytes) -> SignedManifest:
        signed = parse_signed(data)
        new, before = signed.manifest, self._trusts[0].manifest if self._trusts else None
        self._trained[new.from_cycle] = new
        ways = list(self._trained.values())[:-3:-1]
        forces = [governed(new, way) for way in ways]
        trusts = [wire.trust_of(force, before and governed(before, force)) for force in forces]
        self._trusts = [*trusts, *self._trusts][:4]
        return signed

    def _update(self, frame: bytes) -> ModelUpdate:
        fault = None
        for trust in self._trusts:
            try:
                return wire.open_update(frame, trust)
            except RemoteFault as error:
                fault = fault or error
        raise fault or ValueError("an update before any manifest")

    def _table(self, data: bytes) -> HeartbeatTable:
        for trust in self._trusts:
            table = wire.decode_table(data, trust, self._heartbeats)
            if wire.encode_table(table) == data:  # it leaves out the rows of who is no member
                self._heartbeats |= {row.heartbeat.member: row.signed for row in table.rows}
                return table
        raise ValueError("a heartbeat of somebody who was never a member")
