"""Whole daemons in one process on loopback, with the numpy learner: cycles, rest, and a start while others rest."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from p2pfed import __version__
from p2pfed.api.schemas import Status
from p2pfed.config import NodeConfig
from p2pfed.core.consortium import Admin, Manifest, Member
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.identity import Identity
from p2pfed.core.succession import earliest_change
from p2pfed.core.types import DAY
from p2pfed.learning.bundle import ModelBundle
from p2pfed.net import tls
from p2pfed.runtime import daemon as module
from p2pfed.runtime.addresses import bindable
from p2pfed.runtime.daemon import Daemon
from p2pfed.runtime.enrolment import make_keys
from p2pfed.runtime.lineage import place
from p2pfed.runtime.trainers import Trainers
from p2pfed.store.credentials import admin_token
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir
from tests.consortia import next_version, sign
from tests.runtime.bank import config, manifest, write_bank

pytestmark = [pytest.mark.network, pytest.mark.e2e, pytest.mark.slow]

ROUNDS, ROUND_SECONDS, EVERY = 4, 2.0, 300
LENGTH = 8
"""Seconds of a cycle."""


@dataclass
class Bank:
    """One bank's folder and configuration."""

    config: NodeConfig
    state: StateDir

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Daemon]:
        """Its daemon, started and stopped."""
        store = SqliteStore(self.state)
        daemon = Daemon(self.config, self.state, store, None)
        task = asyncio.create_task(daemon.run())
        try:
            while not hasattr(daemon, "_view") or not daemon._view.serving:
                await asyncio.sleep(0.02)
                if task.done():
                    task.result()
            yield daemon
        finally:
            daemon._begin_stop()
            await asyncio.wait_for(task, 60)
            store.close()
            assert daemon._trainers.pid is None


def status(daemon: Daemon) -> Status:
    return daemon._view.status()


async def until(done: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.05)


@pytest.fixture
def banks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Bank]:
    """Three banks that have joined; their first cycle begins in eight seconds."""
    monkeypatch.setattr(module, "Trainers", functools.partial(Trainers, learner="numpy"))
    found, members = [], []
    for seed, name in enumerate(("bank-a", "bank-b", "bank-c")):
        folder = tmp_path / name
        state = StateDir(folder / "state")
        folder.mkdir()
        write_bank(folder, seed)
        identity, _ = make_keys(state.create(), name, 0.0)
        admin_token(state)
        certificate = base64.b64encode(tls.certificate_of(state.tls)).decode()
        members.append(Member(name, identity.public_key.hex(), (certificate,), ()))
        port = bindable("127.0.0.1:0")
        settings = config(folder).model_dump(mode="json") | {
            "node": {"name": name, "state_dir": str(state.root)},
            "peers": {"listen": str(port)},
            "admin": {"listen": None},
        }
        found.append((settings, state))
    endpoints = [settings["peers"]["listen"] for settings, _ in found]
    agreed = agreement(members, endpoints)
    for _, state in found:
        state.save_manifest(1, sign(agreed, ADMIN).to_bytes())
    return [Bank(NodeConfig.model_validate(settings), state) for settings, state in found]


ADMIN = Identity.from_seed(bytes([200]) * 32)


def agreement(members: list[Member], endpoints: list[str]) -> Manifest:
    """Two cycles, and the next one only after minutes: nobody reads its payments yet while the test looks."""
    first = manifest()
    now = int(time.time())
    skipped = tuple(range(now + 8 + 2 * LENGTH, now + 8 + EVERY - LENGTH + 1, LENGTH))
    calendar = Calendar(now + 8, EVERY, ROUNDS, ROUND_SECONDS, skipped=skipped)
    return replace(
        first,
        consortium="c0" * 16,
        issued=now - 10,
        expires=now + 365 * DAY,
        generation=1,
        admins=(Admin("alice", ADMIN.public_key.hex()),),
        members=tuple(replace(m, endpoints=(e,)) for m, e in zip(members, endpoints, strict=True)),
        gossip=replace(first.gossip, heartbeat_seconds=0.5, adoption_seconds=10.0),
        calendar=calendar,
    )


async def test_three_banks_train_two_cycles_rest_and_go_on_from_what_serves(banks: list[Bank]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        daemons = [await stack.enter_async_context(bank.running()) for bank in banks]
        assert [status(d).learning.state for d in daemons] == ["waiting"] * 3
        await until(lambda: all(status(d).learning.state == "resting" for d in daemons), 60)
        await until(lambda: all(status(d).self.trainer.state == "stopped" for d in daemons), 30)
        gains, last = [], status(daemons[0]).learning.last_cycle
        for bank, daemon in zip(banks, daemons, strict=True):
            said = status(daemon)
            assert said.health == "ok" and said.consortium.quarantined == 0
            assert said.learning.merged_total > 0 and said.learning.last_cycle is not None
            assert (said.learning.cycle, said.learning.last_cycle.cycle) == (1, 1)
            assert said.learning.next_begins == said.learning.next_cycles[0].begins > time.time() + 30
            served = said.learning.serves
            assert served is not None
            bundle = ModelBundle.from_bytes(bank.state.model.read_bytes())
            assert place(bundle) == (served.cycle, served.round)
            version = bank.state.models / f"{served.cycle:06d}-{bundle.lineage['number']:06d}.p2pfed"
            assert version.read_bytes() == bank.state.model.read_bytes()
            gain = said.learning.gain
            assert gain is not None and gain.auprc == gain.serves - gain.alone and 0 < gain.rounds <= 2 * ROUNDS
            gains.append(gain)
            assert said.learning.data.rows == json.loads(bank.state.reading.read_bytes())["rows"] == 600
    # a start while the others would rest too: no child, and the same model serves
    async with banks[0].running() as daemon:
        await asyncio.sleep(1.0)
        said, gate = status(daemon), daemon._node.rounds.gate
        assert said.learning.gain == gains[0]
        assert said.learning.data.rows == 600 and said.learning.data.read_at is not None, "of the life before"
        assert said.learning.last_cycle == last
        assert (said.learning.state, said.self.trainer.state) == ("resting", "stopped")
        bundle = ModelBundle.from_bytes(banks[0].state.model.read_bytes())
        assert gate.champion is not None and np.array_equal(gate.champion.vector, bundle.vector)
        # the admins change the merge rule: told at once, and what status says until its cycle
        old, issued = daemon._node.manifest, int(time.time())
        gossip = replace(old.gossip, rule="median")
        new = next_version(old, gossip=gossip, issued=issued, from_cycle=earliest_change(old, issued))
        banks[0].state.save_manifest(2, sign(new, ADMIN).to_bytes())
        assert status(daemon).consortium.coming is None
        await daemon._take_over_manifests()
        await until(lambda: status(daemon).consortium.coming is not None, 20)
        change = status(daemon).consortium.coming
        assert change is not None and (change.version, change.changes) == (2, ["the merge rule"])
        assert change.begins == old.calendar.begins(change.cycle) > issued + EVERY
        await daemon._events.flush()
        history = [(e.kind, json.loads(e.json)) for e in await daemon._store.events(0, 10_000)]
        kept = [fields["sha256"] for kind, fields in history if kind == "model_kept"]
        assert kept[-1] == bundle.weights_sha256
        assert [fields["version"] for kind, fields in history if kind == "software_started"] == [__version__] * 2
        (followed,) = [fields for kind, fields in history if kind == "manifest_followed"]
        assert (followed["before"], followed["after"], len(followed["signers"])) == (1, 2, 1)
        told = [event for event in await daemon._store.events(0, 10_000) if event.kind == "change_coming"]
        assert len(told) == 1 and json.loads(told[0].json)["cycle"] == change.cycle
