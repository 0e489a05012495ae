"""A journal's file and values: whatever goes in comes out, and no damage is taken for anything else."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pfed import logs
from p2pfed.cli import run
from p2pfed.core import inputs, wire
from p2pfed.core.aggregation import code_allowed
from p2pfed.core.consortium import Manifest, SignedManifest
from p2pfed.core.effects import Effect
from p2pfed.core.events import Metrics
from p2pfed.core.messages import Heartbeat, HeartbeatTable, ModelUpdate
from p2pfed.core.served import Served, ServedDay
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.weights import Vector
from p2pfed.errors import ConfigError, StateCorrupt, UsageError
from p2pfed.runtime.journal import MAGIC, JournalReader, framed
from p2pfed.runtime.journal_values import ValueReader, digest, plain
from p2pfed.runtime.recording import Birth, RecordedNode, Recording, taken_apart
from p2pfed.runtime.replay import replay
from tests.consortia import consortium

SERVED = Served(
    1.0, 2.0, (ServedDay("2026-03-01", 9, 2, 1, 1, 0.5, "ab"), ServedDay("2026-03-02", 1, 0, 0, 0, None, ""))
)
MEMBERS = consortium(3)
SIZE = MEMBERS.manifest.model.schema().size
INPUTS = sorted(get_args(inputs.Input), key=lambda kind: kind.__name__)


NOWHERE = {"host": "nowhere.example", "port": 1}


def update(seq: int = 1, value: float = 0.5) -> ModelUpdate:
    return wire.seal_update(
        MEMBERS.members[1], manifest=MEMBERS.manifest, instance="00" * 16, seq=seq, previous="", round=1, rows=9,
        vector=np.full(SIZE, value, np.float32),
    )  # fmt: skip


def heartbeats(count: int) -> HeartbeatTable:
    rows = [
        Heartbeat(MEMBERS.manifest.consortium, m.node_id, 1, 2, 1, 3, (), False, 1, 1, "test")
        for m in MEMBERS.members[:count]
    ]
    return HeartbeatTable(tuple(wire.seal_heartbeat(m, row) for m, row in zip(MEMBERS.members, rows, strict=False)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
metrics = st.dictionaries(st.text(), json_values, max_size=3)
SPECIAL: dict[Any, st.SearchStrategy[Any]] = {
    Vector: arrays(np.float32, st.integers(0, 9)),
    ModelUpdate: st.builds(update, st.integers(1, 9), st.floats(-8, 8, width=32)),
    HeartbeatTable: st.integers(0, 3).map(heartbeats),
    Manifest: st.just(MEMBERS.manifest),
    Metrics: metrics,
    dict[str, Metrics]: st.dictionaries(st.text(), metrics, max_size=3),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Anything that an annotation of `core` allows."""
    if hint in SPECIAL:
        return SPECIAL[hint]
    if get_origin(hint) in (Union, types.UnionType):
        return st.one_of(*map(values_of, get_args(hint)))
    if get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis:
        return st.lists(values_of(get_args(hint)[0]), max_size=2).map(tuple)
    if dataclasses.is_dataclass(hint):
        return st.builds(hint, **{name: values_of(of) for name, of in get_type_hints(hint).items()})
    return st.from_type(hint)


def read_back(path: Path) -> list[tuple[dict[str, Any], tuple[bytes, ...]]]:
    with JournalReader(path) as reader:
        return [(record.head, record.blobs) for record in reader.records()]


def write(path: Path, *records: list[Any]) -> Path:
    path.write_bytes(MAGIC + b"".join(bytes(part) for record in records for part in record))
    return path


@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_every_input_is_read_as_it_was_written(kind: type, data: st.DataObject, tmp_path_factory: Any) -> None:
    before = data.draw(values_of(kind))
    blobs: list[Any] = []
    value = plain(before, blobs)
    path = write(tmp_path_factory.getbasetemp() / "one", framed({"value": value}, blobs))
    ((head, read),) = read_back(path)
    values = ValueReader()
    values.build(SignedManifest, 0, [MEMBERS.signed(0, 1).to_bytes()])
    after = values.build(kind, head["value"], read)
    assert type(after) is kind
    again: list[Any] = []
    assert digest(plain(after, again), again) == digest(value, blobs)
    for field in dataclasses.fields(kind):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if isinstance(one, np.ndarray):
            assert (other.dtype, other.tobytes()) == (np.float32, one.tobytes())
        else:
            assert one == other or repr(one) == repr(other)  # NaN is not equal to itself


@pytest.mark.parametrize("kind", get_args(Effect), ids=lambda kind: kind.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_every_effect_has_a_digest_which_does_not_change(kind: type, data: st.DataObject) -> None:
    effect = data.draw(values_of(kind))
    digests = {(name, digest(value, blobs)) for name, value, blobs in (taken_apart(effect), taken_apart(effect))}
    assert [name for name, _ in digests] == [kind.__name__]


def test_the_digest_tells_effects_apart() -> None:
    from p2pfed.core.effects import Publish, Push, StartTraining

    me = MEMBERS.members[0].node_id
    vector = np.zeros(4, np.float32)
    effects = [
        Publish(me, 1, b"frame"),
        Publish(me, 2, b"frame"),
        Publish(me, 1, b"frames"),
        Push(me, (), b"frame"),
        StartTraining(1, vector, b"ab"),
        StartTraining(1, vector, b""),
        StartTraining(1, np.nextafter(vector, np.float32(1)), b"ab"),
    ]
    digests = {(kind, digest(value, blobs)) for kind, value, blobs in map(taken_apart, effects)}
    assert len(digests) == len(effects)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A short journal of a node that received, trained and stopped."""
    path = tmp_path_factory.mktemp("journal") / "j"
    birth = Birth((MEMBERS.signed(0, 1),), NodeSettings(0, 1, (), "test"), Memory(1, "00" * 16), 3)
    recording = Recording(path, logs.for_node("bank-0"))
    node = RecordedNode(MEMBERS.members[0], birth, recording)
    vector = np.ones(SIZE, np.float32)
    for at, given_ in enumerate(
        (
            inputs.Started(),
            inputs.TrainerReady(10, 5, served=SERVED),
            inputs.UpdateReceived(update(), MEMBERS.members[1].node_id),
            inputs.HeartbeatsReceived(heartbeats(3), MEMBERS.members[1].node_id, True),
            inputs.TimerFired("adoption"),
            inputs.TrainingFinished(1, vector, b"adam", 0.5, 3, 1.0),
            inputs.StopRequested(),
        )
    ):
        node.handle(given_, 100.0 + 100 * at)
    asyncio.run(recording.close(node))
    assert node.rounds.round == 1
    return path.read_bytes()


@settings(max_examples=80)
@given(data=st.data())
def test_a_journal_that_was_cut_anywhere_replays_as_far_as_it_goes(
    data: st.DataObject, journal: bytes, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut"
    length = data.draw(st.integers(0, len(journal) - 1))
    path.write_bytes(journal[:length])
    try:
        found = replay(path)
    except ConfigError as error:  # not even the header is there
        assert len(str(error)) > 20
        return
    assert found.difference is None
    assert found.ending in ("cut", "open")
    assert found.entries <= 7


@settings(max_examples=150)
@given(data=st.data())
def test_a_changed_bit_anywhere_is_noticed(data: st.DataObject, journal: bytes, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped"
    place, bit = data.draw(st.integers(0, len(journal) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(journal)
    damaged[place] ^= 1 << bit
    path.write_bytes(damaged)
    with pytest.raises((StateCorrupt, ConfigError)) as caught:
        replay(path)
    assert str(path) in str(caught.value)


@settings(max_examples=100)
@given(data=st.binary(max_size=300))
def test_any_bytes_after_the_magic_end_in_a_sentence(data: bytes, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(MAGIC + data)
    with pytest.raises((StateCorrupt, ConfigError)):
        replay(path)


def test_what_the_whole_journal_replays_to(journal: bytes, tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(journal)
    found = replay(tmp_path / "j")
    assert (found.difference, found.ending, found.entries, found.rounds) == (None, "whole", 7, 1)


def header_of(journal: bytes, tmp_path: Path) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    (tmp_path / "j").write_bytes(journal)
    return read_back(tmp_path / "j")[0]


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"kind": "entry"},
        {"kind": "entry", "input": "Nonsense"},
        {"input": "TimerFired", "given": {"name": 3}},
        {"input": "TimerFired", "given": {"name": "x", "colour": 1}},
        {"input": "TimerFired", "given": {}},
        {"input": "TimerFired", "given": None},
        {"input": "Offended", "given": {"peer": "A", "reason": "NO_SUCH"}},
        {"input": "EndpointFound", "given": {"member": "A", "endpoint": {"address": NOWHERE, "source": "rumour"}}},
        {"input": "UpdateReceived", "given": {"update": 7, "via": "A"}},
        {"input": "UpdateReceived", "given": {"update": 0, "via": "A"}},
        {"input": "HeartbeatsReceived", "given": {"table": 0, "via": "A", "answered": True}},
        {"input": "ManifestChanged", "given": {"manifest": 0}},
        {"input": "Started", "given": {}, "effects": 3},
        {"input": "Started", "given": {}, "effects": [[1]]},
        {"input": "Started", "given": {}, "signatures": ["xyz"]},
        {"input": "Started", "given": {}, "at": "noon"},
        {"input": "Started", "given": {}, "at": 10**400},
        {"input": "Started", "given": {}, "at": float("inf")},
        {"input": "Started", "given": {}, "raised": {}},
        {"input": "\x1b[2J" * 10_000},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_whole_record_that_makes_no_sense_is_damage(
    entry: dict[str, Any], journal: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, blobs = header_of(journal, tmp_path)
    base = {"kind": "entry", "at": 1.0, "signatures": [], "raised": None, "effects": []}
    path = write(tmp_path / "odd", framed(head, blobs), framed(base | entry if "input" in entry else entry, [b"noise"]))
    assert run(["replay", str(path)]) == 65
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"p2pfed: {path} is damaged after record 2")
    assert said.err.count("\n") == 1 and len(said.err) < 600 and "\x1b" not in said.err


def test_what_a_hostile_file_says_moves_no_cursor(
    journal: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, blobs = header_of(journal, tmp_path)
    entry = {"kind": "entry", "at": 1.0, "wall": None, "signatures": [], "input": "Started", "given": {}}
    entry["raised"] = "\x1b[2J\ud800"
    path = write(tmp_path / "odd", framed(head, blobs), framed(entry | {"effects": [["\x1b[2J", "x"]]}, []))
    for options in [], ["--show"], ["--json"]:
        assert run(["replay", str(path), *options]) == 1
        said = capsys.readouterr()
        assert "recorded was ?[2J" in said.out or "--json" in options
        assert "\x1b" not in said.out and said.out.encode()


def test_a_merge_rule_that_a_journal_names_is_not_imported_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(
        "import pathlib\nfrom p2pfed.core.aggregation import Mean\npathlib.Path(__file__ + '.ran').touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    manifest = replace(MEMBERS.manifest, gossip=replace(MEMBERS.manifest.gossip, rule="theirs:Mean"))
    birth = Birth((SignedManifest.unsigned(manifest),), NodeSettings(0, 1, (), "test"), Memory(1, "00" * 16), 3)
    recording = Recording(tmp_path / "j", logs.for_node("bank-0"))
    with code_allowed():
        node = RecordedNode(MEMBERS.members[0], birth, recording)
    node.handle(inputs.Started(), 100.0)
    asyncio.run(recording.close(node))
    ran = tmp_path / "theirs.py.ran"
    ran.unlink()  # imported for the recording
    sys.modules.pop("theirs")
    assert run(["replay", str(tmp_path / "j")]) == 2
    said = capsys.readouterr()
    assert "'theirs:Mean' names code" in said.err and "--allow-code" in said.err and said.err.count("\n") == 1
    assert not ran.exists()
    assert run(["replay", str(tmp_path / "j"), "--allow-code"]) == 0
    assert ran.exists()


def test_a_foreign_file_is_no_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    path.write_text("version: 1\n")
    assert run(["replay", str(path)]) == 78
    assert "is not a journal of a p2pfed node" in capsys.readouterr().err
    path.write_bytes(b"p2pfed.journal/1\n")
    assert run(["replay", str(path)]) == 78
    assert "another format" in capsys.readouterr().err
    assert run(["replay", str(tmp_path)]) == 2
    assert run(["replay", str(tmp_path / "absent")]) == 2
    with pytest.raises(UsageError):
        JournalReader(tmp_path / "absent")


def test_a_header_without_its_parts_is_damage(journal: bytes, tmp_path: Path) -> None:
    head, blobs = header_of(journal, tmp_path)
    for changed in (
        {},
        head | {"public_key": "00"},
        head | {"birth": {}},
        head | {"birth": head["birth"] | {"chain": []}},
        head | {"birth": head["birth"] | {"memory": None}},
        head | {"made_by": 3},
        *(head | {"made_by": {"threads": threads}} for threads in ({}, "many", 1e308, float("inf"), 0, 10**9)),
    ):
        with pytest.raises(StateCorrupt):
            replay(write(tmp_path / "odd", framed(changed, blobs)))
