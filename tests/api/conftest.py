"""A running admin API over a made-up node."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from p2pfed.api.app import AdminServer
from p2pfed.api.metrics import NodeMetrics
from p2pfed.api.progress import CycleRow, DataStatus, Gain, LastCycle, LearningStatus, ServedRow, Serving
from p2pfed.api.schemas import (
    Change,
    ConsortiumStatus,
    EvidenceRow,
    MemberRow,
    NodeStatus,
    ProtocolRange,
    ReputationReply,
    SelfStatus,
    Status,
    TrainerStatus,
    UpdateRow,
)
from p2pfed.api.stream import EventLog
from p2pfed.api.summary import Summary
from p2pfed.core.events import Source
from p2pfed.core.types import Address, NodeId
from p2pfed.errors import ConfigError, UsageError
from p2pfed.store.base import MemoryStore

NAMES = {NodeId("A" * 56): "bank-a", NodeId("B" * 56): "bank-b"}
TOKEN = "a token of this test"


def source(member: NodeId) -> Source:
    """A model that a merge took."""
    return Source(member, 7, "ab" * 32, 0.25, 1.0, 0.5, 1.0, 0.0, -0.5, 600)


def name_of(node: NodeId) -> str:
    return NAMES.get(node, node[:7])


class FakeNode:
    """A NodeView whose answers the test sets."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary
        self.is_ready = True
        self.stopped = 0
        self.reload_fails = False
        self.told: list[tuple[str, str]] = []
        self.calendar: dict[str, Any] = {
            "state": "resting",
            "cycle": 4,
            "round_of_cycle": 0,
            "rounds_of_cycle": 40,
            "next_begins": 1_800_000_000.0,
            "next_cycles": [CycleRow(cycle=5 + i, begins=1_800_000_000.0 + 86_400 * i) for i in range(3)],
            "last_cycle": LastCycle(cycle=4, trained=39, ended=1_799_914_000.0),
            "serves": Serving(cycle=3, round=40, auprc=0.75, since=1_799_000_000.0),
        }
        self.data = DataStatus(
            rows=1000, frauds=7, immature=50, newest_payment=1_799_900_000.0, read_at=1_799_910_000.0,
            read_seconds=12.25, next_reading=None,
        )  # fmt: skip
        self.coming: Change | None = None
        self.gain: Gain | None = None
        self.served_days: list[ServedRow] = []
        self.proofs: list[EvidenceRow] = []

    def status(self) -> Status:
        s = self.summary
        return Status(
            version="1.2.3",
            protocol=ProtocolRange(min=1, max=1),
            node=NodeStatus(
                id="A" * 56,
                name="bank-a",
                instance="00" * 16,
                pid=1,
                uptime_seconds=12.5,
                peer_address="127.0.0.1:7443",
                admin_address=None,
            ),
            health="degraded" if s.degraded else "ok",
            problems=s.problems(name_of),
            consortium=ConsortiumStatus(
                id="11" * 16,
                name="test",
                manifest_version=3,
                members=2,
                alive=1,
                suspect=0,
                failed=1,
                quarantined=1,
                expires_in_days=9.0,
                coming=self.coming,
            ),
            learning=LearningStatus(
                **self.calendar,
                gain=self.gain,
                data=self.data,
                served_days=self.served_days,
                round=s.round.round if s.round else 0,
                rounds=0,
                seq=0,
                train_rows=100,
                train_frauds=7,
                loss=None,
                threshold=None,
                metrics=s.metrics,
                last_update_seconds_ago=None,
                accepted_total=s.accepted,
                merged_total=s.merged,
                rejected_total=s.rejected,
            ),
            self=SelfStatus(
                loop_lag_p99_seconds=0.004,
                disk_free_bytes=10**9,
                rss_bytes=50_000_000,
                peak_rss_bytes=60_000_000,
                bytes_sent=1234,
                bytes_received=5678,
                connections=2,
                refused={"no_certificate": 3},
                task_restarts={},
                trainer=TrainerStatus(state="running", pid=2, restarts=0, rss_bytes=None),
            ),
        )

    def members(self) -> list[MemberRow]:
        common = {"rtt_ms": None, "manifest": 3, "version": "1.2.3", "proto": 1, "age": 4}
        standings = {"bank-a": (None, None, None), "bank-b": ("quarantined", 4.5, 0.0)}
        thought = {name: dict(zip(("standing", "score", "trust"), of, strict=True)) for name, of in standings.items()}
        return [
            MemberRow(
                name=name, id=node, status="alive", address=None, seen_seconds=1.5, note="", **common, **thought[name]
            )
            for node, name in NAMES.items()
        ]

    def evidence(self) -> list[EvidenceRow]:
        return self.proofs

    def reputation(self, member: str) -> ReputationReply:
        self._known(member)
        return ReputationReply(
            **dict(name="bank-b", id="B" * 56, blocked=False, judging=True, standing="quarantined", trust=0.0),
            **dict(score=4.5, suspect_at=2.0, quarantine_at=4.0, models=4.5, bursts=2.0, faults=0.25, evidence=1.0),
            **dict(
                distance=40.0,
                distance_fine=8.0,
                disagreement=2.0,
                disagreement_fine=5.0,
                recognition=0.125,
                excess=2.5,
                excess_fine=3.0,
            ),
            **dict(agreement=0.25, recognition_fine=0.1, idle=0, idle_at=3, looks=14, strikes=1, clean=3),
            **dict(release_after=10, clean_takes=0.5, clean_needed=None, doubtful=False),
        )

    async def block(self, member: str, blocked: bool) -> str:
        self._known(member)
        self.told.append(("block" if blocked else "unblock", member))
        return f"{member} is blocked from now on" if blocked else f"{member} is no longer blocked"

    async def refresh(self, accept: bool) -> str:
        self.told.append(("refresh", str(accept)))
        return "the payments are being read anew"

    async def pardon(self, member: str) -> str:
        self._known(member)
        self.told.append(("pardon", member))
        return f"{member} was quarantined"

    def _known(self, member: str) -> None:
        if member != "bank-b":
            raise UsageError(f"{member!r} is not a member; `p2pfed members` lists the members")

    def updates(self) -> list[UpdateRow]:
        return self.summary.updates([n for n in NAMES if NAMES[n] != "bank-a"], name_of, now=2000.0)

    def ready(self) -> bool:
        return self.is_ready

    def stop(self) -> None:
        self.stopped += 1

    def reload(self) -> list[str]:
        if self.reload_fails:
            raise ConfigError("node.yaml:3:1: unknown key 'lisen'")
        return ["log.level is debug now"]


class Admin:
    """The server, its parts, and clients of both listeners."""

    def __init__(self, folder: Path, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.summary = Summary()
        self.metrics = NodeMetrics("1.2.3", name_of)
        self.log = EventLog(self.store, time.time, name_of, [self.summary.observe, self.metrics.observe])
        self.node = FakeNode(self.summary)
        self.refusals: list[str] = []
        self.socket_path = folder / "admin.sock"
        self.server = AdminServer(
            self.node,
            self.log,
            self.metrics,
            socket_path=self.socket_path,
            listen=Address("127.0.0.1", 0),
            hosts=["node.bank.example"],
            token=TOKEN,
            version="1.2.3",
            refused=lambda cause, host: self.refusals.append(cause),
        )

    async def start(self) -> None:
        await self.server.start()
        self.tcp = aiohttp.ClientSession(f"http://{self.server.address}")
        self.unix = aiohttp.ClientSession("http://p2pfed", connector=aiohttp.UnixConnector(str(self.socket_path)))

    async def stop(self) -> None:
        await self.tcp.close()
        await self.unix.close()
        await self.server.stop()
        await self.log.flush()


@pytest.fixture
async def admin(tmp_path):
    running = Admin(tmp_path)
    await running.start()
    yield running
    await running.stop()
