"""The smallest words of the protocol: who, where, in which state, and what is thought of a message."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Literal, NewType

NodeId = NewType("NodeId", str)
"""A member's name everywhere: base32 of SHA-256 of its public key, with check characters (see `identity.node_id`)."""


NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
"""Regular expression of a bank's or admin's name: it stands in logs, file names and tables as it is."""

DAY = 86_400
"""Seconds."""


def short(node: NodeId) -> str:
    """The first seven characters of an id, as logs and tables show it."""
    return node[:7]


@dataclass(frozen=True, order=True)
class Address:
    """A host (name or IP) and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port` or `[ipv6]:port`, the host in one spelling; raises ValueError that says what is wrong."""
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise ValueError(f"{text!r} is not an address: expected host:port, for example bank-b.example:7443")
        if host.startswith("[") and host.endswith("]"):
            try:
                host = str(ipaddress.IPv6Address(host[1:-1]))
            except ValueError:
                raise ValueError(f"{text!r} is not an address: only IPv6 addresses stand in brackets") from None
        elif ":" in host:
            raise ValueError(f"{text!r} is not an address: write an IPv6 host in brackets, for example [::1]:7443")
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            raise ValueError(f"{text!r} is not an address: the port must be a number from 0 to 65535")
        if len(host) > 253 or not host.isascii() or not host.isprintable() or any(c in host for c in "/@ \\"):
            raise ValueError(f"{text!r} is not an address: the host has characters that no host name has")
        if ":" not in host and _is_odd_number(host):
            raise ValueError(f"{text!r} is not an address: write an IPv4 host as four plain numbers, such as 10.0.0.1")
        return cls(host.lower(), int(port))

    @property
    def wildcard(self) -> bool:
        """Whether it stands for every address of a machine."""
        return self.host in ("0.0.0.0", "::")

    @property
    def dialable(self) -> bool:
        """Whether it can be one member's: not a wildcard, multicast or port 0. Names are left to the resolver."""
        try:
            ip = ipaddress.ip_address(self.host)
        except ValueError:
            return self.port > 0
        return self.port > 0 and not ip.is_unspecified and not ip.is_multicast

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_odd_number(host: str) -> bool:
    """Whether resolvers take it for an IPv4 address, in another spelling than the usual one: 010.0.0.1 or 0xa000001."""
    last = host.rstrip(".").rpartition(".")[2].lower()
    if not (last.isdigit() or re.fullmatch("0x[0-9a-f]*", last)):
        return False
    try:
        return str(ipaddress.IPv4Address(host)) != host
    except ValueError:
        return True


@dataclass(frozen=True)
class Roster:
    """Who is a member and where each can be dialled by the manifest: one for all nodes that follow that manifest."""

    endpoints: Mapping[NodeId, tuple[Address, ...]]
    """Of every member; empty for one that can only dial out."""

    @cached_property
    def ids(self) -> tuple[NodeId, ...]:
        """The members, in order of their ids."""
        return tuple(sorted(self.endpoints))


class PeerState(Enum):
    """What the heartbeat table says of a member."""

    UNKNOWN = "unknown"  # in the manifest, never heard of since this node started
    ALIVE = "alive"
    SUSPECT = "suspect"  # no newer heartbeat for 15 periods
    FAILED = "failed"  # none for 30
    LEFT = "left"  # said good-bye


Standing = Literal["trusted", "suspect", "quarantined"]
"""What a member's reputation at this node comes to: a suspect's models weigh less, in quarantine nothing."""


class Verdict(Enum):
    """What admission says of a message. Only REJECT costs its sender."""

    ACCEPT = "accept"
    IGNORE = "ignore"
    REJECT = "reject"


class Reason(Enum):
    """Why a message was not accepted; the value is the name in logs, metrics and the API."""

    def __init__(self, code: str, verdict: Verdict, sentence: str) -> None:
        self.code = code
        self.verdict = verdict
        self.sentence = sentence

    # nobody's fault: the network repeats and reorders
    DUPLICATE = "duplicate", Verdict.IGNORE, "this update is already here"
    OLDER_SEQUENCE = "older_sequence", Verdict.IGNORE, "a newer update of this member is already here"
    OWN_UPDATE = "own_update", Verdict.IGNORE, "this is this node's own update"
    NOT_ASKED = "not_asked", Verdict.IGNORE, "pushed by a member that this node asks for its updates itself"
    OTHER_GENERATION = "other_generation", Verdict.IGNORE, "the update was made under another manifest version"
    # somebody's fault
    MALFORMED = "malformed", Verdict.REJECT, "the bytes are not a frame of this protocol"
    OVERSIZE = "oversize", Verdict.REJECT, "the message is larger than its limit"
    WRONG_LENGTH = "wrong_length", Verdict.REJECT, "the payload does not have the announced length"
    WRONG_HASH = "wrong_hash", Verdict.REJECT, "the payload does not have the signed hash"
    FORGED_SIGNATURE = "forged_signature", Verdict.REJECT, "the signature does not belong to the named sender"
    OTHER_CONSORTIUM = "other_consortium", Verdict.REJECT, "the message belongs to another consortium"
    NOT_A_MEMBER = "not_a_member", Verdict.REJECT, "the sender is not in the manifest"
    WRONG_SCHEMA = "wrong_schema", Verdict.REJECT, "the update is for another model"
    NOT_FINITE = "not_finite", Verdict.REJECT, "the update contains NaN or infinity"
    EQUIVOCATION = "equivocation", Verdict.REJECT, "the member signed two different updates with one sequence number"
    UNRELATED_ANSWER = "unrelated_answer", Verdict.REJECT, "the answer is not what was asked for"

    def __str__(self) -> str:
        return self.code
