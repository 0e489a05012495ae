"""Heartbeats, their tables, hellos: what is accepted, and the name of every refusal."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core import checks, record, wire
from p2pfed.core.identity import HEARTBEAT_DOMAIN, Identity
from p2pfed.core.messages import Heartbeat, HeartbeatTable, Hello, SignedHeartbeat
from p2pfed.core.types import NodeId, Reason
from p2pfed.errors import ConfigError, RemoteFault
from tests.consortia import consortium

HOUSE = consortium()
MANIFEST = HOUSE.manifest
SENDER, OTHER = HOUSE.members[0], HOUSE.members[1]
TRUST = wire.trust_of(MANIFEST)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
BEAT = Heartbeat(
    consortium=MANIFEST.consortium,
    member=SENDER.node_id,
    epoch=2,
    counter=77,
    manifest_version=1,
    seq=5,
    endpoints=("bank-0.example:7443", "[::1]:7443"),
    leaving=False,
    protocol_min=1,
    protocol_max=1,
    software="p2pfed 0.1.0",
)
ROW = wire.seal_heartbeat(SENDER, BEAT)
LONG = tuple(f"{'h' * 200}-{i}:1" for i in range(8))


def row_of(signer: Identity, **changes: Any) -> SignedHeartbeat:
    return wire.seal_heartbeat(signer, replace(BEAT, member=signer.node_id, **changes))


def signed_beat(**changes: Any) -> bytes:
    """What a hostile member could put into a table."""
    body = record.canonical(replace(BEAT, **changes))
    return SENDER.sign(HEARTBEAT_DOMAIN + body) + body


def table(*signed: bytes) -> bytes:
    return bytes(8) + b"".join(len(s).to_bytes(2, "little") + s for s in signed)


def refusal(decode: Any, *args: Any) -> Reason:
    with pytest.raises(RemoteFault) as caught:
        decode(*args)
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) <= wire.MAX_DETAIL
    return caught.value.reason


def table_refusal(data: bytes, known: dict[NodeId, bytes] | None = None) -> Reason:
    return refusal(wire.decode_table, data, TRUST, known or {})


# --- One heartbeat ----------------------------------------------------------------------------------------------------


def test_the_bytes_of_a_heartbeat_never_change():
    assert hashlib.sha256(ROW.signed).hexdigest() == "774342d0800b7cea2cb2c4d1b8b70322d5ed9d283a3e582be7e4382685435548"


def test_a_heartbeat_opens_as_it_was_sealed():
    assert wire.open_heartbeat(ROW.signed, TRUST) == ROW


def test_a_heartbeat_of_any_manifest_version_counts():
    assert wire.open_heartbeat(signed_beat(manifest_version=9), TRUST).heartbeat.manifest_version == 9


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"member": NodeId("A" * 56)}, Reason.NOT_A_MEMBER),
        ({"member": OTHER.node_id}, Reason.FORGED_SIGNATURE),
        ({"consortium": "00" * 16}, Reason.OTHER_CONSORTIUM),
        ({"consortium": ""}, Reason.MALFORMED),
        ({"epoch": -1}, Reason.MALFORMED),
        ({"counter": 2**63}, Reason.MALFORMED),
        ({"manifest_version": 0}, Reason.MALFORMED),
        ({"seq": -1}, Reason.MALFORMED),
        ({"endpoints": ("nowhere" * 40,)}, Reason.MALFORMED),
        ({"endpoints": ("a:1",) * 9}, Reason.MALFORMED),
        ({"protocol_min": 0}, Reason.MALFORMED),
        ({"protocol_min": 2}, Reason.MALFORMED),
        ({"software": "x" * 65}, Reason.MALFORMED),
        ({"software": "a\nfake log line"}, Reason.MALFORMED),
        ({"software": "\u202e"}, Reason.MALFORMED),
        ({"endpoints": LONG}, Reason.OVERSIZE),
    ],
)
def test_a_wrong_heartbeat_is_refused_by_name(changes, reason):
    assert refusal(wire.open_heartbeat, signed_beat(**changes), TRUST) is reason


@given(st.integers(0, len(ROW.signed) * 8 - 1))
def test_any_flipped_bit_of_a_heartbeat_is_refused(bit):
    signed = bytearray(ROW.signed)
    signed[bit // 8] ^= 1 << bit % 8
    refusal(wire.open_heartbeat, bytes(signed), TRUST)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_heartbeat(data):
    assert refusal(wire.open_heartbeat, data, TRUST) is Reason.MALFORMED


@given(st.sampled_from([*Heartbeat.__annotations__]), JSON)
def test_a_signed_heartbeat_with_any_value_anywhere_is_refused_or_read(name, value):
    fields = {**record.plain(BEAT), name: value}
    body = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    try:
        row = wire.open_heartbeat(SENDER.sign(HEARTBEAT_DOMAIN + body) + body, TRUST)
    except RemoteFault as fault:
        assert fault.detail.isprintable()
    else:
        assert record.plain(row.heartbeat) == fields


def test_addresses_too_long_for_a_heartbeat_are_the_operators_mistake():
    with pytest.raises(ConfigError, match=r"list fewer or shorter ones under peers\.advertise"):
        row_of(SENDER, endpoints=LONG)
    with pytest.raises(ValueError, match="more than 8 endpoints"):
        row_of(SENDER, endpoints=("a:1",) * 9)


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_a_table_of_the_longest_rows_is_within_the_limit():
    assert wire.MAX_TABLE_ROWS * (wire.MAX_HEARTBEAT + 2) <= wire.MAX_TABLE


def test_a_table_comes_back_as_it_went():
    for seq in (0, 1, 2**63 - 1):
        told = HeartbeatTable(tuple(row_of(signer) for signer in HOUSE.members), your_newest_seq=seq)
        assert wire.decode_table(wire.encode_table(told), TRUST, {}) == told
    assert wire.decode_table(bytes(8), TRUST, {}) == HeartbeatTable(())


def test_rows_already_known_are_not_verified_again(monkeypatch):
    rows = [row_of(signer) for signer in HOUSE.members]
    verified = []
    real = checks.verify
    monkeypatch.setattr(checks, "verify", lambda *args: verified.append(args) or real(*args))
    known = {r.heartbeat.member: r.signed for r in rows[:2]}
    wire.decode_table(table(*(r.signed for r in rows)), TRUST, known)
    assert [key for key, _, _ in verified] == [HOUSE.members[2].public_key]


def test_only_the_very_same_bytes_count_as_known():
    forged = bytes(64) + ROW.signed[64:]
    assert table_refusal(table(forged), {SENDER.node_id: ROW.signed}) is Reason.FORGED_SIGNATURE
    assert table_refusal(table(forged), {OTHER.node_id: forged}) is Reason.FORGED_SIGNATURE


def test_rows_of_unknown_members_are_left_out():
    newcomer = row_of(Identity.from_seed(b"n" * 32))
    assert wire.decode_table(table(newcomer.signed, ROW.signed), TRUST, {}).rows == (ROW,)


def test_one_forged_row_costs_the_table():
    assert table_refusal(table(ROW.signed, signed_beat(member=OTHER.node_id))) is Reason.FORGED_SIGNATURE


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (table(ROW.signed, ROW.signed), Reason.MALFORMED),
        (table(ROW.signed)[:-1], Reason.MALFORMED),
        (table(ROW.signed) + b"\1", Reason.MALFORMED),
        (b"", Reason.MALFORMED),
        (bytes(7), Reason.MALFORMED),
        (bytes(7) + b"\x80", Reason.MALFORMED),
        (table(b""), Reason.MALFORMED),
        (bytes(8) + b"\xff\xff" + bytes(65535), Reason.OVERSIZE),
        (bytes(wire.MAX_TABLE + 1), Reason.OVERSIZE),
        (table(*[row_of(Identity.from_seed(i.to_bytes(32, "big"))).signed for i in range(300, 501)]), Reason.OVERSIZE),
    ],
)
def test_a_wrong_table_is_refused_by_name(data, reason):
    assert table_refusal(data) is reason


def test_we_send_no_table_that_is_too_long():
    with pytest.raises(ValueError, match="at most 200 rows, this one has 201"):
        wire.encode_table(HeartbeatTable((ROW,) * 201))


@given(st.binary(max_size=300))
def test_random_bytes_make_no_table_with_rows(data):
    try:
        assert wire.decode_table(data, TRUST, {}).rows == ()
    except RemoteFault as fault:
        assert fault.detail.isprintable()


# --- Hello ------------------------------------------------------------------------------------------------------------

HELLO = Hello(
    consortium=MANIFEST.consortium,
    member=SENDER.node_id,
    protocol_min=1,
    protocol_max=1,
    manifest_version=1,
    model=MANIFEST.model_digest,
    software="p2pfed 0.1.0",
    your_newest_seq=0,
)


def test_a_hello_comes_back_as_it_went():
    assert wire.decode_hello(wire.encode_hello(HELLO)) == HELLO


def test_the_hello_of_a_later_version_is_understood():
    later = json.dumps({**record.plain(HELLO), "protocol_max": 3, "features": ["relay"]}).encode()
    assert wire.decode_hello(later) == replace(HELLO, protocol_max=3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"[]", Reason.MALFORMED),
        (b"{}", Reason.MALFORMED),
        (b" " * 5000, Reason.OVERSIZE),
        (wire.encode_hello(replace(HELLO, protocol_min=3)), Reason.MALFORMED),
        (wire.encode_hello(replace(HELLO, consortium="")), Reason.MALFORMED),
        (wire.encode_hello(replace(HELLO, model="")), Reason.MALFORMED),
        (wire.encode_hello(replace(HELLO, manifest_version=0)), Reason.MALFORMED),
        (wire.encode_hello(replace(HELLO, your_newest_seq=-1)), Reason.MALFORMED),
        (wire.encode_hello(replace(HELLO, software="\x1b[2J")), Reason.MALFORMED),
    ],
)
def test_a_wrong_hello_is_refused_by_name(data, reason):
    assert refusal(wire.decode_hello, data) is reason


@given(st.sampled_from([*Hello.__annotations__]), JSON)
def test_a_hello_with_any_value_anywhere_is_refused_or_read(name, value):
    fields = {**record.plain(HELLO), name: value}
    try:
        assert record.plain(wire.decode_hello(json.dumps(fields).encode())) == fields
    except RemoteFault as fault:
        assert fault.detail.isprintable()


@given(JSON)
def test_other_json_is_no_hello(value):
    assert refusal(wire.decode_hello, json.dumps(value).encode()) is Reason.MALFORMED


# --- Trust ------------------------------------------------------------------------------------------------------------


def test_trust_knows_each_members_key():
    assert TRUST.keys == {i.node_id: i.public_key for i in HOUSE.members}
    assert TRUST.keys.keys() == MANIFEST.by_id.keys()
    assert TRUST.accepted_versions == {1}
