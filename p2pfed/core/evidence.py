"""Proofs of equivocation: two statements of one member with one sequence number and different hashes.

Such a pair convicts by itself: a statement names no recipient, so both signatures can be verified by anybody who has
the manifest, payloads are not needed, and nobody's word is taken, that of who shows it included. (CometBFT's
DuplicateVoteEvidence is the same idea.)

*Only an equal sequence number proves.* Two statements that name one `previous` are a fork too, but an honest one: a
bank that restores an old backup hears from the others which numbers it has used, jumps above them (`GossipNode`), and
then names as `previous` the last statement that it still knows, which had a successor before. Its numbers stay unique,
as they do over every crash: `Save` is durable before a statement leaves, and the store refuses to take one back.

Two cases remain in which nobody meant to lie, and both look exactly like a lie from outside, so both are proven: a
second daemon with a copy of the state directory, and a restored backup that publishes before it has reached anybody who
remembers it. That is why a proof quarantines and does not expel, and why an operator can clear it.

Different models under *different* sequence numbers to different members are no contradiction, and not found here.

A proof is canonical JSON, on the wire as in a file: both statements with their signatures, the one with the lower
digest first. Each proof has therefore exactly one form, and a name: `Equivocation.digest`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from p2pfed.core import record
from p2pfed.core.checks import check_signature, parsed
from p2pfed.core.consortium import Manifest
from p2pfed.core.fields import is_hex, statement_problem
from p2pfed.core.identity import SIGNATURE_BYTES, UPDATE_DOMAIN
from p2pfed.core.messages import Equivocation, SignedStatement, Statement
from p2pfed.core.types import Reason
from p2pfed.errors import RemoteFault

MAX_HEAD = 1024
"""A signed statement, in bytes: its fields' own limits leave no room for more."""
MAX_PROOF = 2048

Held = Callable[[SignedStatement], bool]
"""Whether exactly this signed statement has been verified before."""


def nothing_held(_: SignedStatement) -> bool:
    """Verify everything."""
    return False


@dataclass(frozen=True)
class _Signed:
    signature: str
    statement: Statement


@dataclass(frozen=True)
class _Proof:
    schema: Literal["p2pfed.equivocation/1"]
    statements: tuple[_Signed, _Signed]


def contradiction(one: SignedStatement, other: SignedStatement) -> Equivocation | None:
    """The proof that two verified statements are together; None if they do not contradict each other."""
    a, b = one.statement, other.statement
    if (a.sender, a.consortium, a.seq) != (b.sender, b.consortium, b.seq) or one.digest == other.digest:
        return None
    return Equivocation(one, other) if one.digest < other.digest else Equivocation(other, one)


def parse_head(signed: bytes) -> SignedStatement:
    """Read a signed statement and trust nothing of it; raises RemoteFault."""
    if len(signed) > MAX_HEAD:
        raise RemoteFault(Reason.OVERSIZE, f"a signed statement of {len(signed)} bytes, the limit is {MAX_HEAD}")
    body = signed[SIGNATURE_BYTES:]
    return _head(signed[:SIGNATURE_BYTES], parsed(Statement, body), body)


def _head(signature: bytes, statement: Statement, body: bytes) -> SignedStatement:
    if problem := statement_problem(statement):
        raise RemoteFault(Reason.MALFORMED, problem)
    return SignedStatement(statement, signature + body, hashlib.sha256(body).hexdigest())


def check_head(head: SignedStatement, manifest: Manifest, held: Held = nothing_held) -> None:
    """Raise RemoteFault unless a member of the manifest signed it, in this consortium.

    Of any manifest version and model: a number signed before the model changed is used up like any other.
    """
    if held(head):
        return
    body, signature = head.signed[SIGNATURE_BYTES:], head.signed[:SIGNATURE_BYTES]
    check_signature(manifest, head.statement.sender, UPDATE_DOMAIN + body, signature)
    if head.statement.consortium != manifest.consortium:
        raise RemoteFault(Reason.OTHER_CONSORTIUM, head.statement.consortium)


def encode_proof(proof: Equivocation) -> bytes:
    """The one form of a proof, at most MAX_PROOF bytes."""
    first, second = (_Signed(h.signed[:SIGNATURE_BYTES].hex(), h.statement) for h in (proof.one, proof.other))
    return record.canonical(_Proof("p2pfed.equivocation/1", (first, second)))


def parse_proof(data: bytes) -> Equivocation:
    """Read a proof, and check all of it but the signatures, the consortium and that it is about a member.

    Raises RemoteFault.
    """
    if len(data) > MAX_PROOF:
        raise RemoteFault(Reason.OVERSIZE, f"a proof of {len(data)} bytes, the limit is {MAX_PROOF}")
    one, other = (_read(signed) for signed in parsed(_Proof, data).statements)
    found = contradiction(one, other)
    if found is None:
        raise RemoteFault(Reason.MALFORMED, "the two statements do not contradict each other")
    if found.one is not one:
        raise RemoteFault(Reason.MALFORMED, "the two statements are not in order of their digests")
    return found


def _read(signed: _Signed) -> SignedStatement:
    if not is_hex(signed.signature, 2 * SIGNATURE_BYTES):
        raise RemoteFault(Reason.MALFORMED, f"a signature is not {2 * SIGNATURE_BYTES} lower-case hex digits")
    return _head(bytes.fromhex(signed.signature), signed.statement, record.canonical(signed.statement))


def check_proof(proof: Equivocation, manifest: Manifest, held: Held = nothing_held) -> None:
    """Raise RemoteFault unless one member of the manifest signed both statements, in this consortium."""
    for head in (proof.one, proof.other):
        check_head(head, manifest, held)


def open_proof(data: bytes, manifest: Manifest) -> Equivocation:
    """A proof that convicts its member before anybody who has the manifest; raises RemoteFault."""
    proof = parse_proof(data)
    check_proof(proof, manifest)
    return proof
