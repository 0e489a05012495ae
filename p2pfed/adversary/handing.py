"""Attacks on who is handed what: models made for the one who asks, and breaches of the protocol."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from p2pfed.adversary.attack import Attack, Attacker, Tailored, View
from p2pfed.core import record, wire
from p2pfed.core.identity import UPDATE_DOMAIN, Signer
from p2pfed.core.messages import ModelUpdate, Statement
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector


@dataclass
class Echo(Tailored):
    """Free rider that hands each asker the asker's own newest model back, signed anew."""

    def tailor(self, view: View, asker: Vector) -> Vector:
        """See `Tailored`."""
        return asker


@dataclass
class NearEcho(Tailored):
    """Echo with noise of length scale * |honest - begun|: makes honest models look far beside it, unless idle."""

    scale: float = 0.5

    def tailor(self, view: View, asker: Vector) -> Vector:
        """See `Tailored`."""
        noise = view.rng.standard_normal(asker.size, np.float32)
        length = self.scale * float(np.linalg.norm(view.honest - view.begun))
        return asker + np.float32(length / max(float(np.linalg.norm(noise)), 1e-12)) * noise


@dataclass
class Dissensus(Tailored):
    """Dissensus (He, Karimireddy and Jaggi, 2022, arXiv 2202.01545): x_i - scale * sum_j w_j (x_j - x_i) / w_b.

    Drives the asker i away from the others. All weights w are taken to be equal, so that sum_j w_j / w_b is the number
    of known honest peers beside that of the coalition.
    """

    scale: float = 1.5

    def tailor(self, view: View, asker: Vector) -> Vector:
        """See `Tailored`."""
        others = [model for model in view.peers.values() if model is not asker]
        if not others:
            return asker
        away = np.mean(others, axis=0, dtype=np.float64) - asker
        return (asker - self.scale * len(others) / (1 + len(view.colluders)) * away).astype(np.float32)


@dataclass
class Waiting(Attack):
    """Waits for whoever returns: -scale * honest to whoever was away and has not published since, else honest.

    Who is behind judges nobody, and takes the median of what it is handed: nobody else ever sees the poisoned models.
    """

    scale: float = 1.0

    def answer(self, attacker: Attacker, asking: NodeId, member: NodeId, frame: bytes) -> bytes:
        """See `Attack`."""
        view = attacker.view(asking) if member == attacker.me else None
        if view is None or not view.asker_behind:
            return frame
        return attacker.sign_next(-np.float32(self.scale) * view.honest).frame


@dataclass
class Equivocation(Attack):
    """Different models under one sequence number: half of the members get begun + scale * (honest - begun), half minus.

    Two such statements, held against each other, convict it.
    """

    scale: float = 1.0
    _signed: dict[tuple[str, bool], bytes] = field(default_factory=dict, repr=False)

    def answer(self, attacker: Attacker, asking: NodeId, member: NodeId, frame: bytes) -> bytes:
        """See `Attack`."""
        view = attacker.view(asking) if member == attacker.me else None
        if view is None:
            return frame
        even = sum(member < asking for member in attacker.manifest.by_id) % 2 == 0
        key = hashlib.sha256(frame).hexdigest(), even
        if key not in self._signed:
            self._signed = {known: signed for known, signed in self._signed.items() if known[0] == key[0]}
            step = np.float32(self.scale if even else -self.scale) * (view.honest - view.begun)
            self._signed[key] = attacker.sign_again(view.begun + step).frame
        return self._signed[key]


@dataclass
class Replay(Attack):
    """Hands out the first update that it was asked for, with its old number, again and again."""

    _old: bytes = field(default=b"", repr=False)

    def answer(self, attacker: Attacker, asking: NodeId, member: NodeId, frame: bytes) -> bytes:
        """See `Attack`."""
        if member != attacker.me:
            return frame
        self._old = self._old or frame
        return self._old


@dataclass
class Forged(Attack):
    """Claims that its statements are another member's, over -scale * honest, with its own signature under them."""

    scale: float = 1.0

    def answer(self, attacker: Attacker, asking: NodeId, member: NodeId, frame: bytes) -> bytes:
        """See `Attack`; asked for its own update it claims a drawn member, asked to relay one it forges that."""
        view = attacker.view(asking)
        if view is None:
            return frame
        others = sorted(attacker.manifest.by_id.keys() - {attacker.me, asking})
        if member == attacker.me and others:
            member = others[int(view.rng.integers(len(others)))]
        return forged(attacker.signer, attacker.sign_again(-np.float32(self.scale) * view.honest), member)


@dataclass
class WrongSchema(Attack):
    """Signs models of another architecture: another digest, and a payload of another length."""

    def answer(self, attacker: Attacker, asking: NodeId, member: NodeId, frame: bytes) -> bytes:
        """See `Attack`."""
        view = attacker.view(asking) if member == attacker.me else None
        return frame if view is None else other_schema(attacker.signer, attacker.sign_again(view.honest))


@dataclass
class Flooding(Attack):
    """Pushes its newest model, each time with a new sequence number, to everybody 20 times a second, asked or not."""

    floods = 0.05


def forged(signer: Signer, update: ModelUpdate, sender: NodeId) -> bytes:
    """The frame of `update` with `sender` in its statement, and the signature of `signer` all the same."""
    return _framed(signer, replace(update.statement, sender=sender), _payload(update))


def other_schema(signer: Signer, update: ModelUpdate) -> bytes:
    """The frame of `update` with the digest of no model that there is, and one number more."""
    payload = _payload(update) + bytes(4)
    statement = replace(
        update.statement,
        model=hashlib.sha256(b"another model").hexdigest(),
        payload_length=len(payload),
        payload_sha256=hashlib.sha256(payload).hexdigest(),
    )
    return _framed(signer, statement, payload)


def _payload(update: ModelUpdate) -> bytes:
    return update.frame[wire.head_length(update.frame) :]


def _framed(signer: Signer, statement: Statement, payload: bytes) -> bytes:
    """What `wire.seal_update` does at its end, for statements that it would not sign."""
    header = record.canonical(statement)
    head = wire.PREFIX.pack(wire.MAGIC, len(header)) + header + signer.sign(UPDATE_DOMAIN + header)
    return head.ljust(wire.head_length(head), b"\0") + payload
