"""Where a node listens, where the others should dial it, and where it dials itself."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import replace

from p2pfed.config import NodeConfig
from p2pfed.core.consortium import Member
from p2pfed.core.types import Address
from p2pfed.net.places import Places


def bindable(listen: str | None) -> Address | None:
    """The address to listen on; port 0 is replaced by a free one, because heartbeats must name it from the start."""
    if listen is None:
        return None
    address = Address.parse(listen)
    if address.port:
        return address
    with socket.create_server(
        (address.host, 0), family=socket.AF_INET6 if ":" in address.host else socket.AF_INET
    ) as s:
        return replace(address, port=s.getsockname()[1])


def own_endpoints(config: NodeConfig, listen: Address | None, own: Member) -> tuple[str, ...]:
    """Where the others should dial this node: as configured, else where it listens, else what the manifest says."""
    if listen is None:
        return ()
    if config.peers.advertise:
        return config.peers.advertise
    try:
        everywhere = ipaddress.ip_address(listen.host).is_unspecified
    except ValueError:
        everywhere = False
    return own.endpoints if everywhere else (str(listen),)


def places_of(config: NodeConfig, listen: Address | None) -> Places:
    """Where a node that listens there may dial: its own configuration says whether its consortium is on one machine."""
    named = map(Address.parse, config.peers.advertise)
    return Places([*named, *filter(None, [listen])], [listen.port] if listen else [])
