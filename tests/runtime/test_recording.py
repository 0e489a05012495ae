"""A recorded node decides as one that is not recorded, and its journal replays to the same state without its key."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from p2pfed import logs
from p2pfed.cli import run
from p2pfed.config import NodeSection
from p2pfed.core import membership, wire
from p2pfed.core.consortium import Manifest, SignedManifest
from p2pfed.core.effects import StartTraining
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.inputs import (
    Input,
    ManifestChanged,
    Started,
    StopRequested,
    TimerFired,
    TrainerReady,
    TrainingFinished,
    UpdateReceived,
)
from p2pfed.core.node import GossipNode
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.weights import Vector
from p2pfed.errors import ConfigError
from p2pfed.runtime import replay as module
from p2pfed.runtime.recording import Birth, RecordedNode, Recording, born, state_digest
from p2pfed.runtime.replay import ReplayedSigner, replay
from tests.consortia import Consortium, consortium, next_version
from tests.core.heap import Network, identity, make_manifest

LOG = logs.for_node("bank-0")


def birth_of(network: Network, i: int, seed: int = 5) -> Birth:
    """What heap.Network makes node `i` of, at its first start."""
    settings = NodeSettings(network.rounds, 1, network.manifest.members[i].endpoints, "test")
    return Birth((SignedManifest.unsigned(network.manifest),), settings, Memory(1, f"{i:032x}"), seed)


def recorded(folder: Path, questions: int = 0, rounds: int = 5) -> tuple[Path, Network]:
    """The journal of node 0 of five lossy nodes, all of them run until 20 s; it is asked `questions` each second."""
    network = Network(make_manifest(5, fanout=2), rounds=rounds, loss=0.2)
    recording = Recording(folder / "bank-0-1.journal", LOG)
    for i in range(5):
        network.start(i)
    node = RecordedNode(identity(0), birth_of(network, 0), recording)
    network.nodes[node.me] = node
    for second in range(1, 20):
        network.run(second)
        for _ in range(questions):
            node.heartbeats(node.me)
            node.hello(network.ids[1], network.now)
    node.handle(StopRequested(), 20.0)
    asyncio.run(recording.close(node))
    return recording.path, network


def test_a_journal_replays_to_the_same_effects_and_state(tmp_path: Path) -> None:
    path, network = recorded(tmp_path)
    found = replay(path)
    assert found.difference is None
    assert found.digest == state_digest(network.nodes[network.ids[0]])
    assert (found.member, found.rounds, found.ending) == ("bank-0", 5, "whole")
    assert {"Started", "TimerFired", "UpdateReceived", "HeartbeatsReceived", "TrainingFinished"} <= set(found.inputs)


def test_what_the_clock_on_the_wall_showed_is_recorded(tmp_path: Path) -> None:
    calendar = Calendar(1_800_000_000, 600, 5, 10.0)
    members = consortium(3, calendar=calendar)
    birth = Birth((members.signed(0, 1),), NodeSettings(0, 1, (), "test"), Memory(1, "00" * 16), 3)
    recording = Recording(tmp_path / "j", LOG)
    node = RecordedNode(members.members[0], birth, recording)
    anchor = float(calendar.anchor)
    # the steady clock knows nothing of the wall clock, which is set back by an hour at last
    node.handle(Started(), 100.0, anchor - 5)
    node.handle(TrainerReady(10, 5), 103.0, anchor - 2)
    for now, wall in (105.0, anchor), (115.0, anchor + 10), (125.0, anchor + 20 - 3600):
        node.handle(TimerFired("round"), now, wall)
    asyncio.run(recording.close(node))
    walls: list[float | None] = []
    found = replay(recording.path, watch=lambda entry, effects, node: walls.append(entry.wall))
    assert found.difference is None
    assert walls == [anchor - 5, anchor - 2, anchor, anchor + 10, anchor + 20 - 3600]


def test_recording_changes_nothing_of_a_node(tmp_path: Path) -> None:
    models = []
    for folder in (None, tmp_path):
        network = Network(make_manifest(5, fanout=2), rounds=5, loss=0.2)
        for i in range(5):
            network.start(i)
        config = NodeSection(name="bank-0", state_dir=tmp_path, journal_dir=folder)
        node, recording = born(birth_of(network, 0), identity(0), config, LOG)
        assert (recording is None) == (type(node) is GossipNode) == (folder is None)
        network.nodes[node.me] = node
        network.run(20)
        models.append(network.hash())
        if recording:
            asyncio.run(recording.close(node))
    assert models[0] == models[1]


def test_questions_in_between_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "MAX_TABLE_ROWS", 3)  # so that an answer is a random choice
    path, _ = recorded(tmp_path, questions=3)
    assert replay(path).difference is None


def test_a_restarted_node_replays_from_what_it_remembered(tmp_path: Path) -> None:
    network = Network(make_manifest(3, fanout=2), rounds=6)
    for i in range(3):
        network.start(i)
    network.run(4.5)
    disk = network.disks[network.ids[0]]
    pushed = network.shelves[network.ids[1]][network.ids[1]][1]
    memory = Memory(2, "00" * 16, disk.checkpoint, dict(disk.marks), (wire.open_update(pushed, network.trust),))
    birth = dataclasses.replace(birth_of(network, 0), memory=memory)
    assert disk.checkpoint is not None and disk.checkpoint.round == 3
    recording = Recording(tmp_path / "restarted.journal", LOG)
    network.start(0)
    network.nodes[network.ids[0]] = node = RecordedNode(identity(0), birth, recording)
    network.run(12)
    asyncio.run(recording.close(node))
    found = replay(recording.path)
    assert found.difference is None
    assert (found.rounds, node.rounds.round) == (3, 6)
    assert found.digest == state_digest(node)


def test_the_journal_holds_no_key_and_the_replayed_node_cannot_sign(tmp_path: Path) -> None:
    path, network = recorded(tmp_path)
    data = path.read_bytes()
    assert identity(0).seed not in data
    assert identity(0).seed.hex().encode() not in data
    assert path.stat().st_mode & 0o777 == 0o600
    signer = ReplayedSigner(identity(0).public_key)
    signature = identity(0).sign(b"recorded")
    signer.expect([signature])
    assert signer.sign(b"recorded") == signature
    assert not signer.strayed
    signer.expect([signature])
    signer.sign(b"something else")
    assert signer.strayed
    signer.expect([])
    signer.sign(b"recorded")
    assert signer.strayed


def sealed(members: Consortium, i: int, seq: int, manifest: Manifest, vector: Vector) -> UpdateReceived:
    """An update of member `i`, handed over by itself."""
    made = wire.seal_update(
        members.members[i], manifest=manifest, instance="00" * 16, seq=seq, previous="", round=1, rows=9, vector=vector
    )
    return UpdateReceived(made, members.members[i].node_id)


def test_updates_signed_under_the_manifest_before_and_the_present_one_replay(tmp_path: Path) -> None:
    members = consortium(3)
    signed = members.signed(0, 1)
    birth = Birth((signed,), NodeSettings(0, 1, (), "test"), Memory(1, "00" * 16), 3)
    recording = Recording(tmp_path / "j", LOG)
    node = RecordedNode(members.members[0], birth, recording)
    successor = next_version(members.manifest, members=members.manifest.members[:2])

    def update(i: int, seq: int, manifest: Manifest) -> UpdateReceived:
        return sealed(members, i, seq, manifest, np.full(manifest.model.schema().size, 0.5, np.float32))

    # the last of them was opened before the manifest that its sender is no longer in
    inputs: list[Input] = [
        Started(), update(1, 1, members.manifest), ManifestChanged(successor), update(1, 2, successor),
        update(2, 1, members.manifest),
    ]  # fmt: skip
    for at, given in enumerate(inputs):
        node.handle(given, float(at))
    asyncio.run(recording.close(node))
    found = replay(recording.path)
    assert found.difference is None
    assert (found.entries, found.ending) == (5, "whole")


def test_an_input_the_daemon_died_of_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(node: GossipNode, given: object, now: float) -> list:
        raise ZeroDivisionError("a bug")

    network = Network(make_manifest(2))
    recording = Recording(tmp_path / "j", LOG)
    node = RecordedNode(identity(0), birth_of(network, 0), recording)
    handlers = GossipNode._HANDLERS
    monkeypatch.setattr(GossipNode, "_HANDLERS", handlers | {TrainerReady: handler})
    node.handle(Started(), 1.0)
    with pytest.raises(ZeroDivisionError):
        node.handle(TrainerReady(10, 5), 2.0)
    asyncio.run(recording.close(node))
    assert replay(recording.path).difference is None
    monkeypatch.setattr(GossipNode, "_HANDLERS", handlers)
    difference = replay(recording.path).difference
    assert difference is not None
    assert difference.what == "it ends with no error; recorded was ZeroDivisionError('a bug')"


def changed_handler(kind: type, change: object) -> dict:
    original = GossipNode._HANDLERS[kind]
    return GossipNode._HANDLERS | {kind: lambda node, given, now: change(node, original(node, given, now))}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda node, effects: effects[:-1], "effects; recorded were"),
        (lambda node, effects: [*effects, effects[-1]], "too many SetTimer"),
        (lambda node, effects: effects[::-1], "effect 1 of 6 is SetTimer; recorded was Save"),
        (
            lambda node, effects: [
                dataclasses.replace(e, vector=e.vector + 1) if isinstance(e, StartTraining) else e for e in effects
            ],
            "StartTraining, has another content",
        ),
        (lambda node, effects: (node.presence.leave(0, (0, 0), 0.0), effects)[1], "it signs something else"),
    ],
)
def test_the_first_difference_is_told(
    change: object, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = recorded(tmp_path, rounds=3)
    steps: list[tuple[int, str]] = []
    replay(path, watch=lambda entry, effects, node: steps.append((entry.number, type(entry.given).__name__)))
    first = next(number for number, kind in steps if kind == "TrainingFinished")
    monkeypatch.setattr(GossipNode, "_HANDLERS", changed_handler(TrainingFinished, change))
    difference = replay(path).difference
    assert difference is not None
    assert (difference.entry, difference.input, difference.at) == (first, "TrainingFinished", 2.0)
    assert what in difference.what
    assert run(["replay", str(path), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["same"], said["difference"]["entry"]) == (False, first)
    assert run(["replay", str(path)]) == 1
    assert f"differs at input {first}, TrainingFinished: {difference.what} (node time 2.0" in capsys.readouterr().out
    assert run(["replay", str(path), "--until", str(first - 1)]) == 0


def test_another_state_in_the_end_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = recorded(tmp_path, rounds=2)
    monkeypatch.setattr(module, "state_digest", lambda node: "another")
    difference = replay(path).difference
    assert difference is not None
    assert difference.input == "end"


def test_what_made_the_recording_is_said_where_it_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = recorded(tmp_path, rounds=2)
    monkeypatch.setattr(module, "state_digest", lambda node: "another")
    assert run(["replay", str(path)]) == 1
    assert "recorded with" not in capsys.readouterr().out
    monkeypatch.setattr(np, "__version__", "9.9")
    assert run(["replay", str(path)]) == 1
    assert "(here 9.9)" in capsys.readouterr().out


def test_show_prints_each_input_and_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = recorded(tmp_path, rounds=2)
    assert run(["replay", str(path), "--show"]) == 0
    text = capsys.readouterr().out
    assert "UpdateReceived update=seq=1 of=bank-" in text
    assert "-> Pull peer=bank-" in text
    assert text.splitlines()[-2].startswith("bank-0: ")
    assert run(["replay", str(path), "--show", "--json"]) == 0
    *rows, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [row["entry"] for row in rows] == list(range(1, last["entries"] + 1))
    assert last["same"]


def test_a_recording_that_fails_ends_and_the_node_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(make_manifest(2))
    recording = Recording(tmp_path / "j", LOG)
    node = RecordedNode(identity(0), birth_of(network, 0), recording)
    node.handle(Started(), 1.0)
    recording.flush()

    recording._file.close()
    recording._file = Path("/dev/full").open("wb")  # noqa: SIM115
    for at in range(2, 9):
        assert node.handle(TimerFired("heartbeat"), float(at))
        recording.flush()
    asyncio.run(recording.close(node))
    assert [r.message for r in caplog.records] == [
        f"the journal {recording.path} ends here: [Errno 28] No space left on device; the node goes on"
    ]
    found = replay(recording.path)
    assert (found.entries, found.ending, found.difference) == (1, "open", None)


def test_an_input_that_has_no_form_ends_the_recording_and_not_the_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(make_manifest(2))
    recording = Recording(tmp_path / "j", LOG)
    node = RecordedNode(identity(0), birth_of(network, 0), recording)
    node.handle(Started(), 1.0)
    node.handle(TrainerReady(object(), 5), 2.0)  # type: ignore[arg-type]
    node.handle(TimerFired("heartbeat"), 3.0)
    asyncio.run(recording.close(node))
    assert "no form for a value of type object" in caplog.text
    assert replay(recording.path).entries == 1


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bank-0-1.journal").write_text("precious")
    config = NodeSection(name="bank-0", state_dir=tmp_path, journal_dir=tmp_path)
    with pytest.raises(ConfigError, match="cannot be made: File exists"):
        born(birth_of(Network(make_manifest(2)), 0), identity(0), config, LOG)
    with pytest.raises(ConfigError, match="cannot be made: File exists"):
        Recording(tmp_path / "bank-0-1.journal" / "x", LOG)


async def test_what_was_noted_is_on_disk_within_a_second_or_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pfed.runtime.recording.FLUSH_SECONDS", 0.01)
    recording = Recording(tmp_path / "j", LOG)
    node = RecordedNode(identity(0), birth_of(Network(make_manifest(2)), 0), recording)
    task = asyncio.create_task(recording.run())
    node.handle(Started(), 1.0)
    async with asyncio.timeout(10):
        while replay_entries(recording.path) < 1:
            await asyncio.sleep(0.01)
    task.cancel()
    await recording.close(node)
    assert replay(recording.path).ending == "whole"


def replay_entries(path: Path) -> int:
    try:
        return replay(path).entries
    except ConfigError:  # not even the header yet
        return 0


def test_sums_are_split_between_as_many_threads_as_when_recording(tmp_path: Path) -> None:
    members = consortium(4, hidden=(256, 128))
    size = members.manifest.model.schema().size
    rng = np.random.default_rng(0)
    recording = Recording(tmp_path / "j", LOG)
    with threadpoolctl.threadpool_limits(1, "blas"):
        birth = Birth((members.signed(0, 1),), NodeSettings(0, 1, (), "test"), Memory(1, "00" * 16), 3)
        node = RecordedNode(members.members[0], birth, recording)
        node.handle(Started(), 0.0)
        node.handle(TrainerReady(100, 50), 1.0)
        node.handle(TimerFired("adoption"), 60.0)
        for number in range(1, 4):
            for i in (1, 2, 3):
                vector = node.rounds.vector + rng.normal(0, 0.05, size).astype(np.float32)
                node.handle(sealed(members, i, number, members.manifest, vector), 60.0 + number)
            trained = node.rounds.vector + rng.normal(0, 0.05, size).astype(np.float32)
            node.handle(TrainingFinished(number, trained, b"", 0.5, 3, 1.0), 60.5 + number)
        asyncio.run(recording.close(node))
    found = replay(recording.path)
    assert (found.rounds, found.difference, found.made_by["threads"]) == (3, None, 1)
