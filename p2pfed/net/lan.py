"""Finding members on the local network by multicast DNS: announce the own short id, look up those of other members.

Only names that are some member's short id are looked up, so a noisy network costs nothing, and what is learned is only
a place to try.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, NonUniqueNameException, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from p2pfed.core.messages import PROTOCOL_MAX, PROTOCOL_MIN, Endpoint
from p2pfed.core.types import Address, NodeId, short
from p2pfed.net.discovery import Found

SERVICE = "_p2pfed._tcp.local."
LOOKUP_MILLISECONDS = 3000
MAX_ADDRESSES = 4
"""Addresses taken from one announcement: at most four candidates a member."""
RESCAN_SECONDS = 30.0
"""How often the interface is looked at: a laptop's or a container's address may change."""

Failed = Callable[[str, str, str], None]
"""Code, message and hint of a problem for the operator."""


class ZeroconfDiscovery:
    """Multicast DNS on the interface of `listening`, the address the listener is bound to; None announces nothing."""

    def __init__(self, me: NodeId, listening: Address | None, members: Collection[NodeId], failed: Failed) -> None:
        self._me = me
        self._listening = listening
        self._failed = failed
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
                self._failed("ZEROCONF_OFF", "no IPv4 interface to look for members on", "see peers.listen")
            else:
                await self._open(interface)
            while self._interface() == interface:
                await asyncio.sleep(RESCAN_SECONDS)
            await self._close()

    async def _open(self, interface: str) -> None:
        try:
            self._zeroconf = AsyncZeroconf(interfaces=[interface], ip_version=IPVersion.V4Only)
            self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._changed])
            if self._listening is not None:
                await (await self._zeroconf.async_register_service(self._announcement(interface, self._listening.port)))
        except NonUniqueNameException:
            self._failed(
                "ZEROCONF_CONFLICT",
                f"another node announces itself as {short(self._me)} on this network: this one stays unannounced",
                "if that is a copy of this node's state directory, stop it: two nodes must not share one key",
            )
        except (OSError, ZeroconfError) as error:
            self._failed("ZEROCONF_OFF", f"cannot look for members on {interface}: {error}", "seeds still work")

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
        if member is None or name in self._lookups or state_change is ServiceStateChange.Removed:
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
