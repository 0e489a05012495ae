"""What every signed message goes through: it must read in one way only, and its member must have signed it."""

from __future__ import annotations

from typing import TypeVar

from p2pfed.core import record
from p2pfed.core.consortium import Manifest
from p2pfed.core.identity import verify
from p2pfed.core.types import NodeId, Reason, short
from p2pfed.errors import RemoteFault

T = TypeVar("T")

MAX_DETAIL = 120
"""Characters of a fault's detail: some of them are the peer's own."""


def parsed(kind: type[T], data: bytes) -> T:
    """The record that canonical JSON says; raises RemoteFault(MALFORMED)."""
    try:
        return record.parse_canonical(kind, data)
    except record.RecordError as error:
        raise RemoteFault(Reason.MALFORMED, str(error)[:MAX_DETAIL]) from None


def check_signature(manifest: Manifest, member: NodeId, message: bytes, signature: bytes) -> None:
    """Raise RemoteFault unless `member` is in the manifest and signed `message`."""
    key = manifest.keys.get(member)
    if key is None:
        raise RemoteFault(Reason.NOT_A_MEMBER, ascii(short(member)))
    if not verify(key, message, signature):
        raise RemoteFault(Reason.FORGED_SIGNATURE, short(member))
