"""Where a node listens, where the others should dial it, and where it dials itself."""

from __future__ import annotations

from dataclasses import replace

from p2pfed.config import NodeConfig
from p2pfed.core.consortium import Member
from p2pfed.core.types import Address
from p2pfed.errors import Unavailable
from p2pfed.net.binding import bound
from p2pfed.net.places import Places


def bindable(listen: str | None) -> Address | None:
    """The address to listen on; port 0 is replaced by a free one, because heartbeats must name it from the start.

    Raises Unavailable where there is none.
    """
    if listen is None:
        return None
    address = Address.parse(listen)
    if address.port:
        return address
    try:
        with bound(address) as found:
            return replace(address, port=found.getsockname()[1])
    except OSError as error:
        raise Unavailable(f"cannot listen on {address}: {error.strerror}; see peers.listen") from None


def own_endpoints(config: NodeConfig, listen: Address | None, own: Member) -> tuple[str, ...]:
    """Where the others should dial this node: as configured, else where it listens, else what the manifest says."""
    if listen is None:
        return ()
    if config.peers.advertise:
        return config.peers.advertise
    return own.endpoints if listen.wildcard else (str(listen),)


def places_of(config: NodeConfig, listen: Address | None) -> Places:
    """Where a node that listens there may dial: its own configuration says whether its consortium is on one machine."""
    named = map(Address.parse, config.peers.advertise)
    return Places([*named, *filter(None, [listen])], [listen.port] if listen else [])
