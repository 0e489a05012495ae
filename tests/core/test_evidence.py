"""Proofs of equivocation: what convicts, what does not, and the one form that a proof has."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core import evidence, record, wire
from p2pfed.core.consortium import Manifest
from p2pfed.core.fields import MAX_INSTANCE, MAX_NUMBER
from p2pfed.core.identity import UPDATE_DOMAIN, Identity
from p2pfed.core.messages import Equivocation, HeartbeatTable, ModelUpdate, SignedStatement, Statement
from p2pfed.core.types import Reason
from p2pfed.errors import RemoteFault
from tests.consortia import consortium

HOUSE = consortium()
MANIFEST = HOUSE.manifest
LIAR, OTHER = HOUSE.members[0], HOUSE.members[1]
TRUST = wire.trust_of(MANIFEST)
SIZE = MANIFEST.model.schema().size


def update(value: float, seq: int = 7, signer: Identity = LIAR, manifest: Manifest = MANIFEST) -> ModelUpdate:
    return wire.seal_update(
        signer, manifest=manifest, instance="ab" * 16, seq=seq, previous="cd" * 32, round=4, rows=1000,
        vector=np.full(SIZE, value, np.float32),
    )  # fmt: skip


def head(signer: Identity = LIAR, **changes: Any) -> SignedStatement:
    """What a hostile member can sign: any statement at all."""
    body = record.canonical(replace(update(0).statement, sender=signer.node_id, **changes))
    signed = signer.sign(UPDATE_DOMAIN + body) + body
    return SignedStatement(record.parse(Statement, body), signed, hashlib.sha256(body).hexdigest())


def pair(one: SignedStatement, other: SignedStatement) -> bytes:
    """A proof as a hostile member could write it, in order of digests."""
    one, other = sorted((one, other), key=lambda h: h.digest)
    return evidence.encode_proof(Equivocation(one, other))


def proven(one: ModelUpdate, other: ModelUpdate) -> Equivocation:
    found = evidence.contradiction(one.head, other.head)
    assert found is not None
    return found


def refusal(data: bytes, manifest: Manifest = MANIFEST) -> Reason:
    with pytest.raises(RemoteFault) as caught:
        evidence.open_proof(data, manifest)
    assert caught.value.signer is None, "a false proof costs who hands it over, nobody else"
    assert len(caught.value.detail) <= wire.MAX_DETAIL and caught.value.detail.isprintable()
    return caught.value.reason


PROOF = proven(update(1), update(2))
ENCODED = evidence.encode_proof(PROOF)


# --- making and reading -----------------------------------------------------------------------------------------------


def test_two_updates_with_one_number_prove_by_themselves() -> None:
    assert evidence.open_proof(ENCODED, MANIFEST) == PROOF
    assert (PROOF.member, PROOF.seq) == (LIAR.node_id, 7)
    assert len(ENCODED) < evidence.MAX_PROOF


def test_a_third_party_needs_the_manifest_and_neither_updates_nor_the_version_they_were_made_under() -> None:
    later = replace(MANIFEST, version=9, previous="00" * 32, generation=5, members=MANIFEST.members[:2])
    assert evidence.open_proof(ENCODED, later) == PROOF


def test_whoever_puts_it_together_gets_the_same_proof() -> None:
    assert proven(update(2), update(1)) == PROOF and PROOF.one.digest < PROOF.other.digest
    assert PROOF.digest == proven(update(2), update(1)).digest != proven(update(1), update(3)).digest


def test_the_bytes_of_a_proof_never_change() -> None:
    assert hashlib.sha256(ENCODED).hexdigest() == "9ba6c361351271075e9b361d438f5c557cb763ec8596059cce66f2d2713b104a"
    assert PROOF.digest == "95f8be0ba8d8812a32eb57c1d527389f0262d82e8c528f447d351c3b9d1a02b1"


@pytest.mark.parametrize(
    "other",
    [update(1), update(2, seq=8), update(2, signer=OTHER), update(2, manifest=replace(MANIFEST, consortium="ff" * 16))],
    ids=["the same", "another number", "another member", "another consortium"],
)
def test_what_does_not_contradict_is_no_proof(other: ModelUpdate) -> None:
    assert evidence.contradiction(update(1).head, other.head) is None


def test_a_restored_backup_that_jumps_over_its_forgotten_numbers_is_not_convicted() -> None:
    """Both statements name the same `previous`; the numbers differ."""
    assert evidence.contradiction(head(seq=11), head(seq=21)) is None
    assert refusal(pair(head(seq=11), head(seq=21))) is Reason.MALFORMED


@given(
    st.tuples(*[st.integers(0, MAX_NUMBER)] * 4), st.integers(1, MAX_NUMBER), st.sampled_from(["", "ef" * 32]),
    st.text("0123456789abcdef", min_size=1, max_size=MAX_INSTANCE),
)  # fmt: skip
def test_any_two_statements_that_may_be_signed_make_a_proof_within_its_limit(
    numbers: tuple[int, int, int, int], seq: int, previous: str, instance: str
) -> None:
    version, age, length, bucket = numbers
    fields = {"seq": seq, "previous": previous, "instance": instance, "rows": 1 << bucket % 63, "encoding": "float32"}
    one = head(**fields, manifest_version=max(version, 1), round=age, payload_length=length)
    proof = evidence.contradiction(one, head(seq=seq, payload_sha256="00" * 32))
    assert proof is not None
    assert evidence.open_proof(evidence.encode_proof(proof), MANIFEST) == proof
    assert evidence.parse_head(one.signed) == one


def test_the_largest_statements_fit_the_limits_and_everything_fits_a_table() -> None:
    large = {
        "manifest_version": MAX_NUMBER, "seq": MAX_NUMBER, "round": MAX_NUMBER, "rows": 1 << 62,
        "payload_length": MAX_NUMBER, "instance": "f" * MAX_INSTANCE, "encoding": "float32",
    }  # fmt: skip
    one, other = head(**large, payload_sha256="00" * 32), head(**large, payload_sha256="11" * 32)
    assert len(one.signed) <= evidence.MAX_HEAD and len(pair(one, other)) <= evidence.MAX_PROOF
    parts = (
        wire.MAX_TABLE_ROWS * (2 + wire.MAX_HEARTBEAT),
        2 + wire.MAX_TABLE_HEADS * (2 + evidence.MAX_HEAD),
        2 + wire.MAX_TABLE_PROOFS * (2 + evidence.MAX_PROOF),
    )
    assert sum(parts) <= wire.MAX_TABLE


# --- lies -------------------------------------------------------------------------------------------------------------


def test_a_proof_altered_in_any_byte_is_refused() -> None:
    for place in range(len(ENCODED)):
        altered = bytearray(ENCODED)
        altered[place] ^= 1
        refusal(bytes(altered))
    for length in range(len(ENCODED)):
        refusal(ENCODED[:length])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ENCODED + b" " * 2048, Reason.OVERSIZE),
        (ENCODED + b"\n", Reason.MALFORMED),
        (b"", Reason.MALFORMED),
        (evidence.encode_proof(Equivocation(PROOF.other, PROOF.one)), Reason.MALFORMED),  # a second form of one proof
        (pair(update(1).head, update(1).head), Reason.MALFORMED),
        (pair(update(1).head, update(2, signer=OTHER).head), Reason.MALFORMED),
        (pair(update(1).head, update(2, seq=8).head), Reason.MALFORMED),
        (pair(update(1).head, head(seq=7, consortium="ff" * 16)), Reason.MALFORMED),
        (pair(head(consortium="ff" * 16), head(consortium="ff" * 16, rows=2)), Reason.OTHER_CONSORTIUM),
        (pair(head(rows=3), head()), Reason.MALFORMED),
        (pair(head(seq=0), head(seq=0, rows=2)), Reason.MALFORMED),
        (pair(head(signer=Identity.from_seed(bytes(32))), head(signer=Identity.from_seed(bytes(32)), rows=2)),
         Reason.NOT_A_MEMBER),
    ],
)  # fmt: skip
def test_a_wrong_proof_is_refused_by_name(data: bytes, reason: Reason) -> None:
    assert refusal(data) is reason


def test_nobody_can_be_slandered() -> None:
    """Without the victim's key: one true statement, and one made up with whatever signatures there are."""
    true, invented = update(1).head, replace(update(2).statement, rows=4)
    body = record.canonical(invented)
    for signature in (OTHER.sign(UPDATE_DOMAIN + body), LIAR.sign(body), true.signed[:64], bytes(64)):
        made_up = SignedStatement(invented, signature + body, hashlib.sha256(body).hexdigest())
        assert refusal(pair(true, made_up)) is Reason.FORGED_SIGNATURE


# --- in a table -------------------------------------------------------------------------------------------------------


def table_refusal(table: HeartbeatTable | bytes) -> Reason:
    data = bytes(8) + table if isinstance(table, bytes) else wire.encode_table(table)
    with pytest.raises(RemoteFault) as caught:
        wire.decode_table(data, TRUST, {})
    assert caught.value.signer is None
    return caught.value.reason


def test_a_table_carries_statements_and_proofs_and_is_unchanged_without() -> None:
    heads = (update(1).head, update(1, signer=OTHER).head)
    for told in (HeartbeatTable((), heads), HeartbeatTable((), (), (PROOF,)), HeartbeatTable((), heads, (PROOF,))):
        assert wire.decode_table(wire.encode_table(told), TRUST, {}) == told
    assert wire.encode_table(HeartbeatTable(())) == bytes(8)


def test_a_table_is_refused_for_what_is_wrong_in_it() -> None:
    forged = SignedStatement(PROOF.one.statement, bytes(64) + PROOF.one.signed[64:], PROOF.one.digest)
    assert table_refusal(HeartbeatTable((), (forged,))) is Reason.FORGED_SIGNATURE
    assert table_refusal(HeartbeatTable((), (), (Equivocation(forged, PROOF.other),))) is Reason.FORGED_SIGNATURE
    assert table_refusal(HeartbeatTable((), (update(1).head, update(2, seq=8).head))) is Reason.MALFORMED
    assert table_refusal(HeartbeatTable((), (), (PROOF, PROOF))) is Reason.MALFORMED
    one, proof = (len(p).to_bytes(2, "little") + p for p in (PROOF.one.signed, ENCODED))
    end = b"\0\0"
    assert table_refusal(end + one * 9) is Reason.OVERSIZE
    assert table_refusal(end * 2 + proof * 9) is Reason.OVERSIZE
    assert table_refusal(end * 2 + (2049).to_bytes(2, "little") + bytes(2049)) is Reason.OVERSIZE
    for wrong in (end, end * 2, end + one + end, end * 2 + proof + end, end * 2 + one):
        assert table_refusal(wrong) is Reason.MALFORMED


def test_what_is_about_strangers_is_left_out() -> None:
    stranger = Identity.from_seed(bytes(32))
    lies = (head(signer=stranger), head(signer=stranger, rows=2))
    proof = evidence.contradiction(*lies)
    assert proof is not None
    told = HeartbeatTable((), (lies[0], update(1).head), (proof, PROOF))
    assert wire.decode_table(wire.encode_table(told), TRUST, {}) == HeartbeatTable((), (update(1).head,), (PROOF,))


def test_what_is_held_is_not_verified_again() -> None:
    asked: list[SignedStatement] = []

    def held(one: SignedStatement) -> bool:
        asked.append(one)
        return True

    told = HeartbeatTable((), (update(1).head,), (PROOF,))
    assert wire.decode_table(wire.encode_table(told), TRUST, {}, held) == told
    assert asked == [update(1).head, PROOF.one, PROOF.other]


def test_a_proof_reads_like_what_was_signed() -> None:
    said = json.loads(ENCODED)
    assert said["schema"] == "p2pfed.equivocation/1"
    assert [s["statement"]["seq"] for s in said["statements"]] == [7, 7]
