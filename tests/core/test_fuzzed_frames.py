"""Mutilated bytes from strangers and from hostile members: a RemoteFault and nothing else.

FUZZ_FRAMES says how many (20,000 by default); a million take some minutes of one core:
`FUZZ_FRAMES=1000000 scripts/test tests/core/test_fuzzed_frames.py -s`.
"""

import os
from collections import Counter
from collections.abc import Callable

import numpy as np

from p2pfed.core import record, wire
from p2pfed.core.identity import HEARTBEAT_DOMAIN, UPDATE_DOMAIN
from p2pfed.core.messages import Heartbeat, HeartbeatTable, Hello
from p2pfed.core.types import Reason
from p2pfed.errors import RemoteFault
from tests.consortia import consortium

FRAMES = int(os.environ.get("FUZZ_FRAMES", "20000"))

HOUSE = consortium()
MANIFEST, MEMBER = HOUSE.manifest, HOUSE.members[0]
TRUST = wire.trust_of(MANIFEST)
UPDATE = wire.seal_update(
    MEMBER,
    manifest=MANIFEST,
    instance="ab" * 16,
    seq=5,
    previous="cd" * 32,
    round=4,
    rows=1000,
    vector=MANIFEST.model.initial_weights(3).vector,
)
ROWS = tuple(
    wire.seal_heartbeat(
        member, Heartbeat(MANIFEST.consortium, member.node_id, 2, 77, 1, 5, ("[::1]:7443",), False, 1, 1, "p2pfed")
    )
    for member in HOUSE.members
)
HELLO = Hello(MANIFEST.consortium, MEMBER.node_id, 1, 1, 1, MANIFEST.model_digest, "p2pfed", 3)
PIECES = (
    b"",
    b"-",
    b"0",
    b"9" * 30,
    b"1e999",
    b"NaN",
    b"null",
    b"[[",
    b'"',
    b"\\ud800",
    b"\xff\xfe",
    b"\0",
    b"\n",
    b",",
)


def mutilated(good: bytes, rng: np.random.Generator) -> bytes:
    """`good` with a few bytes overwritten, taken out or put in, and now and then cut off."""
    data = bytearray(good)
    start, reach = ((0, 16), (0, len(good)), (len(good) // 2, len(good)))[rng.integers(3)]
    for _ in range(min(rng.geometric(0.6), 5)):
        place = min(rng.integers(start, reach), len(data) - 1)
        if rng.random() < 0.7:
            data[place] = rng.integers(0, 256)
        else:
            data[place : place + rng.integers(0, 9)] = PIECES[rng.integers(len(PIECES))]
    return bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.2 else data)


def update(rng: np.random.Generator) -> None:
    wire.open_update(mutilated(UPDATE.frame, rng), TRUST)


def signed_update(rng: np.random.Generator) -> None:
    header = mutilated(record.canonical(UPDATE.statement), rng)
    head = wire.PREFIX.pack(wire.MAGIC, len(header)) + header + MEMBER.sign(UPDATE_DOMAIN + header)
    wire.open_update(head + bytes(-len(head) % wire.ALIGNMENT) + UPDATE.frame[wire.head_length(UPDATE.frame) :], TRUST)


def table(rng: np.random.Generator) -> None:
    wire.decode_table(mutilated(wire.encode_table(HeartbeatTable(ROWS)), rng), TRUST, {})


def signed_heartbeat(rng: np.random.Generator) -> None:
    body = mutilated(record.canonical(ROWS[0].heartbeat), rng)
    wire.open_heartbeat(MEMBER.sign(HEARTBEAT_DOMAIN + body) + body, TRUST)


def hello(rng: np.random.Generator) -> None:
    wire.decode_hello(mutilated(wire.encode_hello(HELLO), rng))


KINDS: tuple[Callable[[np.random.Generator], None], ...] = (update, signed_update, table, signed_heartbeat, hello)


def test_whatever_comes_is_read_or_refused():
    rng = np.random.default_rng(0)
    refused: Counter[Reason] = Counter()
    for i in range(FRAMES):
        try:
            KINDS[i % len(KINDS)](rng)
        except RemoteFault as fault:
            assert len(fault.detail) <= wire.MAX_DETAIL
            assert fault.detail.isprintable()
            refused[fault.reason] += 1
    print(f"{FRAMES} frames, {FRAMES - refused.total()} read, refused:", *(f"{r.name} {n}" for r, n in refused.items()))
    assert refused.total() > 0.8 * FRAMES
    assert refused.keys() >= {
        Reason.MALFORMED, Reason.OVERSIZE, Reason.FORGED_SIGNATURE, Reason.WRONG_HASH, Reason.WRONG_LENGTH,
        Reason.NOT_A_MEMBER,
    }  # fmt: skip
