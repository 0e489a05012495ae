"""Telling systemd how the daemon is: the notify protocol, one datagram a word."""

from __future__ import annotations

import os
import socket


def notify(*words: str) -> None:
    """Send `READY=1`, `STOPPING=1`, `WATCHDOG=1`, ... to whoever started us; nothing without NOTIFY_SOCKET.

    A supervisor that no longer listens is its own problem, so an unreachable socket is passed over.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto("\n".join(words).encode(), address)
        except OSError:
            return


def watchdog_seconds() -> float | None:
    """How often `WATCHDOG=1` is due: half of what systemd allows; None if it does not watch."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    return int(allowed) / 2e6 if allowed.isdigit() and int(allowed) else None
