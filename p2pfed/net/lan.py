"""Finding members on the local network by multicast DNS: announce the own short id, look up those of other members.

Only names that are some member's short id are looked up, and what is learned is only a place to try. What strangers
announce is forgotten every second; where it is too much, as somebody wants to fill this node's memory, multicast DNS is
closed for a while, which forgets all of it, and the node goes on with what it knows.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, NonUniqueNameException, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from p2pfed.core.inputs import TroubleOver, TroubleSeen
from p2pfed.core.messages import PROTOCOL_MAX, PROTOCOL_MIN, Endpoint
from p2pfed.core.types import Address, NodeId, short
from p2pfed.net.bucket import Bucket
from p2pfed.net.discovery import Found

SERVICE = "_p2pfed._tcp.local."
LOOKUP_MILLISECONDS = 3000
MAX_ADDRESSES = 4
"""Addresses taken from one announcement: at most four candidates a member."""

LOOK_SECONDS = 1.0
"""How often the interface is looked at, as a laptop's or a container's address may change, and what strangers announced
is forgotten."""
STRANGE_PER_SECOND, STRANGE_AT_ONCE = 100.0, 5000.0
"""Records and services of strangers that a network may have: some thousands at first, then few; more is noise."""
LOOKUP_COST = 10.0
"""A lookup of a member counts as so many: anybody can announce its name."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0
"""How long a network is left alone that was too noisy once, and again and again."""
QUIET_SECONDS = 60.0
"""After so long without too much noise it is over."""

Tell = Callable[[TroubleSeen | TroubleOver], None]
"""Told of a problem for the operator."""


class ZeroconfDiscovery:
    """Multicast DNS on the interface of `listening`, the address the listener is bound to; None announces nothing."""

    def __init__(self, me: NodeId, listening: Address | None, members: Collection[NodeId], tell: Tell) -> None:
        self._me = me
        self._listening = listening
        self._tell = tell
        self._pause = FIRST_PAUSE_SECONDS
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._zeroconf: AsyncZeroconf | None = None
        self._running: asyncio.Task[None] | None = None
        self.use(members)

    def use(self, members: Collection[NodeId]) -> None:
        """See Discovery."""
        self._members = {short(member): member for member in members if member != self._me}

    async def start(self, found: Found) -> None:
        """See Discovery."""
        self._found = found
        self._running = asyncio.create_task(self._run(), name="discover on the local network")

    async def close(self) -> None:
        """See Discovery."""
        if self._running is None:
            return
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._close()

    async def _run(self) -> None:
        while True:
            interface = self._interface()
            if interface is None:
                self._tell(TroubleSeen("ZEROCONF_OFF", "no IPv4 interface to look for members on", "see peers.listen"))
            else:
                await self._open(interface)
            while self._interface() == interface and not self._noisy():
                await asyncio.sleep(LOOK_SECONDS)
                self._forget_strangers()
            noisy = self._noisy()
            await self._close()
            if interface is not None and noisy:
                await self._wait_for_quiet(interface)

    async def _wait_for_quiet(self, interface: str) -> None:
        message = f"somebody floods {interface} with multicast DNS; members are not looked for meanwhile"
        hint = "known addresses stay; find the sender, or set peers.zeroconf to false and use peers.seeds"
        self._tell(TroubleSeen("LAN_NOISY", message, hint))
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _forget_strangers(self) -> None:
        if self._zeroconf is None:
            return
        cache, ours = self._zeroconf.zeroconf.cache, {SERVICE, f"{short(self._me)}.local.".lower()}
        for name in self._members:
            ours |= {f"{name}.{SERVICE}".lower(), f"{name}.local.".lower()}
        strange = [record for name in cache.names() if name not in ours for record in cache.entries_with_name(name)]
        cache.async_remove_records(strange)
        self._count(len(strange))
        if self._pause > FIRST_PAUSE_SECONDS and self._now() - self._opened > QUIET_SECONDS and not self._noisy():
            self._tell(TroubleOver("LAN_NOISY"))
            self._pause = FIRST_PAUSE_SECONDS

    def _noisy(self) -> bool:
        return self._zeroconf is not None and self._strange.tokens < 0

    def _count(self, cost: float) -> None:
        self._strange.owe(self._now(), cost)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _open(self, interface: str) -> None:
        self._opened = self._now()
        self._strange = Bucket(STRANGE_PER_SECOND, STRANGE_AT_ONCE, self._opened)
        try:
            self._zeroconf = AsyncZeroconf(interfaces=[interface], ip_version=IPVersion.V4Only)
            self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._changed])
            if self._listening is not None:
                await (await self._zeroconf.async_register_service(self._announcement(interface, self._listening.port)))
        except NonUniqueNameException:
            message = f"another node announces itself as {short(self._me)} on this network: this one stays unannounced"
            hint = "if that is a copy of this node's state directory, stop it: two nodes must not share one key"
            self._tell(TroubleSeen("ZEROCONF_CONFLICT", message, hint))
        except (OSError, ZeroconfError) as error:
            message = f"cannot look for members on {interface}: {error}"
            self._tell(TroubleSeen("ZEROCONF_OFF", message, "seeds still work"))

    async def _close(self) -> None:
        for task in self._lookups.values():
            task.cancel()
        await asyncio.gather(*self._lookups.values(), return_exceptions=True)
        if self._zeroconf is not None:
            await self._browser.async_cancel()
            await self._zeroconf.async_close()
            self._zeroconf = None

    def _interface(self) -> str | None:
        """The IPv4 address to send from: the listener's own, or that of the default route where it has all."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                if self._listening is None or self._listening.wildcard:
                    probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks the routing table
                else:
                    probe.bind((self._listening.host, 0))
            except OSError:  # no route, no such address here, or one of IPv6
                return None
            return str(probe.getsockname()[0])

    def _announcement(self, interface: str, port: int) -> AsyncServiceInfo:
        name = short(self._me)
        return AsyncServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            port=port,
            properties={"id": name, "proto": f"{PROTOCOL_MIN}-{PROTOCOL_MAX}"},
            server=f"{name}.local.",
            parsed_addresses=[interface],
        )

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        member = self._members.get(name.removesuffix("." + SERVICE))
        self._count(1.0 if member is None else LOOKUP_COST)
        if member is None or name in self._lookups or state_change is ServiceStateChange.Removed or self._noisy():
            return
        task = asyncio.get_running_loop().create_task(self._look_up(zeroconf, name, member))
        self._lookups[name] = task
        task.add_done_callback(lambda _: self._lookups.pop(name, None))

    async def _look_up(self, zeroconf: Zeroconf, name: str, member: NodeId) -> None:
        info = AsyncServiceInfo(SERVICE, name)
        if not await info.async_request(zeroconf, LOOKUP_MILLISECONDS) or not info.port:
            return
        for host in info.parsed_addresses(IPVersion.V4Only)[:MAX_ADDRESSES]:
            self._found(member, Endpoint(Address(host, info.port), "zeroconf"))
