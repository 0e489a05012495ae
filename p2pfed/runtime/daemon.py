"""The composition root: everything a bank's daemon is made of, its order of starting and stopping, its signals."""

from __future__ import annotations

import asyncio
import faulthandler
import hashlib
import secrets
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial

from p2pfed import __version__, logs
from p2pfed.api.app import AdminServer
from p2pfed.api.metrics import NodeMetrics
from p2pfed.api.stream import EventLog
from p2pfed.api.summary import Summary
from p2pfed.config import NodeConfig
from p2pfed.core import wire
from p2pfed.core.consortium import ManifestError, parse_signed
from p2pfed.core.effects import KeepModel
from p2pfed.core.events import ModelKept, SoftwareStarted
from p2pfed.core.identity import Signer
from p2pfed.core.inputs import BlocklistChanged, EndpointFound, StopRequested, TroubleSeen
from p2pfed.core.messages import Endpoint
from p2pfed.core.node import GossipNode
from p2pfed.core.settings import NodeSettings
from p2pfed.core.succession import in_force, last_trained
from p2pfed.core.types import Address, NodeId
from p2pfed.data import report
from p2pfed.errors import ConfigError, LocalFault, NotPermitted
from p2pfed.net import tls
from p2pfed.net.client import HttpTransport
from p2pfed.net.discovery import Discovery, SeedDiscovery
from p2pfed.net.listener import Listener
from p2pfed.net.transport import Traffic
from p2pfed.runtime import diskwatch, learning, systemd
from p2pfed.runtime.addresses import bindable, own_endpoints, places_of
from p2pfed.runtime.alone import Alone
from p2pfed.runtime.blocklist import Blocklist
from p2pfed.runtime.books import Books
from p2pfed.runtime.driver import Driver, SteadyClock
from p2pfed.runtime.enrolment import blocked_ids, check_code, check_member, check_rounds, trusted_chain
from p2pfed.runtime.eventlines import EventLines
from p2pfed.runtime.lineage import bundle_of
from p2pfed.runtime.recall import recall
from p2pfed.runtime.recording import Birth, born
from p2pfed.runtime.supervise import Supervisor
from p2pfed.runtime.trainer import Loaded
from p2pfed.runtime.trainers import Trainers
from p2pfed.runtime.versions import LEAST_DAYS, Versions
from p2pfed.runtime.view import DaemonView
from p2pfed.store.credentials import admin_token, load_member_key
from p2pfed.store.descriptors import patiently
from p2pfed.store.history import Retention
from p2pfed.store.lock import StateLock
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir, write_atomically

LAST_SECONDS = 5.0
"""How long the history may take to store its last events, once all else has stopped."""

MakesNode = Callable[[Signer, Birth], GossipNode]
"""Makes a node of what `born` makes one of."""


def run(config: NodeConfig, reread: Callable[[], NodeConfig] | None = None, make: MakesNode | None = None) -> int:
    """Run one bank's node until it is told to stop; returns the exit code, raises LocalFault with its own.

    `reread` reads the configuration again on SIGHUP. `make` makes another node than a bank's own, for attackers of
    experiments: no command of `p2pfed` gives one.
    """
    faulthandler.enable()
    tls.bound_buffers()
    logs.setup(config.log.level, config.log.format)
    state = StateDir(config.node.state_dir).create()
    with StateLock(state, __version__, time.time()):
        shutil.rmtree(state.temporary, ignore_errors=True)  # what trainers that were killed have left there
        state.sweep()
        audit = config.audit
        store = SqliteStore(state, Retention(audit.keep_days, audit.keep_traffic_days, audit.max_bytes))
        try:
            asyncio.run(Daemon(config, state, store, reread, make).run())
        finally:
            store.close()
    return 0


class Daemon:
    """One node with all its parts."""

    def __init__(
        self,
        config: NodeConfig,
        state: StateDir,
        store: SqliteStore,
        reread: Callable[[], NodeConfig] | None,
        make: MakesNode | None = None,
    ) -> None:
        self._config, self._state, self._store, self._reread = config, state, store, reread
        self._log = logs.for_node(config.node.name)
        self._signer = load_member_key(state)
        self._chain = trusted_chain(state)
        if not self._chain:
            raise NotPermitted(
                f"{state.root} holds no manifest: join a consortium first, with "
                "`p2pfed join --manifest FILE --fingerprint F` as its admins tell you"
            )
        manifest = self._chain[-1].manifest
        store.following(manifest.version)
        check_member(manifest, self._signer, config, state)
        check_rounds(manifest, config)
        self._token = admin_token(state)
        self._listen = bindable(config.peers.listen)
        own = manifest.by_id[self._signer.node_id]
        self._blocklist = Blocklist(state, blocked_ids(config.peers.blocklist, manifest))
        settings = NodeSettings(
            rounds=config.learning.rounds or 0,
            evaluate_every=config.learning.evaluate_every,
            endpoints=own_endpoints(config, self._listen, own),
            software=__version__,
            blocked=self._blocklist.members,
        )
        days = config.data.label_maturity_days + (config.data.window_days or LEAST_DAYS)
        self._versions = Versions(state, self._log, days)
        versions, restored, wall = [s.manifest for s in self._chain], store.restore(), time.time()
        force = in_force(versions, wall, restored.checkpoint.model if restored.checkpoint else "")
        check_code(force)
        # of free-running nodes the newest model serves, and nothing is compared with it
        kept = (None, ()) if manifest.calendar.free else self._versions.recall()
        memory = recall(restored, self._chain, *kept, force)
        chain = tuple(self._chain[last_trained(versions) :])
        birth = Birth(chain, settings, memory, secrets.randbits(128), wall)
        if make is None:
            self._node, self._recording = born(birth, self._signer, config.node, self._log)
        else:
            self._node, self._recording = make(self._signer, birth), None
        self._discoveries: list[Discovery] = []
        self._change = learning.coming(self._node.force)

    async def run(self) -> None:
        """Start everything, serve until stopped, stop everything."""
        config, node = self._config, self._node
        clock, summary, traffic = SteadyClock(), Summary(), Traffic()
        self._supervisor = Supervisor(self._log)
        self._books = books = Books(self._state, self._log, self._supervisor.start)
        metrics = NodeMetrics(__version__, node.name_of)
        observers = summary.observe, metrics.observe, EventLines(self._log, node.name_of).observe, books.observe
        self._events = EventLog(self._store, clock, node.name_of, observers)
        self._store.on_locked = diskwatch.locked(self._events.emit)
        self._driver = driver = Driver(node, self._chain, self._store, self._events.emit, self._keep_model, clock)
        alone = Alone(self._state.alone, self._log, self._events.emit, lambda: driver.node.rounds.gate.champion)
        self._trainers = driver.trainers = trainers = self._make_trainers(alone)
        self._view = DaemonView(
            driver, trainers, traffic, summary, books, alone, self._supervisor, self._state.root,
            config.learning.rounds or 0, self._begin_stop, self._reload, self._block,
        )  # fmt: skip
        self._events.emit(SoftwareStarted(__version__, hashlib.sha256(config.model_dump_json().encode()).hexdigest()))
        self._view.instance = self._store.restore().instance
        self._listener = Listener(driver, self._state.tls, traffic, self._blocklist.members) if self._listen else None
        self._places = places_of(config, self._listen)
        transport = driver.transport = HttpTransport(
            self._state.tls, driver.trust(), traffic, self._blocklist.members, self._places
        )
        driver.on_trust = self._follow
        admin = self._make_admin(metrics)
        try:
            await self._open(admin)
            await self._discover()
            await self._serve(driver, trainers)
        finally:
            systemd.notify("STOPPING=1")
            self._view.serving = False
            for discovery in self._discoveries:
                await discovery.close()
            if self._listener:
                await self._listener.close()
            await trainers.stop()
            await self._supervisor.stop()
            await admin.stop()
            await transport.close()
            if self._recording:
                await self._recording.close(node)
            await self._store_the_last()

    async def _store_the_last(self) -> None:
        """Store what the history lacks, for seconds at most: what ends the daemon, and how it is told, matters more."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self._events.flush()
        except (LocalFault, TimeoutError) as error:
            self._log.error("the last events could not be stored: %s", str(error) or "the disk or its lock is too slow")

    def _make_admin(self, metrics: NodeMetrics) -> AdminServer:
        config, driver = self._config, self._driver
        return AdminServer(
            self._view,
            self._events,
            metrics,
            socket_path=self._state.admin_socket,
            listen=Address.parse(config.admin.listen) if config.admin.listen else None,
            hosts=config.admin.hosts,
            token=self._token,
            version=__version__,
            refused=driver.refused,
        )

    def _make_trainers(self, alone: Alone) -> Trainers:
        manifest, books = self._node.manifest, self._books
        trainers = Trainers(
            self._config, manifest, self._driver.put, self._tell_rows,
            last_reading=books.reading, counted_until=lambda: books.counted_until, serves=self._state.model.exists(),
            alone=None if manifest.calendar.free else alone,
        )  # fmt: skip
        trainers.use(manifest, self._node.force.coming)
        return trainers

    async def _open(self, admin: AdminServer) -> None:
        await admin.start()
        self._view.admin_address = str(admin.address) if admin.address else None
        self._places.ports |= {admin.address.port} if admin.address else set()
        if self._listener and self._listen:
            self._view.peer_address = str(await self._listener.start(self._listen))
            self._view.listener = self._listener
        self._view.serving = True
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as a script's Ctrl-C is by its background jobs
                loop.add_signal_handler(number, self._begin_stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        faulthandler.register(signal.SIGUSR1)
        self._supervisor.start("history", self._events.run)
        if self._recording:
            self._supervisor.start("journal", self._recording.run)
        self._supervisor.start("disk", self._watch_disk)
        if (period := systemd.watchdog_seconds()) is not None:
            self._supervisor.start("watchdog", lambda: self._pet_watchdog(period))
        self._log.info(
            "listening on %s, admin on %s", self._view.peer_address or "nothing: this bank only dials out",
            self._view.admin_address or self._state.admin_socket,
        )  # fmt: skip
        systemd.notify("READY=1")

    async def _watch_disk(self) -> None:
        def checkpoint_bytes() -> int:
            rounds = self._node.rounds
            return rounds.vector.nbytes + len(rounds.optimiser) + len(rounds.frame)

        await diskwatch.watch(self._state.root, checkpoint_bytes, self._driver.put)

    async def _discover(self) -> None:
        """Begin to look for addresses, as configured."""
        await self._ask_seeds()
        if self._config.peers.zeroconf:
            # imported only here: most banks' servers never multicast, and it costs memory
            from p2pfed.net.lan import ZeroconfDiscovery

            node = self._driver.node
            lan = ZeroconfDiscovery(node.me, self._listen, node.peers.members, self._driver.put)
            self._discoveries.append(lan)
            await lan.start(self._found)

    async def _ask_seeds(self) -> None:
        """Ask the configured seeds who they are, in place of those configured before."""
        for asking in [d for d in self._discoveries if isinstance(d, SeedDiscovery)]:
            self._discoveries.remove(asking)
            await asking.close()
        addresses = [Address.parse(s) for s in self._config.peers.seeds]
        self._places.allow(addresses)
        seeds = SeedDiscovery(self._driver.node.me, addresses, self._driver.transport)
        self._discoveries.append(seeds)
        await seeds.start(self._found)

    def _found(self, member: NodeId, endpoint: Endpoint) -> None:
        self._driver.put(EndpointFound(member, endpoint))

    async def _serve(self, driver: Driver, trainers: Trainers) -> None:
        interpreting = asyncio.create_task(driver.run(), name="driver")
        training = asyncio.create_task(trainers.wait(), name="trainers")
        await asyncio.wait([interpreting, training], return_when=asyncio.FIRST_COMPLETED)
        if not interpreting.done():
            # the bank's rows cannot be loaded: nothing to train on, but the others are told good-bye
            await driver.stop()
        training.cancel()
        results = await asyncio.gather(interpreting, training, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _pet_watchdog(self, period: float) -> None:
        while True:
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(period)

    def _tell_rows(self, loaded: Loaded) -> None:
        self._log.info("the trainer is ready: %s", report.one_line(loaded.report))
        self._books.take(loaded)

    async def _keep_model(self, keep: KeepModel) -> None:
        """Write the model that `p2pfed score` uses."""
        model, node = keep.model, self._driver.node
        scaler = self._trainers.scaler(model.cycle)
        if scaler is None:
            return
        bundle = bundle_of(model, scaler, node.manifest, node.me)
        if node.manifest.calendar.free:
            write = partial(write_atomically, self._state.model, bundle.to_bytes())
        else:
            write = partial(self._versions.keep, bundle, keep)
        await patiently(lambda: asyncio.to_thread(write))
        self._events.emit(ModelKept(model.round, model.cycle, bundle.weights_sha256, model.threshold))

    # --- stopping and reloading ---------------------------------------------------------------------------------------

    def _begin_stop(self) -> None:
        if not self._view.serving:
            raise SystemExit(1)  # asked a second time: the operator does not want to wait for good-byes
        self._log.info("stopping")
        self._view.serving = False
        self._driver.put(StopRequested())

    def _hang_up(self) -> None:
        try:
            for line in self._reload():
                self._log.info("reload: %s", line)
        except ConfigError as error:
            self._log.error("the configuration was not reloaded, the old one stays: %s", error)

    def _reload(self) -> list[str]:
        if self._reread is None:
            return []
        new, old = self._reread(), self._config
        changes = []
        blocked = blocked_ids(new.peers.blocklist, self._driver.node.manifest)
        if new.log != old.log:
            logs.setup(new.log.level, new.log.format)
            changes.append(f"log level is {new.log.level}")
        if blocked != self._blocklist.configured:
            self._blocklist.configured = blocked
            self._use_blocklist()
            changes.append(f"{len(self._blocklist.members)} members blocked")
        live = {"log": new.log, "peers": old.peers.model_copy(update=_live_peers(new))}
        self._config = old.model_copy(update=live)
        if new.peers.seeds != old.peers.seeds:
            self._supervisor.start("new seeds", self._ask_seeds)
            changes.append(f"{len(new.peers.seeds)} seeds are asked")
        if self._config != new:
            changes.append("other keys changed too; they need a restart")
        self._supervisor.start("manifest files", self._take_over_manifests)
        return changes or ["nothing changed"]

    def _block(self, member: NodeId, blocked: bool) -> str:
        """Have nothing to do with `member`, or again, as the operator says; durable on return."""
        name, before = self._node.name_of(member), self._blocklist.members
        self._blocklist.block(member, blocked)
        if not blocked and member in self._blocklist.members:
            raise ConfigError(f"{name} is blocked by peers.blocklist: take it out of the configuration, then reload")
        if self._blocklist.members == before:
            return f"{name} was {'blocked' if blocked else 'not blocked'} already"
        self._use_blocklist()
        return f"{name} is blocked from now on" if blocked else f"{name} is no longer blocked"

    def _use_blocklist(self) -> None:
        self._follow(self._driver.trust())
        self._driver.put(BlocklistChanged(self._blocklist.members))

    async def _take_over_manifests(self) -> None:
        """Follow manifests that `p2pfed join` has put into the state directory meanwhile."""
        try:
            for data in self._state.manifests().values():
                changed = await self._driver.follow(parse_signed(data))
                if changed is not None:
                    self._driver.put(changed)
        except (ManifestError, NotPermitted) as error:
            hint = f"store manifests with `p2pfed join`, and remove what was put into {self._state.root} by hand"
            self._driver.put(TroubleSeen("MANIFEST_REFUSED", f"a manifest in the state directory: {error}", hint))

    def _follow(self, trust: wire.Trust) -> None:
        self._driver.transport.use(trust, self._blocklist.members)
        if self._listener:
            self._listener.use(trust, self._blocklist.members)
        for discovery in self._discoveries:
            discovery.use(trust.manifest.by_id)
        self._trainers.use(self._driver.force.manifest, self._driver.force.coming)
        before, self._change = self._change, learning.coming(self._driver.force)
        if self._change is not None and self._change != before:
            self._events.emit(self._change)


def _live_peers(new: NodeConfig) -> dict[str, tuple[str, ...]]:
    return {"blocklist": new.peers.blocklist, "seeds": new.peers.seeds}
