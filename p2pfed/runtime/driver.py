"""The asyncio interpreter of a GossipNode: carries out its effects, in order, and hands it what happens as inputs.

One input at a time: while an effect's `Save` is on its way to the disk nothing else is decided, so nothing leaves the
node before it is durable. Network requests run beside that and come back as inputs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from p2pfed.core import wire
from p2pfed.core.aggregation import rule_problem
from p2pfed.core.consortium import Manifest, ManifestError, SignedManifest
from p2pfed.core.effects import (
    CloseTrainer,
    Effect,
    Emit,
    ExchangeHeartbeats,
    FetchManifest,
    Halt,
    KeepModel,
    OpenTrainer,
    Publish,
    Pull,
    Push,
    Save,
    SayHello,
    SetTimer,
    StartEvaluation,
    StartTraining,
    Withdraw,
)
from p2pfed.core.events import Event, ManifestFollowed
from p2pfed.core.inputs import (
    ExchangeFailed,
    HeartbeatsReceived,
    HelloReceived,
    Input,
    LoopLagged,
    ManifestChanged,
    Offended,
    PullEnded,
    Started,
    StopRequested,
    TimerFired,
    UpdateReceived,
)
from p2pfed.core.messages import Hello
from p2pfed.core.node import GossipNode
from p2pfed.core.succession import InForce, departed, verify_succession
from p2pfed.core.trust import trust_in
from p2pfed.core.types import NodeId
from p2pfed.errors import RemoteFault, Unavailable
from p2pfed.net.transport import Transport, Unreachable
from p2pfed.runtime.fetching import ManifestFetcher
from p2pfed.runtime.trainers import Trains
from p2pfed.store.base import Store

LARGE_MODEL = 200_000
"""Parameters above which a merge runs in a thread, so that the loop keeps answering."""
BACKLOG = 1000
"""Inputs waiting above which peers are told to come back later."""
LAG_PERIOD = 0.5
LAG_WORTH_TELLING = 0.25
LAGS_KEPT = 600
LAST_WORDS_SECONDS = 3.0
"""How long good-byes may take when stopping."""


class SteadyClock:
    """Unix seconds that never jump: the wall clock at the start, carried on by the monotonic clock."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Now, in Unix seconds."""
        return self._offset + time.monotonic()


class Driver:
    """Runs one node; also the PeerHandler that the listener answers with."""

    def __init__(
        self,
        node: GossipNode,
        chain: list[SignedManifest],
        store: Store,
        emit: Callable[[Event], None],
        keep_model: Callable[[KeepModel], Awaitable[None]],
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`chain` is every known signed manifest, the one in force last; `wall` the machine's clock, `clock` never
        falls. Both in Unix seconds.
        """
        self.node, self.clock, self.wall = node, clock, wall
        self.refusals: Counter[str] = Counter()
        """Who was turned away before being known as a member, by cause."""
        self._lags: deque[float] = deque([0.0], maxlen=LAGS_KEPT)
        self._signed = {s.manifest.version: s for s in chain}
        self.force = node.force
        """What the present trust follows from: the node's, or the one that it is about to be told of."""
        self._trust = self._trust_in(node.force)
        self._store, self._emit, self._keep_model = store, emit, keep_model
        self._shelf: dict[NodeId, tuple[int, bytes]] = {}
        self._queue: asyncio.Queue[tuple[Input, asyncio.Future[None] | None]] = asyncio.Queue()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._fetcher = ManifestFetcher(self, self._asked)
        self._halted = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_trust: Callable[[wire.Trust], None] = lambda trust: None
        """Called with each new trust: transport and listener follow the manifest."""
        self.transport: Transport
        self.trainers: Trains

    # --- running ------------------------------------------------------------------------------------------------------

    def put(self, given: Input) -> None:
        """Hand the node an input; from the event loop only."""
        self._queue.put_nowait((given, None))

    async def tell(self, given: Input) -> None:
        """Hand the node an input and wait until all that it makes of it is carried out, `Save` durable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((given, done))
        await done

    async def run(self) -> None:
        """Interpret until the node halts; raises what made it impossible to go on (a full disk, a bug)."""
        self.put(Started())
        tasks = [
            asyncio.create_task(self._interpret(), name="node"),
            asyncio.create_task(self._watch_lag(), name="loop lag"),
        ]
        try:
            await asyncio.wait([*tasks, self._failed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, *self._requests):
                task.cancel()
            for timer in self._timers.values():
                timer.cancel()
            results = await asyncio.gather(*tasks, *self._requests, return_exceptions=True)
            self._fetcher.close()
        for result in results:
            if isinstance(result, Exception):
                raise result
        if self._failed.done():
            self._failed.result()

    async def stop(self) -> None:
        """Ask the node to stop and wait for its last words."""
        self.put(StopRequested())
        await self._halted.wait()

    async def _interpret(self) -> None:
        while not self._halted.is_set():
            given, done = await self._queue.get()
            effects = await self._decide(given)
            if self.node.force is not self.force and self.node.manifest.version >= self._trust.manifest.version:
                self._use(self.node.force)
            for effect in effects:
                await self._carry_out(effect)
            if done is not None and not done.done():
                done.set_result(None)

    async def _decide(self, given: Input) -> list[Effect]:
        now, wall = self.clock(), self.wall()
        if self.node.rounds.vector.size > LARGE_MODEL and self.node.may_merge(given):
            return await asyncio.to_thread(self.node.handle, given, now, wall)
        return self.node.handle(given, now, wall)

    async def _watch_lag(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_PERIOD)
            lag = max(0.0, time.monotonic() - before - LAG_PERIOD)
            self._lags.append(lag)
            if lag > LAG_WORTH_TELLING:
                self.put(LoopLagged(lag))

    @property
    def loop_lag_p99(self) -> float:
        """99th percentile of how late the event loop was over the last minutes, in seconds."""
        ordered = sorted(self._lags)
        return ordered[int(0.99 * (len(ordered) - 1))]

    # --- effects ------------------------------------------------------------------------------------------------------

    async def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Save():
                await self._store.save(effect)
            case Publish(member, seq, frame):
                self._shelf[member] = (seq, frame)
            case Withdraw(member):
                self._shelf.pop(member, None)
            case OpenTrainer() | CloseTrainer() | StartTraining() | StartEvaluation():
                self._train(effect)
            case KeepModel():
                await self._keep_model(effect)
            case SetTimer(name, at):
                self._set_timer(name, at)
            case Emit(event):
                self._emit(event)
            case Halt():
                await self._finish_requests()
                self._halted.set()
            case _:
                self._request(self._REQUESTS[type(effect)](self, effect), type(effect).__name__)

    def _train(self, effect: OpenTrainer | CloseTrainer | StartTraining | StartEvaluation) -> None:
        match effect:
            case OpenTrainer(cycle, accept):
                self.trainers.open(cycle, accept)
            case CloseTrainer(cycle):
                self.trainers.close(cycle)
            case job:
                self.trainers.submit(job)

    def _set_timer(self, name: str, at: float) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        delay = max(0.0, at - self.clock())
        self._timers[name] = asyncio.get_running_loop().call_later(delay, self.put, TimerFired(name))

    def _request(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._requests.add(task)
        task.add_done_callback(self._request_ended)

    def _request_ended(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _finish_requests(self) -> None:
        if self._requests:
            await asyncio.wait(self._requests, timeout=LAST_WORDS_SECONDS)

    async def _pull(self, ask: Pull) -> None:
        try:
            update = await self.transport.pull(ask.peer, ask.addresses, ask.member, ask.after)
        except Unreachable as error:
            self._ask_why(ask.peer, error)
            self.put(PullEnded(ask.peer, ask.member, str(error)))
        except RemoteFault as fault:
            self.put(Offended(ask.peer, fault.reason, fault.detail, ask.member, fault.signer))
        else:
            self.put(UpdateReceived(update, ask.peer) if update else PullEnded(ask.peer, ask.member))

    async def _asked(self, peer: NodeId, answer: Awaitable[Input | None]) -> None:
        try:
            given = await answer
        except Unreachable as error:
            self._ask_why(peer, error)
            self.put(ExchangeFailed(peer, str(error)))
        except RemoteFault as fault:
            self.put(Offended(peer, fault.reason, fault.detail, signer=fault.signer))
        else:
            if given is not None:
                self.put(given)

    async def _push(self, offer: Push) -> None:
        await self._asked(offer.peer, self.transport.push(offer.peer, offer.addresses, offer.frame))

    async def _exchange(self, ask: ExchangeHeartbeats) -> None:
        async def answer() -> Input:
            table = await self.transport.exchange(ask.peer, ask.addresses, ask.table)
            return HeartbeatsReceived(table, ask.peer, answered=True)

        await self._asked(ask.peer, answer())

    async def _say_hello(self, ask: SayHello) -> None:
        async def answer() -> Input:
            asked = time.monotonic()
            hello = await self.transport.hello(ask.peer, ask.addresses)
            return HelloReceived(hello, time.monotonic() - asked)

        await self._asked(ask.peer, answer())

    async def _fetch_manifest(self, ask: FetchManifest) -> None:
        await self._fetcher.fetch(ask)

    def _ask_why(self, peer: NodeId, error: Unreachable) -> None:
        if ask := self._fetcher.why(peer, error):
            self._request(self._fetch_manifest(ask), FetchManifest.__name__)

    _REQUESTS: dict[type, Callable[[Driver, Any], Coroutine[Any, Any, None]]] = {
        Pull: _pull,
        Push: _push,
        ExchangeHeartbeats: _exchange,
        SayHello: _say_hello,
        FetchManifest: _fetch_manifest,
    }

    # --- the manifest -------------------------------------------------------------------------------------------------

    async def follow(self, successor: SignedManifest) -> ManifestChanged | None:
        """Verify and store a successor of the manifest in force, and trust by it; raises ManifestError, as of a merge
        rule whose code this process may not run.

        Nothing for one that is not newer.
        """
        current = self._signed[self._trust.manifest.version].manifest
        if successor.manifest.version <= current.version:
            return None
        manifest: Manifest = verify_succession(current, successor)
        if problem := rule_problem(manifest.gossip.rule):
            raise ManifestError(f"gossip: {problem}")
        await self._store.save_manifest(manifest.version, successor.to_bytes())
        self._signed[manifest.version] = successor
        signers = tuple(admin.name for admin in successor.signed_by(current.admins))
        self._emit(ManifestFollowed(current.version, manifest.version, successor.sha256, signers))
        self._use(self.node.force.followed(manifest))
        return ManifestChanged(manifest)

    def _use(self, force: InForce) -> None:
        self.force, self._trust = force, self._trust_in(force)
        self.on_trust(self._trust)

    def _trust_in(self, force: InForce) -> wire.Trust:
        versions = [signed.manifest for _, signed in sorted(self._signed.items())]
        previous = self._signed.get(force.manifest.version - 1)
        trust = trust_in(force, previous.manifest if previous else None)
        return replace(trust, departed=departed(versions, time.time()))

    # --- answering peers (net.transport.PeerHandler) ------------------------------------------------------------------

    def hello(self, asking: NodeId) -> Hello:
        """Our first words."""
        return self.node.hello(asking, self.wall())

    def update(self, asking: NodeId, member: NodeId, after: int) -> bytes | None:
        """The newest published frame of `member` above `after`."""
        seq, frame = self._shelf.get(member, (0, b""))
        return self.node.serve(asking, member, frame) if seq > after else None

    async def pushed(self, asking: NodeId, frame: bytes) -> None:
        """Take an offered update; returns when it is durable."""
        self._check_backlog()
        update = wire.open_update(frame, self._trust)
        await self.tell(UpdateReceived(update, asking, pushed=True))

    async def heartbeats(self, asking: NodeId, table: bytes) -> bytes:
        """Take a peer's table and answer ours."""
        self._check_backlog()
        received = wire.decode_table(table, self._trust, self.node.peers.known(), self.node.witness.holds)
        self.put(HeartbeatsReceived(received, asking, answered=False))
        return wire.encode_table(self.node.heartbeats(asking))

    def manifest(self, version: int) -> bytes | None:
        """The signed manifest of that version, if we have it."""
        signed = self._signed.get(version)
        return signed.file if signed else None

    def offended(self, peer: NodeId, fault: RemoteFault) -> None:
        """A member sent something that broke a rule."""
        self.put(Offended(peer, fault.reason, fault.detail, signer=fault.signer))

    def refused(self, cause: str, host: str) -> None:
        """Somebody was turned away at the door."""
        self.refusals[cause] += 1

    def trust(self) -> wire.Trust:
        """What statements are checked against now."""
        return self._trust

    def _check_backlog(self) -> None:
        if self._queue.qsize() > BACKLOG:
            raise Unavailable("this node is busy; try again later")
