"""Join requests: what a bank sends to an admin to become a member, signed by the key it wants to be known by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from p2pfed.core import record
from p2pfed.core.consortium import POWERS, ROW_POWERS, Declared, ManifestError, Member
from p2pfed.core.contract import Moments, moments_problem
from p2pfed.core.contradictions import member_problems
from p2pfed.core.fields import is_hex
from p2pfed.core.identity import JOIN_DOMAIN, Signer, fingerprint, verify
from p2pfed.core.model import DEFAULT_TRAINING
from p2pfed.core.types import DAY

MAX_JOIN_REQUEST = 256 * 1024
"""A join request file, in bytes: moments of some thousand columns."""

MEASURED_STEPS = DEFAULT_TRAINING.local_steps
"""Optimiser steps of the default model that `JoinRequest.seconds_per_round` is the time of."""


@dataclass(frozen=True)
class JoinRequest:
    """What a bank's `init` writes and mails to an admin; signed by the member key it carries."""

    name: str
    key: str
    certificate: str
    endpoints: tuple[str, ...]
    moments: Moments | None
    """The bank's own feature moments, once it has told `init` its data and the proposed contract."""
    seconds_per_round: float | None = None
    """What 100 steps of the default model took on the bank's machine and rows; None where `init` did not measure."""
    legitimate_per_fraud: float | None = record.added()
    """See `Member`; told together with the moments."""
    training_rows: int | None = record.added()
    """The same."""
    made: int | None = record.added()
    """When, Unix seconds by the bank's clock: an older request never takes the place of a newer one."""
    consortium: str | None = record.added()
    """The one that the bank had joined; None where it had joined none."""


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
    told = request.legitimate_per_fraud, request.training_rows, request.made
    return Member(request.name, request.key, (request.certificate,), request.endpoints, *told)


def misplaced(request: JoinRequest, consortium: str | None, member: Member | None) -> str:
    """Why a request must not change what a consortium has of its bank, which is `member`; empty if it may.

    A request stays signed for ever: one that was made before what is held could bring back a certificate that was
    replaced because somebody had its key. Where neither tells a time, it may name the certificate of now and no other.
    """
    asked = f"the join request of {request.name!r}"
    again = "ask that bank for its present one; if this is it, let it move the file away and run `p2pfed init` again"
    if request.consortium not in (None, consortium):
        return f"{asked} was made for a consortium that this bank had joined, and this is another: {again}"
    if member is None:
        return ""
    if request.made is None:
        safe = member.requested is None and request.certificate == member.certificates[-1]
        return "" if safe else f"{asked} does not tell when it was made, so it may be an old one: {again}"
    if request.made < (member.requested or 0):
        return f"{asked} is older than the one that the manifest has of it: {again}"
    return ""


def declaring(old: Member, new: Member) -> Member:
    """`old` with what `new` tells of its training rows; what that leaves out stays."""
    return replace(
        old,
        legitimate_per_fraud=old.legitimate_per_fraud if new.legitimate_per_fraud is None else new.legitimate_per_fraud,
        training_rows=old.training_rows if new.training_rows is None else new.training_rows,
        requested=old.requested if new.requested is None else new.requested,
    )


def declaration(rows: int, frauds: int) -> Declared:
    """What a bank tells of its training rows, so many of them frauds; no fraud counts as half a one.

    Rows are rounded down, so that no honest bank counts as larger than by what it claims of its models.
    """
    times = max(rows - frauds, 0.5) / max(frauds, 0.5)
    rate = min(POWERS, key=lambda power: abs(math.log(times / power)))
    return Declared(rate, max(power for power in ROW_POWERS if power <= max(rows, 1)))


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
    if request.moments is not None and (problem := moments_problem(request.moments)):
        problems.append(f"moments: {problem}")
    if request.consortium is not None and not is_hex(request.consortium, 32):
        problems.append("consortium is not 32 lower-case hex digits")
    if request.seconds_per_round is not None and not 0 < request.seconds_per_round <= DAY:
        problems.append(
            f"seconds_per_round is {request.seconds_per_round:g}: a round takes some time, and less than a day"
        )
    if problems:
        raise ManifestError(*problems)
