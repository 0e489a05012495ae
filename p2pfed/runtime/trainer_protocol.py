"""What daemon and trainer child say to each other over a Unix stream socket.

A message is a JSON object behind its length (uint32, little endian); it announces in `blobs` the lengths of the raw
byte strings that follow it (weights, optimiser state). Both ends are ours, but lengths are bounded all the same.

    daemon -> child   load {...}, train {round} + vector + optimiser, evaluate {purpose} + vector
    child -> daemon   hello {pid}, ready {...} + held-out rows + frauds + labels (`Probe`) or refused {why},
                      trained {...} + vector + optimiser, evaluated {...}, alive every second,
                      failed {error, message} as the last word
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Any

MAX_JSON = 4 * 2**20
MAX_BLOB = 2**30
MAX_BLOBS = 4

CUT = "the stream ended inside a message"

Blob = bytes | bytearray | memoryview


@dataclass(frozen=True)
class TrainerMessage:
    """One message: its kind, its fields, and the byte strings behind it."""

    kind: str
    fields: dict[str, Any]
    blobs: tuple[Blob, ...] = ()


class BrokenMessage(Exception):
    """The bytes are not a message of this protocol."""


def encode(message: TrainerMessage) -> list[Blob]:
    """The byte strings of a message, to be written one after the other."""
    head = {**message.fields, "kind": message.kind, "blobs": [len(b) for b in message.blobs]}
    text = json.dumps(head).encode()
    return [len(text).to_bytes(4, "little") + text, *message.blobs]


def send(connection: socket.socket, message: TrainerMessage) -> None:
    """Write one message, blocking; raises OSError when the other end is gone."""
    for part in encode(message):
        connection.sendall(part)


def receive(connection: socket.socket) -> TrainerMessage | None:
    """Read one message, blocking; None at the end of the stream. Raises BrokenMessage, or OSError if it ends early."""
    prefix = _exactly(connection, 4, may_end=True)
    if not prefix:
        return None
    kind, fields, lengths = _head(bytes(_exactly(connection, _json_length(prefix))))
    return TrainerMessage(kind, fields, tuple(_exactly(connection, n) for n in lengths))


async def read(reader: asyncio.StreamReader) -> TrainerMessage | None:
    """Read one message; None at the end of the stream. Raises BrokenMessage, or OSError if it ends early."""
    try:
        prefix = await reader.readexactly(4)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise ConnectionResetError(CUT) from None
        return None
    try:
        kind, fields, lengths = _head(await reader.readexactly(_json_length(prefix)))
        return TrainerMessage(kind, fields, tuple([await reader.readexactly(n) for n in lengths]))
    except asyncio.IncompleteReadError:
        raise ConnectionResetError(CUT) from None


def _json_length(prefix: Blob) -> int:
    length = int.from_bytes(prefix, "little")
    if length > MAX_JSON:
        raise BrokenMessage(f"a message announces {length} bytes of JSON; the limit is {MAX_JSON}")
    return length


def _head(text: bytes) -> tuple[str, dict[str, Any], list[int]]:
    try:
        head = json.loads(text)
        kind, lengths = head.pop("kind"), list(head.pop("blobs"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenMessage(f"a message's head cannot be read: {error!r}") from None
    if len(lengths) > MAX_BLOBS or any(not isinstance(n, int) or not 0 <= n <= MAX_BLOB for n in lengths):
        raise BrokenMessage(f"a message announces blobs of {lengths} bytes")
    return str(kind), head, lengths


def _exactly(connection: socket.socket, length: int, may_end: bool = False) -> bytearray:
    data = bytearray(length)
    view, got = memoryview(data), 0
    while got < length:
        count = connection.recv_into(view[got:])
        if not count:
            if may_end and not got:
                return bytearray()
            raise ConnectionResetError(CUT)
        got += count
    return data
