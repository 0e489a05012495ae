"""What the fields of a message may say, whoever signs it: each check gives the problem, or "" if all is well."""

from __future__ import annotations

import re

from p2pfed.core.messages import Heartbeat, Hello, Statement
from p2pfed.core.types import Address

MAX_NUMBER = 2**63 - 1
"""Largest counter anywhere: what SQLite can store."""
MAX_INSTANCE = 64
MAX_ENDPOINTS = 8
MAX_SOFTWARE = 64

_HEX = re.compile(r"[0-9a-f]*")


def statement_problem(statement: Statement) -> str:
    """What no update's statement may say."""
    s = statement
    return (
        _hex_problem("consortium", s.consortium, 32)
        or _hex_problem("model", s.model, 64)
        or _hex_problem("payload_sha256", s.payload_sha256, 64)
        or _hex_problem("previous", s.previous, 64 if s.previous else 0)
        or _hex_problem("instance", s.instance, min(max(len(s.instance), 1), MAX_INSTANCE))
        or _range_problem("manifest_version", s.manifest_version, 1)
        or _range_problem("seq", s.seq, 1)
        or _range_problem("cycle", s.cycle, 0)
        or _range_problem("round", s.round, 0)
        or _range_problem("rows", s.rows, 0)
        or _range_problem("payload_length", s.payload_length, 0)
        or ("rows is not a power of two" if s.rows & (s.rows - 1) else "")
    )


def heartbeat_problem(heartbeat: Heartbeat) -> str:
    """What no heartbeat may say."""
    h = heartbeat
    return (
        endpoints_problem(h.endpoints)
        or _hex_problem("consortium", h.consortium, 32)
        or _range_problem("epoch", h.epoch, 0)
        or _range_problem("counter", h.counter, 0)
        or _range_problem("manifest_version", h.manifest_version, 1)
        or _range_problem("seq", h.seq, 0)
        or _range_problem("cycle", h.cycle, 0)
        or _range_problem("round", h.round, 0)
        or _protocol_problem(h.protocol_min, h.protocol_max)
        or _software_problem(h.software)
    )


def hello_problem(hello: Hello) -> str:
    """What no Hello may say."""
    h = hello
    return (
        _hex_problem("consortium", h.consortium, 32)
        or _hex_problem("model", h.model, 64)
        or _protocol_problem(h.protocol_min, h.protocol_max)
        or _range_problem("manifest_version", h.manifest_version, 1)
        or _range_problem("your_newest_seq", h.your_newest_seq, 0)
        or _software_problem(h.software)
    )


def endpoints_problem(endpoints: tuple[str, ...]) -> str:
    """What no list of endpoints may be: too long, or with an entry that is no address."""
    if len(endpoints) > MAX_ENDPOINTS:
        return f"more than {MAX_ENDPOINTS} endpoints"
    try:
        for endpoint in endpoints:
            Address.parse(endpoint)
    except ValueError as error:
        return str(error)
    return ""


def is_hex(text: str, length: int) -> bool:
    """Whether `text` is exactly `length` lower-case hex digits."""
    return len(text) == length and _HEX.fullmatch(text) is not None


def _hex_problem(name: str, text: str, length: int) -> str:
    return "" if is_hex(text, length) else f"{name} is not {length} lower-case hex digits"


def _range_problem(name: str, number: int, least: int) -> str:
    return "" if least <= number <= MAX_NUMBER else f"{name} is out of range"


def _protocol_problem(least: int, most: int) -> str:
    return _range_problem("protocol_min", least, 1) or _range_problem("protocol_max", most, least)


def _software_problem(text: str) -> str:
    if len(text) <= MAX_SOFTWARE and text.isascii() and text.isprintable():
        return ""
    return f"software is not {MAX_SOFTWARE} printable ASCII characters at most"
