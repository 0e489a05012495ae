"""Update frames: what is accepted, and the name of every refusal."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from p2pfed.core import record, wire
from p2pfed.core.fields import MAX_NUMBER
from p2pfed.core.identity import UPDATE_DOMAIN, Identity
from p2pfed.core.messages import ModelUpdate, Statement
from p2pfed.core.payload import payload_length
from p2pfed.core.types import Reason
from p2pfed.errors import RemoteFault
from tests.consortia import consortium, next_version

HOUSE = consortium()
MANIFEST = HOUSE.manifest
SENDER, OTHER = HOUSE.members[0], HOUSE.members[1]
TRUST = wire.trust_of(MANIFEST)
SIZE = TRUST.schema.size
VECTOR = MANIFEST.model.initial_weights(3).vector

GOLDEN = (
    "50324631f60100007b22636f6e736f727469756d223a2263306330633063306330633063306330633063306330633063306330633063"
    "30222c226379636c65223a302c22656e636f64696e67223a22666c6f61743332222c22696e7374616e6365223a226162616261626162"
    "616261626162616261626162616261626162616261626162222c226d616e69666573745f76657273696f6e223a312c226d6f64656c22"
    "3a2263346461393861623663626561383836306338343364646265633236353531393533353335633866346366633734653061663533"
    "316532366663353738313066222c227061796c6f61645f6c656e677468223a31362c227061796c6f61645f736861323536223a226331"
    "363337323839396132393036643566386464636264363337316136653233313539303962396137313935333638656435353739333930"
    "3465396233336433222c2270726576696f7573223a226364636463646364636463646364636463646364636463646364636463646364"
    "6364636463646364636463646364636463646364636463646364636463646364222c22726f756e64223a342c22726f7773223a313032"
    "342c2273656e646572223a224a4a54544743344148564f495134354c32374f4a5351594b54495335554a59534d445449443744353343"
    "49513657574655444b44354c5152222c22736571223a357d1050c9f33cef6937d9d04d49abaa192b48e97ce198612e74d6f43f723ad3"
    "885af5c33d8db507037ef303257221bf73638c66bd936c548c23b391e7388a7c610500000000803f000000c00000003f00000000"
)


def seal(vector=VECTOR, *, manifest=MANIFEST, signer=SENDER, **changes: Any) -> ModelUpdate:
    fields = {"instance": "ab" * 16, "seq": 5, "previous": "cd" * 32, "round": 4, "rows": 1000, **changes}
    return wire.seal_update(signer, manifest=manifest, vector=vector, **fields)


def encoded(encoding: str):
    return replace(MANIFEST, gossip=replace(MANIFEST.gossip, encoding=encoding))


UPDATE = seal()
HEAD = wire.head_length(UPDATE.frame)
HEADER = record.canonical(UPDATE.statement)


def frame_of(header: bytes, payload: bytes = UPDATE.frame[HEAD:], signer: Identity = SENDER) -> bytes:
    """What a hostile member could send: any header, signed."""
    head = wire.PREFIX.pack(wire.MAGIC, len(header)) + header + signer.sign(UPDATE_DOMAIN + header)
    return head + bytes(-len(head) % wire.ALIGNMENT) + payload


def signed_frame(payload: bytes = UPDATE.frame[HEAD:], **changes: Any) -> bytes:
    """A frame whose statement says `changes` and the truth about everything else."""
    truth = {"payload_length": len(payload), "payload_sha256": hashlib.sha256(payload).hexdigest()}
    return frame_of(record.canonical(replace(UPDATE.statement, **{**truth, **changes})), payload)


def refusal(frame: bytes, trust: wire.Trust = TRUST) -> RemoteFault:
    with pytest.raises(RemoteFault) as caught:
        wire.open_update(frame, trust)
    assert len(caught.value.detail) <= wire.MAX_DETAIL
    assert caught.value.detail.isprintable()
    return caught.value


# --- What is accepted -------------------------------------------------------------------------------------------------


def test_the_bytes_of_a_frame_never_change():
    tiny = consortium(members=1, hidden=(1,), inputs=1)
    vector = np.array([1, -2, 0.5, 0], np.float32)
    update = seal(vector, manifest=tiny.manifest, signer=tiny.members[0])
    assert update.frame.hex() == GOLDEN
    assert wire.open_update(bytes.fromhex(GOLDEN), wire.trust_of(tiny.manifest)).vector.tolist() == [1, -2, 0.5, 0]


@given(
    vector=hnp.arrays(np.float32, SIZE, elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    encoding=st.sampled_from(["float32", "float16", "int8"]),
    seq=st.integers(1, MAX_NUMBER),
    rows=st.integers(0, 10**9),
)
def test_what_is_sealed_opens_as_the_same_update(vector, encoding, seq, rows):
    manifest = encoded(encoding)
    sealed = seal(vector, manifest=manifest, seq=seq, rows=rows)
    opened = wire.open_update(sealed.frame, wire.trust_of(manifest))
    assert opened == sealed
    assert opened.statement == sealed.statement
    assert opened.digest == sealed.digest == hashlib.sha256(record.canonical(sealed.statement)).hexdigest()
    assert np.array_equal(opened.vector, sealed.vector)
    assert not opened.vector.flags.writeable
    assert len(opened.frame) <= wire.frame_limit(TRUST.schema)


def test_a_float32_vector_is_an_aligned_view_into_the_frame():
    for digits in range(1, 9):  # headers of every length modulo 4
        sealed = seal(seq=10**digits)
        vector = wire.open_update(sealed.frame, TRUST).vector
        assert np.shares_memory(vector, np.frombuffer(sealed.frame, np.uint8))
        assert vector.flags.aligned
        assert np.array_equal(vector, VECTOR)


@pytest.mark.parametrize(("rows", "told"), [(0, 0), (1, 1), (3, 4), (5, 4), (1000, 1024), (1_400_000, 2**20)])
def test_training_rows_are_told_as_a_power_of_two(rows, told):
    assert seal(rows=rows).statement.rows == told


def test_the_head_alone_can_be_judged_before_the_payload_is_read():
    assert wire.head_length(UPDATE.frame[: wire.PREFIX.size]) == HEAD <= wire.head_limit()
    assert wire.open_statement(UPDATE.frame[:HEAD], TRUST) == UPDATE.statement
    assert HEAD + UPDATE.statement.payload_length == len(UPDATE.frame)


def test_any_member_may_be_the_sender():
    assert wire.open_update(seal(signer=OTHER).frame, TRUST).statement.sender == OTHER.node_id


def test_updates_of_the_version_before_count_while_a_new_one_spreads():
    successor = next_version(MANIFEST)
    assert wire.open_update(UPDATE.frame, wire.trust_of(successor, MANIFEST)) == UPDATE
    assert wire.trust_of(successor).accepted_versions == {2}


def test_updates_of_the_version_before_are_ignored_once_another_model_is_trained():
    trust = wire.trust_of(next_version(MANIFEST, generation=2), MANIFEST)
    assert refusal(UPDATE.frame, trust).reason is Reason.OTHER_GENERATION


def test_updates_of_a_version_still_to_come_are_ignored():
    assert refusal(seal(manifest=next_version(MANIFEST)).frame).reason is Reason.OTHER_GENERATION


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sender": "A" * 56}, Reason.NOT_A_MEMBER),
        ({"sender": "\n\u202e"}, Reason.NOT_A_MEMBER),
        ({"sender": OTHER.node_id}, Reason.FORGED_SIGNATURE),
        ({"seq": 0}, Reason.MALFORMED),
        ({"seq": -1}, Reason.MALFORMED),
        ({"seq": 2**63}, Reason.MALFORMED),
        ({"round": -1}, Reason.MALFORMED),
        ({"round": 2**63}, Reason.MALFORMED),
        ({"rows": 3}, Reason.MALFORMED),
        ({"rows": -4}, Reason.MALFORMED),
        ({"rows": 2**63}, Reason.MALFORMED),
        ({"manifest_version": 0}, Reason.MALFORMED),
        ({"previous": "cd"}, Reason.MALFORMED),
        ({"previous": "CD" * 32}, Reason.MALFORMED),
        ({"instance": ""}, Reason.MALFORMED),
        ({"instance": "a" * 65}, Reason.MALFORMED),
        ({"instance": "\n"}, Reason.MALFORMED),
        ({"consortium": "x"}, Reason.MALFORMED),
        ({"model": "0" * 63}, Reason.MALFORMED),
        ({"payload_sha256": "0"}, Reason.MALFORMED),
        ({"payload_length": -1}, Reason.MALFORMED),
        ({"encoding": "float64"}, Reason.MALFORMED),
    ],
)
def test_a_statement_nobody_could_honestly_make_is_blamed_on_who_hands_it_over(changes, reason):
    fault = refusal(signed_frame(**changes))
    assert (fault.reason, fault.signer) == (reason, None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"manifest_version": 2}, Reason.OTHER_GENERATION),
        ({"model": "00" * 32}, Reason.WRONG_SCHEMA),
        ({"payload_length": SIZE * 4 + 1}, Reason.WRONG_LENGTH),
        ({"payload_length": 0}, Reason.WRONG_LENGTH),
        ({"encoding": "float16"}, Reason.WRONG_LENGTH),
        ({"encoding": "int8"}, Reason.WRONG_LENGTH),
    ],
)
def test_content_that_was_signed_is_blamed_on_its_signer(changes, reason):
    frame = signed_frame(**changes)
    fault = refusal(frame)
    assert (fault.reason, fault.signer) == (reason, SENDER.node_id)
    with pytest.raises(RemoteFault):  # and is found before the payload is read
        wire.open_statement(frame[: wire.head_length(frame)], TRUST)


def test_a_hash_that_is_signed_but_wrong_is_found_when_the_payload_is_there():
    assert refusal(signed_frame(payload_sha256="0" * 64)).reason is Reason.WRONG_HASH


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ["float32", "float16"])
def test_weights_that_are_not_finite_are_blamed_on_their_signer(bad, encoding):
    vector = np.zeros(SIZE, "<f4" if encoding == "float32" else "<f2")
    vector[-1] = bad
    fault = refusal(signed_frame(vector.tobytes(), encoding=encoding))
    assert (fault.reason, fault.signer) == (Reason.NOT_FINITE, SENDER.node_id)


@pytest.mark.parametrize("scale", [np.nan, np.inf, 3e38])
def test_int8_scales_that_overflow_are_not_finite(scale):
    payload = np.full(len(TRUST.schema.tensors), scale, "<f4").tobytes() + b"\x7f" * SIZE
    assert refusal(signed_frame(payload, encoding="int8")).reason is Reason.NOT_FINITE


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8"])
def test_a_diverged_model_can_be_sealed_and_is_refused(encoding):
    vector = VECTOR.copy()
    vector[0] = np.nan
    sealed = seal(vector, manifest=encoded(encoding))
    assert not sealed.finite
    assert refusal(sealed.frame).reason is Reason.NOT_FINITE


@pytest.mark.parametrize(
    "changes", [{"seq": 0}, {"instance": "not hex"}, {"previous": "12"}, {"round": -1}, {"seq": 2**63}]
)
def test_we_do_not_sign_what_everybody_would_refuse(changes):
    with pytest.raises(ValueError, match="cannot sign an update"):
        seal(**changes)


def test_we_do_not_sign_a_vector_of_another_model():
    with pytest.raises(ValueError, match=f"a vector of {SIZE} numbers"):
        seal(VECTOR[:-1])


@pytest.mark.parametrize(
    "header",
    [
        HEADER.replace(b'"seq":5', b'"seq": 5'),
        HEADER.replace(b'"seq":5', b'"seq":5.0'),
        HEADER.replace(b'"seq":5', b'"seq":true'),
        HEADER.replace(b'"seq":5', b'"seq":5,"seq":5'),
        HEADER.replace(b'"seq":5', b'"seq":"5"'),
        HEADER.replace(b'"seq":5', b'"seq":NaN'),
        HEADER.replace(b'"seq":5', b'"seq":' + b"9" * 3000),
        HEADER.replace(b',"seq":5', b""),
        HEADER.replace(b'"seq":5', b'"seq":5,"sex":1'),
        HEADER + b"\n",
        HEADER[:-1],
        json.dumps(json.loads(HEADER)).encode(),
        HEADER.decode().encode("utf-16"),
        b"",
        b"null",
        b"[" * 4000,
        HEADER.replace(SENDER.node_id.encode(), b"\\ud800"),
        HEADER.replace(SENDER.node_id.encode(), b"\xff"),
    ],
)
def test_a_header_reads_in_one_way_only(header):
    fault = refusal(frame_of(header))
    assert (fault.reason, fault.signer) == (Reason.MALFORMED, None)


def test_a_header_beyond_its_limit_is_refused_by_its_length():
    with pytest.raises(RemoteFault) as caught:
        wire.head_length(wire.PREFIX.pack(wire.MAGIC, wire.MAX_HEADER + 1))
    assert caught.value.reason is Reason.OVERSIZE
    assert wire.head_length(wire.PREFIX.pack(wire.MAGIC, wire.MAX_HEADER)) == wire.head_limit()


def test_a_frame_beyond_its_limit_is_not_looked_into():
    assert refusal(bytes(wire.frame_limit(TRUST.schema) + 1)).reason is Reason.OVERSIZE
    assert refusal(bytes(wire.frame_limit(TRUST.schema))).reason is Reason.MALFORMED


def test_the_largest_legal_frame_fits_the_limit():
    lengths = [payload_length(TRUST.schema, encoding) for encoding in ("float32", "float16", "int8")]
    assert wire.frame_limit(TRUST.schema) == wire.head_limit() + max(lengths)


@given(st.integers(0, len(UPDATE.frame) - 1))
def test_a_frame_cut_anywhere_is_refused(length):
    assert refusal(UPDATE.frame[:length]).reason in {Reason.MALFORMED, Reason.WRONG_LENGTH}


@given(st.binary(min_size=1, max_size=20))
def test_bytes_behind_a_frame_are_refused(more):
    assert refusal(UPDATE.frame + more).reason is Reason.WRONG_LENGTH


@given(st.integers(0, len(UPDATE.frame) * 8 - 1))
def test_any_flipped_bit_is_refused(bit):
    frame = bytearray(UPDATE.frame)
    frame[bit // 8] ^= 1 << bit % 8
    fault = refusal(bytes(frame))
    assert fault.signer is None  # whoever handed it over flipped it
    if bit // 8 >= HEAD:
        assert fault.reason is Reason.WRONG_HASH


def test_the_zeros_before_the_payload_are_zeros():
    padded = 0
    for seq in (1, 10, 100, 1000):
        frame = seal(seq=seq).frame
        _, header = wire.PREFIX.unpack_from(frame)
        for place in range(wire.PREFIX.size + header + 64, wire.head_length(frame)):
            padded += 1
            assert refusal(frame[:place] + b"\1" + frame[place + 1 :]).reason is Reason.MALFORMED
    assert padded == 0 + 1 + 2 + 3


# --- Fuzzing: whatever comes, a RemoteFault and nothing else ----------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.binary(max_size=400))
@example(wire.MAGIC)
@example(wire.PREFIX.pack(wire.MAGIC, 0))
@example(wire.PREFIX.pack(wire.MAGIC, 2) + b"{}" + bytes(64))
def test_random_bytes_are_refused(data):
    for frame in (data, wire.MAGIC + data, wire.PREFIX.pack(wire.MAGIC, max(len(data) - 64, 0)) + data):
        refusal(frame)


@given(st.sampled_from([*Statement.__annotations__]), JSON)
def test_a_signed_header_with_any_value_anywhere_is_refused_or_read(name, value):
    fields = {**record.plain(UPDATE.statement), name: value}
    header = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    try:
        opened = wire.open_update(frame_of(header), TRUST)
    except RemoteFault as fault:
        assert fault.detail.isprintable()
    else:
        assert record.plain(opened.statement) == fields
