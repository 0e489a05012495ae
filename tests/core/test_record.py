"""Strict JSON: what a signature covers reads in one way only."""

import json
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core import record
from p2pfed.core.record import MAX_DEPTH, RecordError
from p2pfed.core.types import NodeId


@dataclass(frozen=True)
class Inner:
    share: float
    name: str | None

    def __post_init__(self) -> None:
        if self.share < 0:
            raise ValueError("share is negative")


@dataclass(frozen=True)
class Outer:
    node: NodeId
    count: int
    on: bool
    kind: Literal["a", "b"]
    inner: tuple[Inner, ...]
    pair: tuple[int, str]


VALUE = Outer(NodeId("N"), 3, True, "b", (Inner(0.5, None), Inner(1.0, "é")), (1, "x"))
TEXT = (
    '{"count":3,"inner":[{"name":null,"share":0.5},{"name":"é","share":1.0}],'
    '"kind":"b","node":"N","on":true,"pair":[1,"x"]}'
)


def changed(**changes: object) -> bytes:
    return json.dumps({**json.loads(TEXT), **changes}).encode()


def test_canonical_bytes_never_change():
    assert record.canonical(VALUE) == TEXT.encode()
    assert record.canonical({"b": (1, 2), "a": None}) == b'{"a":null,"b":[1,2]}'


@dataclass(frozen=True)
class Grown:
    """A record that got a field after the first were signed."""

    name: str
    rate: float | None = record.added()


def test_a_field_that_came_later_is_not_written_where_it_is_none():
    assert record.canonical(Grown("a")) == b'{"name":"a"}'
    assert record.parse_canonical(Grown, b'{"name":"a"}') == Grown("a", None)
    assert record.parse_canonical(Grown, record.canonical(Grown("a", 4.0))) == Grown("a", 4.0)
    with pytest.raises(RecordError, match="not in canonical form"):
        record.parse_canonical(Grown, b'{"name":"a","rate":null}')


def test_what_is_written_is_read_back():
    assert record.parse(Outer, TEXT.encode()) == VALUE
    assert record.parse_canonical(Outer, TEXT.encode()) == VALUE
    assert record.parse(Outer, record.readable(VALUE)) == VALUE
    assert record.readable(VALUE).count(b"\n") > 10
    assert record.build(Outer, record.plain(VALUE)) == VALUE


outers = st.builds(
    Outer,
    node=st.text().map(NodeId),
    count=st.integers(),
    on=st.booleans(),
    kind=st.sampled_from(["a", "b"]),
    inner=st.lists(st.builds(Inner, st.floats(0, 1e300), st.none() | st.text()), max_size=3).map(tuple),
    pair=st.tuples(st.integers(), st.text()),
)


@given(outers)
def test_any_record_survives_its_bytes(value):
    data = record.canonical(value)
    assert record.parse_canonical(Outer, data) == value
    assert record.canonical(record.parse(Outer, data)) == data


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (changed(count="3"), "Outer.count: expected int, got str"),
        (changed(count=3.0), "Outer.count: expected int, got float"),
        (changed(count=True), "Outer.count: expected int, got bool"),
        (changed(on=1), "Outer.on: expected bool, got int"),
        (changed(node=None), "Outer.node: expected str, got NoneType"),
        (changed(kind="c"), "Outer.kind: expected one of a, b, got 'c'"),
        (changed(kind=["a"]), "Outer.kind: expected one of a, b"),
        (changed(inner={}), "Outer.inner: expected a list"),
        (changed(inner=[[]]), r"Outer.inner\[0\]: expected an object"),
        (changed(inner=[{"name": 1, "share": 0}]), r"Outer.inner\[0\].name: expected str"),
        (changed(inner=[{"name": None, "share": -1}]), r"Outer.inner\[0\]: share is negative"),
        (changed(inner=[{"name": None, "share": True}]), "share: expected float, got bool"),
        (changed(inner=[{"name": None, "share": 10**400}]), "share: expected float, got int"),
        (changed(pair=[1]), "Outer.pair: expected a list of 2"),
        (changed(pair=[1, "x", 2]), "Outer.pair: expected a list of 2"),
        (changed(node="\ud800"), "half a surrogate pair"),
        (changed(extra=1), "unknown field 'extra'"),
        (b'{"count":3}', "field 'inner' is missing"),
        (b"[]", "Outer: expected an object"),
        (TEXT.replace("0.5", "NaN").encode(), "NaN is not allowed"),
        (TEXT.replace("0.5", "-Infinity").encode(), "-Infinity is not allowed"),
        (TEXT.replace("0.5", "1e999").encode(), "share: not a finite number"),
        (TEXT.replace('"on":true', '"on":true,"on":true').encode(), "key 'on' is given twice"),
        (TEXT.encode("utf-16"), "not JSON"),
        (TEXT.encode("latin-1"), "not JSON"),
        (b"\xef\xbb\xbf" + TEXT.encode(), "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"1" * 5000, "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_anything_else_is_refused_with_its_place(data, complaint):
    with pytest.raises(RecordError, match=complaint):
        record.parse(Outer, data)


def test_a_whole_number_may_stand_for_a_fraction():
    assert record.parse(Inner, b'{"name":null,"share":2}') == Inner(2.0, None)
    assert type(record.parse(Inner, b'{"name":null,"share":2}').share) is float


@pytest.mark.parametrize(
    "data", [TEXT.replace(",", ", ").encode(), TEXT.replace("1.0", "1").encode(), TEXT.replace("é", "\\u00e9").encode()]
)
def test_other_spellings_are_read_but_not_canonical(data):
    assert record.parse(Outer, data) == VALUE
    with pytest.raises(RecordError, match="not in canonical form"):
        record.parse_canonical(Outer, data)


def test_nan_is_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.canonical(Inner(float("nan"), None))


@dataclass(frozen=True)
class Nest:
    inside: tuple["Nest", ...]


def test_a_record_within_a_record_has_a_limit():
    data = b'{"inside":[' * MAX_DEPTH + b"]}" * MAX_DEPTH
    with pytest.raises(RecordError, match="nested too deeply"):
        record.parse(Nest, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from([*Outer.__annotations__]), JSON)
def test_any_value_in_any_field_is_read_or_refused(name, value):
    try:
        read = record.parse(Outer, changed(**{name: value}))
    except RecordError:
        return
    assert record.parse_canonical(Outer, record.canonical(read)) == read


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    with pytest.raises(RecordError):
        record.parse(Outer, data)
