"""`p2pfed events` and `p2pfed status` on a node whose daemon does not run, and which events are shown."""

import asyncio
import json
from pathlib import Path

import pytest

from p2pfed.cli import run
from p2pfed.cli.times import earlier
from p2pfed.core.effects import Save
from p2pfed.core.reputation.peer_record import PeerRecord
from p2pfed.errors import UsageError
from p2pfed.store.base import StoredEvent
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir
from tests.consortia import consortium
from tests.store.test_sqlite import checkpoint

HOUR = 3600.0
NOW = 1_800_000_000.0
EVENTS = [
    StoredEvent(1, NOW - 9 * HOUR, "node_started", '{"round": 0, "members": 2, "text": "node starts"}'),
    StoredEvent(2, NOW - 3 * HOUR, "training_alone", '{"round": 1, "text": "alone"}'),
    StoredEvent(3, NOW - 2 * HOUR, "run_finished", '{"round": 2, "text": "done"}'),
    StoredEvent(4, NOW - HOUR, "training_alone", '{"round": 3, "text": "alone again"}'),
]


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bank that has run once."""
    path = tmp_path / "node.yaml"
    assert run(["init", "-c", str(path), "--name", "bank-a"]) == 0
    capsys.readouterr()

    async def fill() -> None:
        store = SqliteStore(StateDir(tmp_path / "state"))
        await store.append(EVENTS)
        await store.save(Save(checkpoint(7)))
        store.close()

    asyncio.run(fill())
    monkeypatch.setattr("p2pfed.cli.history.time.time", lambda: NOW)
    return path


def shown(config: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[int]:
    """The ids of the events that are printed."""
    assert run(["events", "-c", str(config), "--json", *options]) == 0
    captured = capsys.readouterr()
    assert "no daemon is running" in captured.err and "state directory" in captured.err
    return [json.loads(line)["id"] for line in captured.out.splitlines()]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], [1, 2, 3, 4]),
        (["--since", "2"], [3, 4]),
        (["--since", "150m"], [3, 4]),
        (["--since", "2027-01-15T07:00+00:00"], [4]),
        (["--tail", "1"], [4]),
        (["--tail", "9"], [1, 2, 3, 4]),
        (["--kind", "training_alone"], [2, 4]),
        (["--kind", "training_alone", "--kind", "node_started", "--tail", "2"], [2, 4]),
        (["--kind", "training_alone", "--since", "90m"], [4]),
    ],
)
def test_the_history_is_read_where_it_is_kept(config, capsys, options, ids):
    before = (config.parent / "state" / "node.sqlite").read_bytes()
    assert shown(config, capsys, *options) == ids
    assert (config.parent / "state" / "node.sqlite").read_bytes() == before


def test_an_unknown_kind_or_time_is_refused(config, refused):
    code, err = refused("events", "-c", config, "--kind", "training_alon")
    assert code == 2 and "--kind training_alon: there are no such events; known are " in err and "training_alone" in err
    code, err = refused("events", "-c", config, "--since", "yesterday")
    assert code == 2 and "--since yesterday: expected an age such as 2h, or a time" in err


def test_a_time_without_a_zone_is_this_machines():
    assert earlier("2h", "--since", NOW) == NOW - 2 * HOUR
    assert earlier("2027-01-15T08:00:00Z", "--since", NOW) == NOW
    with pytest.raises(UsageError):
        earlier("99999-01-01", "--since", NOW)


def test_the_status_of_a_node_that_does_not_run(config, capsys, monkeypatch):
    banks = consortium(3)
    bad = next(iter(banks.manifest.by_id))
    monkeypatch.setattr("p2pfed.cli.stored.trusted_chain", lambda _: [banks.signed(0, 1)])

    async def judge() -> None:
        store = SqliteStore(StateDir(config.parent / "state"))
        await store.save(Save(peers={bad: PeerRecord("quarantined", looks=1)}))
        store.close()

    asyncio.run(judge())
    assert run(["status", "-c", str(config)]) == 69
    captured = capsys.readouterr()
    assert "is not running; its state directory says:" in captured.out
    assert "learning    round 7, update 7, after 3 starts" in captured.out
    assert "members     3, 1 quarantined" in captured.out
    assert "last event  4, training_alone, 2027-01-15 07:00:00 UTC" in captured.out
    assert "no daemon is running" in captured.err
    assert run(["status", "-c", str(config), "--json"]) == 69
    told = json.loads(capsys.readouterr().out)
    assert told["exit"] == 69 and "no daemon is running" in told["error"]
    assert (told["stored"]["round"], told["stored"]["serves"], len(told["stored"]["quarantined"])) == (7, None, 1)
