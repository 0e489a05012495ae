"""Where a node may dial: a member chooses what addresses it advertises, and must not reach through us what it cannot.

Loopback and link-local addresses are somebody's own machine or cable: they are dialled only where the manifest, or this
node's own configuration, uses such addresses, as consortia on one machine do. This node itself is never dialled.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from p2pfed.core.consortium import Manifest
from p2pfed.core.types import Address

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class Places:
    """The rule for one node. `configured` are addresses in its own configuration; `ports` those it listens on."""

    def __init__(self, configured: Iterable[Address] = (), ports: Iterable[int] = ()) -> None:
        self._configured_near = self._near = False
        self.ports = set(ports)
        self.allow(configured)

    def allow(self, configured: Iterable[Address]) -> None:
        """Take more addresses of this node's own configuration."""
        if any(map(_near, configured)):
            self._configured_near = self._near = True

    def follow(self, manifest: Manifest) -> None:
        """Take what `manifest` says of its members' addresses."""
        agreed = (address for addresses in manifest.roster.endpoints.values() for address in addresses)
        self._near = self._configured_near or any(map(_near, agreed))

    def refusal(self, address: Address) -> str:
        """Why `address` is not dialled; nothing if it may be, or is a name that is yet to be looked up."""
        ip = _ip(address.host)
        if ip is None:
            return ""
        if not address.dialable:
            return "no address of one machine"
        if address.port in self.ports and _is_here(ip):
            return "this node itself listens there"
        if not self._near and (ip.is_loopback or ip.is_link_local):
            return "an address of this machine or its own link, which neither manifest nor configuration uses"
        return ""


def _ip(host: str) -> IP | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _near(address: Address) -> bool:
    ip = _ip(address.host)
    return address.host == "localhost" if ip is None else ip.is_loopback or ip.is_link_local


def _is_here(ip: IP) -> bool:
    """Whether `ip` is one of this machine's addresses: only such can be bound to."""
    with socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(ip), 0))
        except OSError:
            return False
    return True
