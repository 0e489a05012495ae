"""Frozen dataclasses <-> canonical JSON, strictly: what a signature covers must read in one way only."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

MAX_DEPTH = 12
_SCALARS = frozenset((str, int, float, bool, type(None)))


class RecordError(ValueError):
    """A value does not have the shape of its record; the message names the field."""


def canonical(value: Any) -> bytes:
    """UTF-8 JSON of a dataclass or plain value: sorted keys, no spaces, no NaN. Equal values give equal bytes."""
    return _canonical(plain(value)).encode()


def readable(value: Any) -> bytes:
    """The same JSON indented, for a file that people look at."""
    return json.dumps(plain(value), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def plain(value: Any) -> Any:
    """`value` as dicts, lists, strings, numbers, booleans and None."""
    kind: Any = type(value)
    if kind in _SCALARS:
        return value
    if (names := _names(kind)) is not None:
        fields = {name: plain(getattr(value, name)) for name in names}
        for name in _added(kind):
            if fields[name] is None:
                del fields[name]
        return fields
    if isinstance(value, (list, tuple)):
        return [v if type(v) in _SCALARS else plain(v) for v in value]
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
        return _decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from None


def build(record: type[T], value: Any) -> T:
    """Check plain `value` against the annotations of `record` and construct it; raises RecordError."""
    result: T = _check_fields(record, value, record.__name__, 0)
    return result


def added() -> Any:
    """The default of a field `X | None` that a record got later: it is not written where it is None.

    What was signed before the field was there has the same bytes as ever.
    """
    return dataclasses.field(default=None, metadata={"added": True})


@cache
def _added(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind) if "added" in f.metadata)


@cache
def _names(kind: Any) -> tuple[str, ...] | None:
    """The fields of a dataclass; None of anything else."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key[:40]!r} is given twice")
        result[key] = value
    return result


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not allowed")


# Both made once: json.dumps and json.loads make new ones for every message.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_decode = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant).decode


# Takes a value, its place in words and how deeply it is nested; made once for each annotation, used for each message.
Check = Callable[[Any, str, int], Any]


def _check_of(kind: Any) -> Check:
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return partial(_check_fields, kind)
    if origin in (Union, types.UnionType):
        return _check_of_union(args)
    if origin is Literal:
        return partial(_check_literal, args)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return partial(_check_list, _check_of(args[0]))
    if origin is tuple:
        return partial(_check_row, tuple(map(_check_of, args)))
    return partial(_check_scalar, getattr(kind, "__supertype__", kind))


def _check_of_union(args: tuple[Any, ...]) -> Check:
    rest = [a for a in args if a is not type(None)]
    if len(rest) != 1 or len(args) != 2:
        raise TypeError("only X | None is a record's union")
    return partial(_check_optional, _check_of(rest[0]))


@cache
def _field_checks(kind: Any) -> dict[str, Check]:
    hints = get_type_hints(kind)
    return {f.name: _check_of(hints[f.name]) for f in dataclasses.fields(kind)}


def _check_fields(kind: Any, value: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise RecordError(f"{where}: nested too deeply")
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected an object")
    checks = _field_checks(kind)
    if unknown := sorted(value.keys() - checks.keys()):
        raise RecordError(f"{where}: unknown field {unknown[0][:40]!r}")
    for name in _added(kind):
        if name not in value:
            value = {**value, name: None}
    if missing := sorted(checks.keys() - value.keys()):
        raise RecordError(f"{where}: field {missing[0]!r} is missing")
    try:
        return kind(**{name: check(value[name], f"{where}.{name}", depth + 1) for name, check in checks.items()})
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"{where}: {error}") from None


def _check_optional(check: Check, value: Any, where: str, depth: int) -> Any:
    return None if value is None else check(value, where, depth)


def _check_literal(allowed: tuple[Any, ...], value: Any, where: str, depth: int) -> Any:
    if value not in allowed:
        raise RecordError(f"{where}: expected one of {', '.join(map(str, allowed))}, got {str(value)[:40]!r}")
    return value


def _check_list(check: Check, value: Any, where: str, depth: int) -> Any:
    if not isinstance(value, list):
        raise RecordError(f"{where}: expected a list")
    return tuple(check(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value))


def _check_row(checks: tuple[Check, ...], value: Any, where: str, depth: int) -> Any:
    if not isinstance(value, list) or len(value) != len(checks):
        raise RecordError(f"{where}: expected a list of {len(checks)}")
    return tuple(check(v, f"{where}[{i}]", depth + 1) for i, (check, v) in enumerate(zip(checks, value, strict=True)))


def _check_scalar(kind: Any, value: Any, where: str, depth: int) -> Any:
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not kind:
        raise RecordError(f"{where}: expected {kind.__name__}, got {type(value).__name__}")
    if kind is str and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise RecordError(f"{where}: half a surrogate pair, which UTF-8 cannot write")
    if kind is float and not math.isfinite(value):
        raise RecordError(f"{where}: not a finite number")
    return value
