"""Reads an update frame from a stream of announced length: the head is checked before the payload is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from p2pfed.core import wire
from p2pfed.core.messages import Statement
from p2pfed.core.types import Reason
from p2pfed.errors import RemoteFault


class Stream(Protocol):
    """The part of aiohttp's StreamReader that both ends use."""

    async def readexactly(self, n: int) -> bytes:
        """The next `n` bytes; raises IncompleteReadError if the stream ends before."""

    async def readchunk(self) -> tuple[bytes, bool]:
        """The next piece that has come, as it came; nothing at the end."""


def check_announced(headers: Mapping[str, str], limit: int) -> int:
    """The Content-Length of a plain body; raises RemoteFault on chunks, an encoding, no length or one above `limit`."""
    if "Transfer-Encoding" in headers or headers.get("Content-Encoding", "identity") != "identity":
        raise RemoteFault(Reason.MALFORMED, "a body must be neither chunked nor encoded")
    text = headers.get("Content-Length", "")
    if not (text.isascii() and text.isdigit()):
        raise RemoteFault(Reason.MALFORMED, "a body must announce its length")
    if len(text) > 15 or int(text) > limit:
        raise RemoteFault(Reason.OVERSIZE, f"{text[:15]} bytes where at most {limit} are allowed")
    return int(text)


async def read_body(stream: Stream, length: int) -> bytes:
    """A body of exactly `length` bytes. Raises IncompleteReadError if it ends before."""
    return await stream.readexactly(length) if length else b""  # aiohttp's empty stream knows no reading of nothing


async def read_frame(stream: Stream, length: int, trust: wire.Trust) -> tuple[bytes, Statement]:
    """A frame of `length` bytes and its verified statement; raises RemoteFault before it reads a payload nobody wants.

    The payload itself is not looked at: that is `wire.open_update`'s.
    """
    start = b""
    while len(start) < wire.PREFIX.size or len(start) < wire.head_length(start):
        if len(start) == length:
            raise RemoteFault(Reason.WRONG_LENGTH, f"{length} bytes are less than the head of a frame")
        start += await _next_piece(stream, length - len(start))
    statement = wire.open_statement(start, trust)
    signed = wire.head_length(start) + statement.payload_length
    if length != signed:
        raise RemoteFault(Reason.WRONG_LENGTH, f"{length} bytes are announced, {signed} are signed")
    pieces, missing = [start], length - len(start)
    while missing:
        pieces.append(await _next_piece(stream, missing))
        missing -= len(pieces[-1])
    return b"".join(pieces), statement


async def _next_piece(stream: Stream, missing: int) -> bytes:
    """What has come, as it came; never beyond the body, whose length was announced."""
    piece, _ = await stream.readchunk()
    if not piece:
        raise asyncio.IncompleteReadError(b"", missing)
    return piece
