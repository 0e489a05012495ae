"""Join requests: what a bank sends to an admin to become a member, signed by the key it wants to be known by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from p2pfed.core import record
from p2pfed.core.consortium import POWERS, JoinRequest, ManifestError, Member, member_problems
from p2pfed.core.identity import JOIN_DOMAIN, Signer, fingerprint, verify
from p2pfed.core.model import DEFAULT_TRAINING
from p2pfed.core.types import DAY

MAX_JOIN_REQUEST = 256 * 1024
"""A join request file, in bytes: moments of some thousand columns."""

MEASURED_STEPS = DEFAULT_TRAINING.local_steps
"""Optimiser steps of the default model that `JoinRequest.seconds_per_round` is the time of."""


@dataclass(frozen=True)
class _JoinFile:
    body: JoinRequest
    signature: str


def seal_join_request(signer: Signer, request: JoinRequest) -> bytes:
    """The file to mail: JSON, signed by `signer`, whose key the request must name; raises ManifestError."""
    body = _body(request)
    if request.key != signer.public_key.hex():
        raise ManifestError("a join request is signed by the member key that it names")
    _check(request)
    return record.readable(_JoinFile(request, signer.sign(JOIN_DOMAIN + body).hex()))


def open_join_request(data: bytes) -> JoinRequest:
    """Read a join request and check that it was signed by the key in it; raises ManifestError.

    That proves the key, not the bank: compare `key_fingerprint` over the phone.
    """
    if len(data) > MAX_JOIN_REQUEST:
        raise ManifestError(f"a join request of {len(data)} bytes: the limit is {MAX_JOIN_REQUEST}")
    try:
        file = record.parse(_JoinFile, data)
    except record.RecordError as error:
        raise ManifestError(f"this is not a join request: {error}") from None
    _check(file.body)
    try:
        signature = bytes.fromhex(file.signature)
    except ValueError:
        signature = b""
    if not verify(bytes.fromhex(file.body.key), JOIN_DOMAIN + _body(file.body), signature):
        raise ManifestError(f"the join request of {file.body.name!r} was changed after signing: ask for a new one")
    return file.body


def key_fingerprint(request: JoinRequest) -> str:
    """The member key's fingerprint, which is also the member's id with dashes."""
    return fingerprint(bytes.fromhex(request.key))


def as_member(request: JoinRequest) -> Member:
    """The manifest entry the request asks for."""
    return Member(request.name, request.key, (request.certificate,), request.endpoints, request.legitimate_per_fraud)


def declared_rate(legitimate: int, frauds: int) -> float:
    """Of a bank's training rows what `Member.legitimate_per_fraud` tells; no fraud counts as half a one."""
    times = max(legitimate, 0.5) / max(frauds, 0.5)
    return min(POWERS, key=lambda power: abs(math.log(times / power)))


def needed_seconds(request: JoinRequest, local_steps: int) -> float | None:
    """Seconds that the bank trains for `local_steps`, by what it measured; None if it did not."""
    return None if request.seconds_per_round is None else request.seconds_per_round * local_steps / MEASURED_STEPS


def _body(request: JoinRequest) -> bytes:
    try:
        return record.canonical(record.build(JoinRequest, record.plain(request)))
    except record.RecordError as error:
        raise ManifestError(str(error)) from None


def _check(request: JoinRequest) -> None:
    problems = member_problems(as_member(request))
    moments = request.moments
    if moments is not None and len(moments.means) != len(moments.deviations):
        problems.append("moments: as many deviations as means are needed")
    if moments is not None and any(d < 0 for d in moments.deviations):
        problems.append("moments: a deviation is negative")
    if request.seconds_per_round is not None and not 0 < request.seconds_per_round <= DAY:
        problems.append(
            f"seconds_per_round is {request.seconds_per_round:g}: a round takes some time, and less than a day"
        )
    if problems:
        raise ManifestError(*problems)
