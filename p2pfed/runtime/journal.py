"""The file of a journal: records one after another, each of them whole, cut off or damaged, and never mistaken.

    "p2pfed.journal/2", newline | record | record | ...
    record: prefix | head | blobs | CRC-32 of head and blobs
    prefix: length of the head, uint32 | length of the blobs together, uint64 | CRC-32 of these 12 bytes

All numbers are little-endian. The head is a JSON object; its `blobs` lists the lengths of the byte strings behind it.
The prefix has a checksum of its own: a length that was damaged must not look like a record that was cut off.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from p2pfed.errors import ConfigError, StateCorrupt, UsageError

FORMAT = b"p2pfed.journal/"
MAGIC = FORMAT + b"2\n"

_LENGTHS = struct.Struct("<IQ")
_CRC = struct.Struct("<I")
_PREFIX = _LENGTHS.size + _CRC.size

Blob = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Record:
    """One record as it was read."""

    head: dict[str, Any]
    blobs: tuple[bytes, ...]


def framed(head: dict[str, Any], blobs: Sequence[Blob]) -> list[Blob]:
    """The byte strings of a record, to be written one after another."""
    text = json.dumps({**head, "blobs": [len(b) for b in blobs]}).encode()
    lengths = _LENGTHS.pack(len(text), sum(map(len, blobs)))
    crc = zlib.crc32(text)
    for blob in blobs:
        crc = zlib.crc32(blob, crc)
    return [lengths, _CRC.pack(zlib.crc32(lengths)), text, *blobs, _CRC.pack(crc)]


class JournalReader:
    """Reads the records of a file in order; a context manager.

    Raises UsageError if the file cannot be read, ConfigError if it is no journal or one of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = False
        """After the last record: whether another one began and was not finished."""
        self._whole = 0
        try:
            self._file: BinaryIO = path.open("rb")
            self._size = path.stat().st_size
            magic = self._file.read(len(MAGIC))
        except OSError as error:
            raise UsageError(f"{path}: the journal cannot be read: {error.strerror}") from None
        if magic != MAGIC:
            self._file.close()
            other = "a journal of another format: replay it with the p2pfed that recorded it"
            raise ConfigError(f"{path} is {other if magic.startswith(FORMAT) else 'not a journal of a p2pfed node'}")

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def records(self) -> Iterator[Record]:
        """Every whole record; raises StateCorrupt at the first that is damaged."""
        while (left := self._size - self._file.tell()) > 0:
            if left < _PREFIX:
                self.cut = True
                return
            prefix = self._file.read(_PREFIX)
            lengths, (crc,) = prefix[: _LENGTHS.size], _CRC.unpack(prefix[_LENGTHS.size :])
            if zlib.crc32(lengths) != crc:
                raise self.damaged("a record's length is not what was written")
            text_length, blobs_length = _LENGTHS.unpack(lengths)
            length = text_length + blobs_length + _CRC.size
            if length > left - _PREFIX:
                self.cut = True
                return
            record = self._record(self._file.read(length), text_length)
            self._whole += 1
            yield record

    def damaged(self, what: str) -> StateCorrupt:
        """The error to raise about what was read last."""
        return StateCorrupt(f"{self.path} is damaged after record {self._whole}, near byte {self._file.tell()}: {what}")

    def _record(self, data: bytes, text_length: int) -> Record:
        body, crc = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])[0]
        if zlib.crc32(body) != crc:
            raise self.damaged("a record's bytes are not what was written")
        try:
            head = json.loads(body[:text_length])
            blobs, start = [], text_length
            for length in head.pop("blobs"):
                blobs.append(body[start : start + length])
                start += length
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise self.damaged(f"a record's head does not read: {error!r}") from None
        return Record(head, tuple(blobs))
