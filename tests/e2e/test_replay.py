"""Journals of real daemons, one of them killed on the way, replay to the state that the daemons left on disk."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pfed.cluster.founding import found
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.running import RunningCluster
from p2pfed.core.effects import Effect
from p2pfed.core.node import GossipNode
from p2pfed.experiment.shards import deal
from p2pfed.runtime.replay import Entry, replay
from p2pfed.store.base import Restored
from p2pfed.store.sqlite import SqliteStore

pytestmark = [pytest.mark.e2e, pytest.mark.tf, pytest.mark.network, pytest.mark.slow]

ROUNDS = 12


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Restored]]]:
    """The journals of three daemons that did their rounds, and what each has in its database; bank-1 started twice."""
    folder = tmp_path_factory.mktemp("recorded")
    options = ClusterOptions(nodes=3, rounds=ROUNDS, round_interval=0.3, partition="iid")
    cluster = found(options, deal(options, folder / "data"), folder)
    victim = cluster.banks[0]

    def round_of(bank: Any) -> int:
        return int(running.wait(bank, 60)["learning"]["round"])

    def until(bank: Any, number: int) -> None:
        deadline = time.monotonic() + 120
        while round_of(bank) < number:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("P2PFED_NODE__JOURNAL_DIR", str(folder / "journals"))
        running = RunningCluster(cluster)
        with running:
            until(victim, 3)
            time.sleep(1.5)  # what was noted is written each second
            running.processes.kill(victim.name)
            running.start(victim)
            for bank in cluster.banks:
                until(bank, ROUNDS)
            time.sleep(2)  # merging what the others publish last
    left = {}
    for bank in cluster.banks:
        store = SqliteStore(bank.state)
        left[bank.name] = store.restore()
        store.close()
    yield folder / "journals", left


def replayed(journal: Path) -> dict[str, Any]:
    """By the command line, in a process of its own."""
    command = [sys.executable, "-m", "p2pfed", "replay", str(journal), "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def test_every_start_has_a_journal_that_replays(recorded: tuple[Path, dict[str, Restored]]) -> None:
    folder, _ = recorded
    journals = sorted(folder.iterdir())
    assert [path.name[: len("bank-1-")] for path in journals] == ["bank-1-", "bank-1-", "bank-2-", "bank-3-"]
    for number, path in enumerate(journals):
        said = replayed(path)
        assert said["same"]
        assert said["difference"] is None
        assert path.name.startswith(said["member"])
        assert said["rounds"] > 0
        assert said["inputs"]["UpdateReceived"] > 0
        assert said["ending"] in (("open", "cut") if number == 0 else ("whole",))


def test_a_replay_ends_with_the_model_that_is_on_disk(recorded: tuple[Path, dict[str, Restored]]) -> None:
    folder, left = recorded
    for bank, restored in left.items():
        nodes: list[GossipNode] = []

        def keep(entry: Entry, effects: list[Effect], node: GossipNode, to: list[GossipNode] = nodes) -> None:
            to.append(node)

        found = replay(max(folder.glob(f"{bank}-*")), watch=keep)
        assert found.difference is None
        rounds, checkpoint = nodes[-1].rounds, restored.checkpoint
        assert checkpoint is not None
        assert (rounds.round, rounds.seq) == (ROUNDS, checkpoint.seq)
        assert rounds.statement_digest == checkpoint.statement_digest
        assert rounds.vector.tobytes() == checkpoint.vector.tobytes()
        assert rounds.optimiser == checkpoint.optimiser
        assert nodes[-1].updates.inbox.marks == restored.marks


def test_no_journal_holds_a_key(recorded: tuple[Path, dict[str, Restored]]) -> None:
    folder, _ = recorded
    keys = [path.read_text().strip() for path in folder.parent.glob("bank-*/state/member.key")]
    assert len(keys) == 3
    for path in folder.iterdir():
        data = path.read_bytes()
        assert not [key for key in keys if key.encode() in data or bytes.fromhex(key) in data]
