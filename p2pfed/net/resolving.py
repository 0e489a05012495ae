"""Looking up host names: few at once, not for long, and in threads that nothing else waits for.

Members choose the names they advertise, and a name server of theirs may take as long as it likes. A lookup cannot be
ended, so its thread is left alone: it is one of a few, and keeps neither other work nor the end of the process waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass

from aiohttp.abc import AbstractResolver, ResolveResult

from p2pfed.core.types import Address
from p2pfed.net import limits
from p2pfed.net.places import Places

Found = tuple[tuple[socket.AddressFamily, str], ...]


@dataclass
class _Name:
    """What is known of a host name."""

    found: Found = ()
    until: float = 0.0
    """When to look it up again, found or not."""


class Resolver(AbstractResolver):
    """For aiohttp's connector and seeds; made inside a running event loop. Answers only where `places` lets us dial.

    A name that cannot be looked up in time has the addresses it had before, if it had any.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._names: dict[str, _Name] = {}
        """Least lately asked for first."""
        self._looking: dict[str, asyncio.Future[Found]] = {}

    def knows(self, host: str) -> bool:
        """Whether nothing need be looked up for it now."""
        return host in self._names and asyncio.get_running_loop().time() < self._names[host].until

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See AbstractResolver; raises OSError."""
        name = self._names.pop(host, None) or _Name()
        self._names[host] = name
        if len(self._names) > limits.NAMES_KEPT:
            del self._names[next(iter(self._names))]
        if asyncio.get_running_loop().time() >= name.until:
            await self._look_up(host, name)
        if not name.found:
            raise OSError(f"the host name {host} cannot be looked up")
        allowed = [(kind, ip) for kind, ip in name.found if not self._places.refusal(Address(ip, port))]
        if not allowed:
            raise OSError(self._places.refusal(Address(name.found[0][1], port)))
        return [ResolveResult(hostname=host, host=ip, port=port, family=kind, proto=0, flags=0) for kind, ip in allowed]

    async def close(self) -> None:
        """See AbstractResolver; lookups under way end by themselves."""

    async def _look_up(self, host: str, name: _Name) -> None:
        loop = asyncio.get_running_loop()
        if host not in self._looking and len(self._looking) >= limits.LOOKUPS:
            return  # all are busy: what is known has to do
        looking = self._looking.get(host) or self._begin(host)
        name.until = loop.time() + limits.NAME_MISSING_SECONDS
        with contextlib.suppress(OSError):  # of which TimeoutError is one
            async with asyncio.timeout(limits.LOOKUP_SECONDS):
                name.found = await asyncio.shield(looking)
                name.until = loop.time() + limits.NAME_SECONDS

    def _begin(self, host: str) -> asyncio.Future[Found]:
        loop = asyncio.get_running_loop()
        looking: asyncio.Future[Found] = loop.create_future()
        looking.add_done_callback(lambda _: self._looking.pop(host, None))
        looking.add_done_callback(asyncio.Future.exception)  # it may fail when nobody waits any more

        def tell(found: Found | OSError) -> None:
            if isinstance(found, OSError):
                looking.set_exception(found)
            else:
                looking.set_result(found)

        def work() -> None:
            found = _addresses(host)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(tell, found)

        self._looking[host] = looking
        threading.Thread(target=work, name=f"look up {host}", daemon=True).start()
        return looking


def _addresses(host: str) -> Found | OSError:
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except OSError as error:
        return error
    except ValueError as error:  # no name that could be asked for
        return OSError(f"no host name: {error}")
    distinct = dict.fromkeys((kind, str(address[0])) for kind, _, _, _, address in infos)
    return tuple(distinct)[: limits.ADDRESSES_OF_NAME]
