"""Where a listener is bound, for the listener itself and for whoever tries beforehand whether it could be."""

from __future__ import annotations

import socket

from p2pfed.core.types import Address


def bound(address: Address) -> socket.socket:
    """A socket bound to `address`, which does not listen yet; raises OSError. `[::]` is IPv4, too."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not address.wildcard)
        found.bind((address.host, address.port))
    except BaseException:
        found.close()
        raise
    return found
