"""Frozen dataclasses <-> canonical JSON, strictly: what a signature covers must read in one way only."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

MAX_DEPTH = 12


class RecordError(ValueError):
    """A value does not have the shape of its record; the message names the field."""


def canonical(value: Any) -> bytes:
    """UTF-8 JSON of a dataclass or plain value: sorted keys, no spaces, no NaN. Equal values give equal bytes."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def readable(value: Any) -> bytes:
    """The same JSON indented, for a file that people look at."""
    return json.dumps(plain(value), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def plain(value: Any) -> Any:
    """`value` as dicts, lists, strings, numbers, booleans and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return value


def parse(record: type[T], data: bytes) -> T:
    """Decode JSON bytes into `record`; raises RecordError on anything but exactly its fields, each given once."""
    return build(record, load(data))


def parse_canonical(record: type[T], data: bytes) -> T:
    """As `parse`, and `data` must be the `canonical` bytes of what it says; raises RecordError."""
    value = parse(record, data)
    if canonical(value) != data:
        raise RecordError(f"{record.__name__}: not in canonical form")
    return value


def load(data: bytes) -> Any:
    """Plain value of JSON in UTF-8, in which no key is given twice and no number is NaN; raises RecordError."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from None


def build(record: type[T], value: Any) -> T:
    """Check plain `value` against the annotations of `record` and construct it; raises RecordError."""
    result: T = _check(record, value, record.__name__, 0)
    return result


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key[:40]!r} is given twice")
        result[key] = value
    return result


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not allowed")


def _check(kind: Any, value: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise RecordError(f"{where}: nested too deeply")
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _check_fields(kind, value, where, depth)
    if origin in (Union, types.UnionType):
        return _check_union(args, value, where, depth)
    if origin is Literal:
        if value not in args:
            raise RecordError(f"{where}: expected one of {', '.join(map(str, args))}, got {str(value)[:40]!r}")
        return value
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        if not isinstance(value, list):
            raise RecordError(f"{where}: expected a list")
        return tuple(_check(args[0], v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value))
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(args):
            raise RecordError(f"{where}: expected a list of {len(args)}")
        return tuple(_check(a, v, f"{where}[{i}]", depth + 1) for i, (a, v) in enumerate(zip(args, value, strict=True)))
    return _check_scalar(getattr(kind, "__supertype__", kind), value, where)


def _check_fields(kind: Any, value: Any, where: str, depth: int) -> Any:
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected an object")
    hints = _hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(value.keys() - names):
        raise RecordError(f"{where}: unknown field {unknown[0][:40]!r}")
    if missing := sorted(names - value.keys()):
        raise RecordError(f"{where}: field {missing[0]!r} is missing")
    try:
        return kind(**{n: _check(hints[n], value[n], f"{where}.{n}", depth + 1) for n in names})
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"{where}: {error}") from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _check_union(args: tuple[Any, ...], value: Any, where: str, depth: int) -> Any:
    if value is None and type(None) in args:
        return None
    rest = [a for a in args if a is not type(None)]
    if len(rest) != 1:
        raise TypeError(f"{where}: only X | None is a record's union")
    return _check(rest[0], value, where, depth)


def _check_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not kind:
        raise RecordError(f"{where}: expected {kind.__name__}, got {type(value).__name__}")
    if kind is str and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise RecordError(f"{where}: half a surrogate pair, which UTF-8 cannot write")
    if kind is float and not math.isfinite(value):
        raise RecordError(f"{where}: not a finite number")
    return value
