"""What the admin API shows of a running daemon."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from p2pfed import __version__
from p2pfed.api.progress import LearningStatus
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
from p2pfed.api.summary import Summary
from p2pfed.core.evidence import encode_proof
from p2pfed.core.inputs import Pardoned, RefreshAsked
from p2pfed.core.messages import PROTOCOL_MAX, PROTOCOL_MIN
from p2pfed.core.reputation.peer_record import PeerRecord
from p2pfed.core.types import DAY, NodeId, PeerState
from p2pfed.errors import UsageError
from p2pfed.net.listener import Listener
from p2pfed.net.transport import Traffic
from p2pfed.runtime import learning
from p2pfed.runtime.alone import Alone
from p2pfed.runtime.books import Books
from p2pfed.runtime.driver import Driver
from p2pfed.runtime.enrolment import find_member
from p2pfed.runtime.supervise import Supervisor
from p2pfed.runtime.trainer_process import resident_bytes
from p2pfed.runtime.trainers import Trainers


class DaemonView:
    """Reads node, driver and trainer; implements api.view.NodeView."""

    def __init__(
        self,
        driver: Driver,
        trainers: Trainers,
        traffic: Traffic,
        summary: Summary,
        books: Books,
        alone: Alone,
        supervisor: Supervisor,
        state_dir: Path,
        rounds: int,
        on_stop: Callable[[], None],
        on_reload: Callable[[], list[str]],
        on_block: Callable[[NodeId, bool], str],
    ) -> None:
        self._driver, self._trainers, self._traffic, self._summary = driver, trainers, traffic, summary
        self._books, self._alone, self._supervisor = books, alone, supervisor
        self._state_dir, self._rounds = state_dir, rounds
        self._on_stop, self._on_reload, self._on_block = on_stop, on_reload, on_block
        self._started = time.monotonic()
        self.instance = ""
        self.listener: Listener | None = None
        self.peer_address: str | None = None
        self.admin_address: str | None = None
        self.serving = False

    def status(self) -> Status:
        """See NodeView."""
        node = self._driver.node
        return Status(
            version=__version__,
            protocol=ProtocolRange(min=PROTOCOL_MIN, max=PROTOCOL_MAX),
            node=NodeStatus(
                id=node.me,
                name=node.name_of(node.me),
                instance=self.instance,
                pid=os.getpid(),
                uptime_seconds=time.monotonic() - self._started,
                peer_address=self.peer_address,
                admin_address=self.admin_address,
            ),
            health="degraded" if self._summary.degraded else "ok",
            problems=self._summary.problems(node.name_of),
            consortium=self._consortium(),
            learning=self._learning(),
            self=self._process(),
        )

    def members(self) -> list[MemberRow]:
        """See NodeView."""
        node = self._driver.node
        members = sorted(node.members, key=node.name_of)
        return [self._own_row() if m == node.me else self._member_row(m) for m in members]

    def updates(self) -> list[UpdateRow]:
        """See NodeView."""
        node = self._driver.node
        others = sorted(node.peers.members, key=node.name_of)
        return self._summary.updates(others, node.name_of, self._driver.clock())

    def reputation(self, member: str) -> ReputationReply:
        """See NodeView."""
        node, peer = self._driver.node, self._other(member)
        why = asdict(node.reputation.explain(peer))
        return ReputationReply(
            name=node.name_of(peer),
            id=peer,
            blocked=node.peers.blocked(peer),
            judging=node.manifest.gossip.reputation,
            trust=node.reputation.trust(peer),
            score=why.pop("suspicion"),
            **why.pop("newest"),
            **why,
        )

    async def block(self, member: str, blocked: bool) -> str:
        """See NodeView."""
        return self._on_block(self._other(member), blocked)

    async def refresh(self, accept: bool) -> str:
        """See NodeView."""
        node = self._driver.node
        if node.manifest.calendar.free and "READING_REFUSED" not in node.problems:
            raise UsageError("without a calendar the payments are read once, at the start: restart the daemon")
        await self._driver.tell(RefreshAsked(accept))
        taken = "taken as they are" if accept else "taken unless they look wrong: then --accept takes them all the same"
        return f"the payments are being read anew, and {taken}; see `p2pfed data status`"

    async def pardon(self, member: str) -> str:
        """See NodeView."""
        node, peer = self._driver.node, self._other(member)
        before = node.reputation.peers.get(peer, PeerRecord())
        await self._driver.tell(Pardoned(peer))
        return f"{node.name_of(peer)} was {before.standing} with a score of {before.suspicion:.2f}; that is forgotten"

    def evidence(self) -> list[EvidenceRow]:
        """See NodeView."""
        node = self._driver.node
        return [
            EvidenceRow(
                proof=digest,
                member=proof.member,
                name=node.name_of(proof.member),
                seq=proof.seq,
                standing="cleared" if cleared else "proven",
                document=json.loads(encode_proof(proof)),
            )
            for digest, (proof, cleared) in node.witness.proofs.items()
        ]

    def ready(self) -> bool:
        """See NodeView."""
        return self.serving

    def stop(self) -> None:
        """See NodeView."""
        self._on_stop()

    def reload(self) -> list[str]:
        """See NodeView."""
        return self._on_reload()

    def _consortium(self) -> ConsortiumStatus:
        node = self._driver.node
        states = [node.peers.state(m) for m in node.peers.members]
        change = learning.coming(self._driver.force)
        return ConsortiumStatus(
            id=node.manifest.consortium,
            name=node.manifest.name,
            manifest_version=node.manifest.version,
            members=len(node.members),
            alive=states.count(PeerState.ALIVE) + 1,
            suspect=states.count(PeerState.SUSPECT),
            failed=states.count(PeerState.FAILED),
            quarantined=sum(node.reputation.quarantined(m) for m in node.peers.members),
            expires_in_days=(node.manifest.expires - self._driver.wall()) / DAY,
            coming=change and Change(**{**vars(change), "changes": list(change.changes)}),
        )

    def _learning(self) -> LearningStatus:
        rounds, summary = self._driver.node.rounds, self._summary
        loaded = self._trainers.loaded
        last = summary.last_update
        return LearningStatus(
            state=learning.state(rounds, summary.finished),
            round=rounds.round,
            rounds=self._rounds,
            **learning.calendar(rounds, self._driver.wall()),
            last_cycle=learning.last_cycle(rounds),
            serves=learning.serving(rounds),
            gain=learning.gain(self._alone.gain),
            data=learning.data(rounds, loaded, summary.read, self._driver.wall(), self._books.reading),
            served_days=learning.served_days(self._books.days),
            seq=rounds.seq,
            train_rows=loaded.train_rows if loaded else None,
            train_frauds=loaded.train_frauds if loaded else None,
            loss=summary.round.loss if summary.round else None,
            threshold=rounds.threshold,
            metrics=summary.metrics,
            last_update_seconds_ago=None if last is None else self._driver.clock() - last,
            accepted_total=summary.accepted,
            merged_total=summary.merged,
            rejected_total=summary.rejected,
        )

    def _process(self) -> SelfStatus:
        trainers = self._trainers
        return SelfStatus(
            loop_lag_p99_seconds=self._driver.loop_lag_p99,
            disk_free_bytes=shutil.disk_usage(self._state_dir).free,
            rss_bytes=resident_bytes(os.getpid()),
            peak_rss_bytes=peak_resident_bytes(),
            bytes_sent=self._traffic.sent.total(),
            bytes_received=self._traffic.received.total(),
            connections=self.listener.connections if self.listener else 0,
            refused=dict(self._driver.refusals),
            task_restarts=dict(self._supervisor.restarts),
            trainer=TrainerStatus(
                state=trainers.state.value,
                pid=trainers.pid,
                restarts=trainers.restarts,
                rss_bytes=trainers.rss or None,
            ),
        )

    def _other(self, member: str) -> NodeId:
        """Another member by its name or id; raises UsageError."""
        node = self._driver.node
        peer = find_member(member, node.manifest)
        if peer is None or peer == node.me:
            what = "is this node itself" if peer else "is not a member"
            raise UsageError(f"{member!r} {what}; `p2pfed members` lists the members")
        return peer

    def _own_row(self) -> MemberRow:
        node = self._driver.node
        heartbeat = node.presence.row.heartbeat
        return MemberRow(
            name=node.name_of(node.me),
            id=node.me,
            status="alive",
            address=heartbeat.endpoints[0] if heartbeat.endpoints else None,
            seen_seconds=0.0,
            rtt_ms=None,
            manifest=node.manifest.version,
            version=__version__,
            proto=PROTOCOL_MAX,
            age=node.rounds.round,
            standing=None,
            score=None,
            trust=None,
            note="this node",
        )

    def _member_row(self, member: NodeId) -> MemberRow:
        node, now = self._driver.node, self._driver.clock()
        heartbeat, heard = node.peers.heartbeat(member), node.peers.last_heard(member)
        addresses = node.peers.endpoints(member)
        round_trip = self._traffic.round_trips.get(member)
        record = node.reputation.peers.get(member, PeerRecord())
        return MemberRow(
            name=node.name_of(member),
            id=member,
            status="blocked" if node.peers.blocked(member) else node.peers.state(member).value,
            address=str(addresses[0]) if addresses else None,
            seen_seconds=None if heard is None else max(0.0, now - heard),
            rtt_ms=None if round_trip is None else 1000 * round_trip,
            manifest=heartbeat.manifest_version if heartbeat else None,
            version=heartbeat.software if heartbeat else None,
            proto=heartbeat.protocol_max if heartbeat else None,
            age=node.updates.age(member),
            standing=record.standing,
            score=record.suspicion,
            trust=node.reputation.trust(member),
            note=self._note(member),
        )

    def _note(self, member: NodeId) -> str:
        node = self._driver.node
        heartbeat = node.peers.heartbeat(member)
        notes = []
        if heartbeat and heartbeat.manifest_version < node.manifest.version:
            notes.append(f"behind: manifest {heartbeat.manifest_version}")
        if heartbeat and not (heartbeat.protocol_min <= PROTOCOL_MAX and heartbeat.protocol_max >= PROTOCOL_MIN):
            notes.append(f"speaks protocol {heartbeat.protocol_min}-{heartbeat.protocol_max}, not ours")
        if node.peers.benched(member, self._driver.clock()):
            notes.append("does not answer")
        if not node.peers.endpoints(member):
            notes.append("only dials out")
        return "; ".join(notes)


def peak_resident_bytes() -> int:
    """The most memory this process ever held; 0 where /proc does not tell.

    Not `getrusage`: there the process that forked this one counts too.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0
