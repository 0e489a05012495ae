"""Join requests: signed by the key they name."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.consortium import ManifestError
from p2pfed.core.contract import Moments
from p2pfed.core.identity import Identity, grouped
from p2pfed.core.joining import (
    MAX_JOIN_REQUEST,
    JoinRequest,
    as_member,
    declaration,
    declaring,
    key_fingerprint,
    misplaced,
    open_join_request,
    seal_join_request,
)
from tests.consortia import consortium, member

BANK = Identity.from_seed(b"b" * 32)
ENTRY = member("bank-b", BANK)
REQUEST = JoinRequest(ENTRY.name, ENTRY.key, ENTRY.certificates[0], ENTRY.endpoints, Moments((0.5,), (2.0,)))
FILE = seal_join_request(BANK, REQUEST)


def test_a_request_comes_back_as_it_went():
    assert open_join_request(FILE) == REQUEST
    listener = replace(REQUEST, endpoints=(), moments=None, seconds_per_round=14.2)
    assert open_join_request(seal_join_request(BANK, listener)) == listener


def test_a_request_becomes_a_manifest_entry():
    assert as_member(REQUEST) == ENTRY
    assert key_fingerprint(REQUEST) == grouped(BANK.node_id)


@pytest.mark.parametrize(
    ("legitimate", "frauds", "told"),
    [(1000, 1, 1024), (100, 1, 128), (300, 0, 512), (1, 3, 0.25), (0, 9, 1 / 16), (0, 0, 1), (10**9, 1, 2.0**20)],
)
def test_a_base_rate_is_told_to_a_power_of_two(legitimate, frauds, told):
    rate = declaration(legitimate + frauds, frauds).legitimate_per_fraud
    assert rate == told
    request = replace(REQUEST, legitimate_per_fraud=rate)
    assert as_member(open_join_request(seal_join_request(BANK, request))).legitimate_per_fraud == told


@pytest.mark.parametrize(
    ("rows", "told"),
    [(0, 1), (1, 1), (3, 2), (1023, 512), (1024, 1024), (20_000, 16_384), (2**40 - 1, 2**39), (2**50, 2**40)],
)
def test_rows_are_told_by_the_power_of_two_at_or_below(rows, told):
    declared = declaration(rows, 0).training_rows
    assert declared == told
    request = replace(REQUEST, training_rows=declared)
    assert as_member(open_join_request(seal_join_request(BANK, request))).training_rows == told


@given(st.integers(1, 2**40))
def test_no_bank_tells_more_rows_than_it_has(rows):
    told = declaration(rows, 0).training_rows
    assert told <= rows < 2 * told


def test_what_a_new_request_leaves_out_stays_as_it_was_told():
    told = replace(ENTRY, legitimate_per_fraud=64.0, training_rows=512)
    assert declaring(told, ENTRY) == told
    assert declaring(told, replace(ENTRY, training_rows=1024)) == replace(told, training_rows=1024)
    assert declaring(ENTRY, told) == told


def test_a_request_from_before_rows_were_told_keeps_its_bytes():
    assert b"training_rows" not in FILE and b"legitimate_per_fraud" not in FILE
    told = json.loads(seal_join_request(BANK, replace(REQUEST, training_rows=512)))["body"]
    assert {name: value for name, value in told.items() if name != "training_rows"} == json.loads(FILE)["body"]


HELD = replace(ENTRY, requested=2_000)
NEW_CERTIFICATE = consortium().manifest.members[0].certificates[0]


@pytest.mark.parametrize(
    ("changes", "held", "said"),
    [
        ({}, None, ""),
        ({}, ENTRY, ""),
        ({"certificate": NEW_CERTIFICATE}, ENTRY, "does not tell when it was made"),
        ({}, HELD, "does not tell when it was made"),
        ({"made": 1_999}, HELD, "is older than the one that the manifest has of it"),
        ({"made": 2_000}, HELD, ""),
        ({"made": 2_001, "certificate": NEW_CERTIFICATE, "consortium": "c0" * 16}, HELD, ""),
        ({"made": 1_999, "certificate": NEW_CERTIFICATE}, ENTRY, ""),
        ({"made": 2_001, "consortium": "d0" * 16}, HELD, "for a consortium that this bank had joined, and this is"),
        ({"made": 2_001, "consortium": "d0" * 16}, None, "for a consortium that this bank had joined, and this is"),
    ],
)
def test_an_old_request_takes_no_newer_ones_place(changes, held, said):
    problem = misplaced(replace(REQUEST, **changes), "c0" * 16, held)
    assert (said in problem and "`p2pfed init` again" in problem) if said else problem == ""


def test_a_request_tells_its_time_to_the_manifest():
    told = open_join_request(seal_join_request(BANK, replace(REQUEST, made=2_000, consortium="c0" * 16)))
    assert as_member(told).requested == 2_000
    assert declaring(ENTRY, as_member(told)) == HELD
    assert declaring(HELD, ENTRY) == HELD


def test_a_whole_number_for_a_fraction_signs_the_same():
    careless = replace(REQUEST, moments=Moments((0,), (2,)))
    assert open_join_request(seal_join_request(BANK, careless)).moments == Moments((0.0,), (2.0,))


def test_only_the_key_that_is_named_can_sign():
    with pytest.raises(ManifestError, match="signed by the member key that it names"):
        seal_join_request(consortium().members[0], REQUEST)
    other = json.loads(
        seal_join_request(consortium().members[0], replace(REQUEST, key=consortium().manifest.members[0].key))
    )
    other["body"]["key"] = REQUEST.key
    with pytest.raises(ManifestError, match="'bank-b' was changed after signing"):
        open_join_request(json.dumps(other).encode())


@pytest.mark.parametrize("signature", ["", "zz", "00" * 64])
def test_a_wrong_signature_is_refused(signature):
    value = {**json.loads(FILE), "signature": signature}
    with pytest.raises(ManifestError, match="changed after signing"):
        open_join_request(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "bank b"}, "a name has up to 63"),
        ({"legitimate_per_fraud": 1000.0}, "is not a power of two"),
        *(({"training_rows": rows}, "training_rows is not a power of two") for rows in (0, -1, 1000, 2**41)),
        ({"training_rows": 1024.0}, "expected int, got float"),
        ({"certificate": "AAAA"}, "not base64 of DER"),
        ({"endpoints": ("x",)}, "'x' is not an address"),
        ({"moments": Moments((0.0, 1.0), (1.0,))}, "as many deviations as means"),
        ({"moments": Moments((0.0,), (-1.0,))}, "a deviation is negative"),
        ({"moments": Moments((float("nan"),), (1.0,))}, "not a finite number"),
        ({"moments": Moments((1e308,), (1.0,))}, "moments: a mean or deviation is no payment's"),
        ({"moments": Moments((0.0,), (1e308,))}, "moments: a mean or deviation is no payment's"),
        ({"made": 0}, "the time of its request is not Unix seconds"),
        ({"made": 2**60}, "the time of its request is not Unix seconds"),
        ({"consortium": "C0" * 16}, "consortium is not 32 lower-case hex digits"),
        ({"seconds_per_round": 0.0}, "seconds_per_round is 0: a round takes some time"),
        ({"seconds_per_round": -1.0}, "seconds_per_round is -1"),
        ({"seconds_per_round": 86401.0}, "seconds_per_round is 86401"),
        ({"seconds_per_round": float("inf")}, "not a finite number"),
    ],
)
def test_a_request_no_admin_could_use_is_not_made(changes, complaint):
    with pytest.raises(ManifestError, match=complaint):
        seal_join_request(BANK, replace(REQUEST, **changes))


@pytest.mark.parametrize("data", [b"", b"{}", b"null", FILE[:-3], FILE.replace(b'"name"', b'"nome"')])
def test_what_is_no_request_is_said_to_be_none(data):
    with pytest.raises(ManifestError, match="this is not a join request"):
        open_join_request(data)


def test_a_request_has_a_limit():
    with pytest.raises(ManifestError, match="the limit is"):
        open_join_request(b" " * (MAX_JOIN_REQUEST + 1))


@given(st.integers(0, len(FILE) * 8 - 1))
def test_a_flipped_bit_changes_nothing_or_is_refused(bit):
    file = bytearray(FILE)
    file[bit // 8] ^= 1 << bit % 8
    try:
        assert open_join_request(bytes(file)) == REQUEST
    except ManifestError:
        return
