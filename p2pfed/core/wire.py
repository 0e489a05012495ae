"""Bytes of the peer protocol <-> messages, with every limit. All that a peer can do wrong ends in a RemoteFault.

A frame carries one model update:

    "P2F1" | header length, uint32 LE | header | signature, 64 bytes | zeros up to a multiple of 4 | payload

The header is the canonical JSON of a `Statement`; the signature covers UPDATE_DOMAIN and the header, the header the
payload's length and SHA-256. The payload is raw little-endian tensors in schema order; the zeros let a float32 payload
be used where it lies, without a copy. A signed heartbeat is a signature over HEARTBEAT_DOMAIN and the canonical JSON of
a `Heartbeat`, then that JSON; a table is the newest sequence number that its sender holds of who is told (uint64 LE)
and its signed rows, each after its uint16 LE length. A length of 0 ends the rows: then come the signed statements that
its sender was given of others, and after another 0 its proofs (see `evidence`). A table ends with what it has: nothing
follows the rows where nothing was witnessed.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import fields
from typing import get_args

from p2pfed.core import evidence, record
from p2pfed.core.checks import MAX_DETAIL as MAX_DETAIL
from p2pfed.core.checks import check_signature, parsed
from p2pfed.core.consortium import MAX_PARAMETERS, Manifest
from p2pfed.core.evidence import Held, nothing_held
from p2pfed.core.fields import MAX_NUMBER, heartbeat_problem, hello_problem, statement_problem
from p2pfed.core.identity import HEARTBEAT_DOMAIN, SIGNATURE_BYTES, UPDATE_DOMAIN, Signer, node_id
from p2pfed.core.messages import (
    Equivocation,
    Heartbeat,
    HeartbeatTable,
    Hello,
    ModelUpdate,
    SignedHeartbeat,
    SignedStatement,
    Statement,
)
from p2pfed.core.payload import Encoding, decode_payload, encode_payload, payload_length
from p2pfed.core.trust import Trust as Trust
from p2pfed.core.trust import trust_of as trust_of
from p2pfed.core.types import NodeId, Reason, short
from p2pfed.core.weights import ModelSchema, Vector
from p2pfed.errors import ConfigError, RemoteFault

MAGIC = b"P2F1"
PREFIX = struct.Struct("<4sI")
ALIGNMENT = 4
MAX_HEADER = 4096
MAX_TABLE_ROWS = 200
MAX_TABLE_HEADS, MAX_TABLE_PROOFS = 8, 8
MAX_TABLE = 280 * 1024
MAX_HEARTBEAT = 1280
"""A signed heartbeat, in bytes: 200 of them fit a table, with all else that it may have."""
MAX_HELLO = 4096
_TABLE_SEQ, _ROW_LENGTH = struct.Struct("<Q"), struct.Struct("<H")


# --- Updates ----------------------------------------------------------------------------------------------------------


def head_limit() -> int:
    """The longest head (everything before the payload) a frame may have, in bytes."""
    return _padded(PREFIX.size + MAX_HEADER + SIGNATURE_BYTES)


def frame_limit(schema: ModelSchema) -> int:
    """The longest frame of a model, in bytes."""
    return head_limit() + max(payload_length(schema, encoding) for encoding in get_args(Encoding))


def longest_frame() -> int:
    """The longest frame of any model, in bytes: one of another generation is ignored for what its head says."""
    return head_limit() + 4 * MAX_PARAMETERS


def head_length(prefix: bytes) -> int:
    """Bytes before the payload, by a frame's first 8; raises RemoteFault(MALFORMED | OVERSIZE)."""
    if len(prefix) < PREFIX.size:
        raise RemoteFault(Reason.MALFORMED, "the frame ends in its first 8 bytes")
    magic, header = PREFIX.unpack_from(prefix)
    if magic != MAGIC:
        raise RemoteFault(Reason.MALFORMED, "it does not begin with P2F1")
    if header > MAX_HEADER:
        raise RemoteFault(Reason.OVERSIZE, f"a header of {header} bytes, the limit is {MAX_HEADER}")
    return _padded(PREFIX.size + int(header) + SIGNATURE_BYTES)


def seal_update(
    signer: Signer, *, manifest: Manifest, instance: str, seq: int, previous: str, round: int, rows: int, vector: Vector
) -> ModelUpdate:
    """A signed update of our own, in the manifest's encoding; `rows` (exact) is rounded to a power of two.

    `round` is a number of the manifest's calendar (`Calendar.number`). Its vector is the one receivers will decode.
    Raises ValueError on fields that every receiver would refuse.
    """
    schema, encoding = manifest.model.schema(), manifest.gossip.encoding
    cycle, round_of_cycle = manifest.calendar.place(round)
    payload = encode_payload(vector, schema, encoding)
    statement = Statement(
        consortium=manifest.consortium,
        manifest_version=manifest.version,
        model=manifest.model_digest,
        sender=node_id(signer.public_key),
        instance=instance,
        seq=seq,
        previous=previous,
        cycle=cycle,
        round=round_of_cycle,
        rows=_bucket(rows),
        encoding=encoding,
        payload_length=len(payload),
        payload_sha256=hashlib.sha256(payload).hexdigest(),
    )
    if problem := statement_problem(statement):
        raise ValueError(f"cannot sign an update: {problem}")
    header = record.canonical(statement)
    head = PREFIX.pack(MAGIC, len(header)) + header + signer.sign(UPDATE_DOMAIN + header)
    frame = head.ljust(_padded(len(head)), b"\0") + payload
    decoded = decode_payload(memoryview(frame)[_padded(len(head)) :], schema, encoding)
    return ModelUpdate(statement, decoded, frame, hashlib.sha256(header).hexdigest())


def own_statement(frame: bytes) -> Statement:
    """What a frame that this node has sealed itself says; nothing is verified."""
    return parsed(Statement, _header(frame))


def open_statement(head: bytes, trust: Trust) -> Statement:
    """Check a frame's head before its payload is read; bytes behind the head are not looked at.

    Raises RemoteFault; its `signer` is set once the signature has held.
    """
    length = head_length(head)
    if len(head) < length:
        raise RemoteFault(Reason.MALFORMED, "the frame ends inside its head")
    header = _header(head)
    statement = parsed(Statement, header)
    if problem := statement_problem(statement):
        raise RemoteFault(Reason.MALFORMED, problem)
    end = PREFIX.size + len(header)
    if any(head[end + SIGNATURE_BYTES : length]):
        raise RemoteFault(Reason.MALFORMED, "the bytes between signature and payload are not zero")
    check_signature(trust.manifest, statement.sender, UPDATE_DOMAIN + header, head[end : end + SIGNATURE_BYTES])
    _check_belongs(trust, statement)
    return statement


def open_update(frame: bytes, trust: Trust) -> ModelUpdate:
    """Check a whole frame, cheapest checks first, and decode it; a float32 vector is a read-only view into `frame`.

    Raises RemoteFault; its `signer` is set where the signed content itself is at fault.
    """
    if len(frame) > (limit := frame_limit(trust.schema)):
        _check_generation(frame[: head_limit()], trust)
        raise RemoteFault(Reason.OVERSIZE, f"a frame of {len(frame)} bytes, the limit is {limit}")
    return open_payload(open_statement(frame, trust), frame, trust)


def _check_generation(head: bytes, trust: Trust) -> None:
    """Raise RemoteFault(OTHER_GENERATION) where that is what makes a frame too long; nothing else is said of it."""
    try:
        open_statement(head, trust)
    except RemoteFault as fault:
        if fault.reason is Reason.OTHER_GENERATION:
            raise


def open_payload(statement: Statement, frame: bytes, trust: Trust) -> ModelUpdate:
    """The rest of `open_update`, for a receiver that has already opened the head of `frame`, which gave `statement`."""
    payload = memoryview(frame)[head_length(frame) :]
    if len(payload) != statement.payload_length:
        raise RemoteFault(Reason.WRONG_LENGTH, f"{len(payload)} bytes, {statement.payload_length} were announced")
    if hashlib.sha256(payload).hexdigest() != statement.payload_sha256:
        raise RemoteFault(Reason.WRONG_HASH)
    vector = decode_payload(payload, trust.schema, statement.encoding)
    update = ModelUpdate(statement, vector, frame, hashlib.sha256(_header(frame)).hexdigest())
    if not update.finite:
        raise RemoteFault(Reason.NOT_FINITE, signer=statement.sender)
    return update


def _bucket(rows: int) -> int:
    """The nearest power of two: an update need not say how many payments a bank has."""
    return 1 << round(math.log2(rows)) if rows else 0


def _header(frame: bytes) -> bytes:
    _, length = PREFIX.unpack_from(frame)
    return frame[PREFIX.size : PREFIX.size + length]


def _padded(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def _check_belongs(trust: Trust, statement: Statement) -> None:
    sender, ours = statement.sender, trust.manifest
    if statement.consortium != ours.consortium:
        raise RemoteFault(Reason.OTHER_CONSORTIUM, statement.consortium)  # its signer may well have said it there
    if statement.manifest_version not in trust.accepted_versions:
        raise RemoteFault(Reason.OTHER_GENERATION, f"{statement.manifest_version}, ours is {ours.version}", sender)
    if statement.model in trust.other_models:
        raise RemoteFault(Reason.OTHER_GENERATION, "it is of the model before or after a change", sender)
    if statement.model != trust.model_digest:
        raise RemoteFault(Reason.WRONG_SCHEMA, signer=sender)
    expected = payload_length(trust.schema, statement.encoding)
    if statement.payload_length != expected:
        raise RemoteFault(Reason.WRONG_LENGTH, f"{statement.payload_length} announced, not {expected}", sender)


# --- Heartbeats -------------------------------------------------------------------------------------------------------


def seal_heartbeat(signer: Signer, heartbeat: Heartbeat) -> SignedHeartbeat:
    """Our own row of the table.

    Raises ConfigError if its endpoints make it too long, ValueError if every receiver would refuse it.
    """
    if problem := heartbeat_problem(heartbeat):
        raise ValueError(f"cannot sign a heartbeat: {problem}")
    body = record.canonical(heartbeat)
    if len(body) + SIGNATURE_BYTES > MAX_HEARTBEAT:
        raise ConfigError(
            f"the advertised addresses make a heartbeat of {len(body) + SIGNATURE_BYTES} bytes, the limit is "
            f"{MAX_HEARTBEAT}: list fewer or shorter ones under peers.advertise"
        )
    return SignedHeartbeat(heartbeat, signer.sign(HEARTBEAT_DOMAIN + body) + body)


def open_heartbeat(signed: bytes, trust: Trust) -> SignedHeartbeat:
    """Check one signed row, of any manifest version: that is how members learn of a newer one. Raises RemoteFault."""
    row = _parse_heartbeat(signed)
    _check_heartbeat(row, trust)
    return row


def encode_table(table: HeartbeatTable) -> bytes:
    """Its parts one after another; raises ValueError beyond their limits."""
    if len(table.rows) > MAX_TABLE_ROWS:
        raise ValueError(f"a heartbeat table has at most {MAX_TABLE_ROWS} rows, this one has {len(table.rows)}")
    if len(table.heads) > MAX_TABLE_HEADS or len(table.proofs) > MAX_TABLE_PROOFS:
        raise ValueError(f"a heartbeat table has at most {MAX_TABLE_HEADS} statements and {MAX_TABLE_PROOFS} proofs")
    parts = [row.signed for row in table.rows]
    if table.heads or table.proofs:
        parts += [b"", *(head.signed for head in table.heads)]
    if table.proofs:
        parts += [b"", *map(evidence.encode_proof, table.proofs)]
    listed = b"".join(_ROW_LENGTH.pack(len(part)) + part for part in parts)
    return _TABLE_SEQ.pack(table.your_newest_seq) + listed


def decode_table(data: bytes, trust: Trust, known: dict[NodeId, bytes], held: Held = nothing_held) -> HeartbeatTable:
    """Check and read a table. Rows equal to the signed bytes in `known`, and statements `held`, are not verified again.

    What is about members this node does not know is left out: the peer's manifest may be newer or older than ours.
    Raises RemoteFault if anything else is wrong, or a member has two rows or statements.
    """
    if len(data) > MAX_TABLE:
        raise RemoteFault(Reason.OVERSIZE, f"a table of {len(data)} bytes, the limit is {MAX_TABLE}")
    if len(data) < _TABLE_SEQ.size:
        raise RemoteFault(Reason.MALFORMED, f"the table ends in its first {_TABLE_SEQ.size} bytes")
    (seq,) = _TABLE_SEQ.unpack_from(data)
    if seq > MAX_NUMBER:
        raise RemoteFault(Reason.MALFORMED, f"your_newest_seq is {seq}, the limit is {MAX_NUMBER}")
    rows, heads, proofs = _split_table(data[_TABLE_SEQ.size :])
    return HeartbeatTable(
        _decode_rows(rows, trust, known), _decode_heads(heads, trust, held), _decode_proofs(proofs, trust, held), seq
    )


def _decode_rows(parts: list[bytes], trust: Trust, known: dict[NodeId, bytes]) -> tuple[SignedHeartbeat, ...]:
    rows: dict[NodeId, SignedHeartbeat] = {}
    for signed in parts:
        row = _parse_heartbeat(signed)
        member = row.heartbeat.member
        if member not in trust.keys:
            continue
        if member in rows:
            raise RemoteFault(Reason.MALFORMED, f"two rows of {short(member)}")
        if known.get(member) != signed:
            _check_heartbeat(row, trust)
        rows[member] = row
    return tuple(rows.values())


def _decode_heads(parts: list[bytes], trust: Trust, held: Held) -> tuple[SignedStatement, ...]:
    heads: dict[NodeId, SignedStatement] = {}
    for signed in parts:
        head = evidence.parse_head(signed)
        member = head.statement.sender
        if member not in trust.keys:
            continue
        if member in heads:
            raise RemoteFault(Reason.MALFORMED, f"two statements of {short(member)}")
        evidence.check_head(head, trust.manifest, held)
        heads[member] = head
    return tuple(heads.values())


def _decode_proofs(parts: list[bytes], trust: Trust, held: Held) -> tuple[Equivocation, ...]:
    proofs: dict[str, Equivocation] = {}
    for data in parts:
        proof = evidence.parse_proof(data)
        if proof.member not in trust.keys:
            continue
        if proof.digest in proofs:
            raise RemoteFault(Reason.MALFORMED, f"one proof against {short(proof.member)} twice")
        evidence.check_proof(proof, trust.manifest, held)
        proofs[proof.digest] = proof
    return tuple(proofs.values())


_SECTIONS = ((MAX_TABLE_ROWS, "rows"), (MAX_TABLE_HEADS, "statements"), (MAX_TABLE_PROOFS, "proofs"))


def _split_table(data: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The rows, the signed statements and the proofs, none of them looked at."""
    parts: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
    section = start = 0
    while start < len(data):
        most, what = _SECTIONS[section]
        if start + _ROW_LENGTH.size > len(data):
            raise RemoteFault(Reason.MALFORMED, "the table ends inside a row's length")
        (length,) = _ROW_LENGTH.unpack_from(data, start)
        start += _ROW_LENGTH.size
        if start + length > len(data):
            raise RemoteFault(Reason.MALFORMED, "the table ends inside a row")
        if length:
            if len(parts[section]) == most:
                raise RemoteFault(Reason.OVERSIZE, f"a table of more than {most} {what}")
            parts[section].append(data[start : start + length])
        elif section == len(parts) - 1:
            raise RemoteFault(Reason.MALFORMED, f"a table of more than {len(parts)} parts")
        else:
            section += 1
        start += length
    if section and not parts[section]:
        raise RemoteFault(Reason.MALFORMED, "the table ends with an empty part")
    return parts


def _parse_heartbeat(signed: bytes) -> SignedHeartbeat:
    if len(signed) > MAX_HEARTBEAT:
        raise RemoteFault(Reason.OVERSIZE, f"a heartbeat of {len(signed)} bytes, the limit is {MAX_HEARTBEAT}")
    heartbeat = parsed(Heartbeat, signed[SIGNATURE_BYTES:])
    if problem := heartbeat_problem(heartbeat):
        raise RemoteFault(Reason.MALFORMED, problem[:MAX_DETAIL])
    return SignedHeartbeat(heartbeat, signed)


def _check_heartbeat(row: SignedHeartbeat, trust: Trust) -> None:
    heartbeat, signed = row.heartbeat, row.signed
    body, signature = signed[SIGNATURE_BYTES:], signed[:SIGNATURE_BYTES]
    check_signature(trust.manifest, heartbeat.member, HEARTBEAT_DOMAIN + body, signature)
    if heartbeat.consortium != trust.manifest.consortium:
        raise RemoteFault(Reason.OTHER_CONSORTIUM, heartbeat.consortium)


# --- Hello ------------------------------------------------------------------------------------------------------------


def encode_hello(hello: Hello) -> bytes:
    """Canonical JSON."""
    return record.canonical(hello)


def decode_hello(data: bytes) -> Hello:
    """Read a Hello, skipping fields it does not know: every version must understand a later one's first words.

    It is not signed: the caller holds `member` against the TLS certificate. Raises RemoteFault.
    """
    if len(data) > MAX_HELLO:
        raise RemoteFault(Reason.OVERSIZE, f"a hello of {len(data)} bytes, the limit is {MAX_HELLO}")
    try:
        value = record.load(data)
        if isinstance(value, dict):
            value = {f.name: value[f.name] for f in fields(Hello) if f.name in value}
        hello = record.build(Hello, value)
    except record.RecordError as error:
        raise RemoteFault(Reason.MALFORMED, str(error)[:MAX_DETAIL]) from None
    if problem := hello_problem(hello):
        raise RemoteFault(Reason.MALFORMED, problem)
    return hello
