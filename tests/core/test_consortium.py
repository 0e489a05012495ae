"""The manifest: what it may say, who must sign it, and how trust passes to the next version."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core import record
from p2pfed.core.consortium import (
    MAX_MANIFEST,
    Admin,
    Declared,
    Manifest,
    ManifestError,
    Signature,
    SignedManifest,
    body_bytes,
    parse_signed,
    usual_rate,
)
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.identity import Identity, fingerprint
from p2pfed.core.succession import newest, verify_root, verify_succession
from tests.consortia import consortium, member, next_version, sign

HOUSE = consortium()
MANIFEST = HOUSE.manifest
ADMINS = HOUSE.admins
SIGNED = HOUSE.signed(0, 1)
CALENDAR = Calendar(1_700_000_000, 3600, 20, 30.0)
STRANGER = Identity.from_seed(b"s" * 32)


def with_member(**changes: Any) -> dict[str, Any]:
    return {"members": (replace(MANIFEST.members[0], **changes), *MANIFEST.members[1:])}


def with_gossip(**changes: Any) -> dict[str, Any]:
    return {"gossip": replace(MANIFEST.gossip, **changes)}


def test_members_are_found_by_id():
    assert MANIFEST.by_id == {i.node_id: m for i, m in zip(HOUSE.members, MANIFEST.members, strict=True)}


# --- Bytes ------------------------------------------------------------------------------------------------------------


def test_the_bytes_of_a_manifest_never_change():
    # made up, as certificates were in tests when this was written down
    certificates = [(base64.b64encode(b"0" + bytes.fromhex(m.key)).decode(),) for m in MANIFEST.members]
    people = zip(MANIFEST.members, certificates, strict=True)
    old = replace(MANIFEST, members=tuple(replace(m, certificates=made) for m, made in people))
    assert SignedManifest.unsigned(old).sha256 == "c62e6e95c0cc1161ced239647b79546690e4b3d354edb3a154cc24401d62c1b7"


def test_what_members_told_of_their_rows_is_kept_and_who_told_nothing_keeps_its_bytes():
    first, *others = MANIFEST.members
    told = replace(MANIFEST, members=(replace(first, legitimate_per_fraud=64.0, training_rows=16_384), *others))
    assert parse_signed(SignedManifest.unsigned(told).to_bytes()).manifest == told
    assert body_bytes(told).count(b"training_rows") == 1 and b"training_rows" not in body_bytes(MANIFEST)
    declared = [told.declared[bank.node_id] for bank in HOUSE.members]
    assert declared == [Declared(64.0, 16_384), *[Declared()] * len(others)]


def test_a_whole_number_for_a_fraction_signs_the_same():
    careless = replace(MANIFEST, gossip=replace(MANIFEST.gossip, heartbeat_seconds=1))
    assert body_bytes(careless) == body_bytes(MANIFEST)
    with pytest.raises(ManifestError, match="version: expected int, got str"):
        body_bytes(replace(MANIFEST, version="1"))  # type: ignore[arg-type]


def test_a_file_comes_back_as_it_went():
    again = parse_signed(SIGNED.to_bytes())
    assert again == SIGNED
    assert again.body == body_bytes(MANIFEST)
    assert again.fingerprint == fingerprint(body_bytes(MANIFEST))


def test_spaces_and_order_of_keys_change_nothing():
    value = json.loads(SIGNED.to_bytes())
    shuffled = {"signatures": value["signatures"], "body": dict(reversed(value["body"].items()))}
    assert parse_signed(json.dumps(shuffled, indent=7).encode()) == SIGNED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"body": {}, "signatures": []}',
        SIGNED.to_bytes()[:-3],
        SIGNED.to_bytes().replace(b'"version"', b'"version": 1, "version"'),
        SIGNED.to_bytes().replace(b'"threshold": 2', b'"threshold": 2.0'),
        SIGNED.to_bytes().replace(b'"threshold": 2', b'"threshold": 2, "quorum": 1'),
        SIGNED.to_bytes().replace(b'"learning_rate": 0.001', b'"learning_rate": 1e999'),
        SIGNED.to_bytes().replace(b'"learning_rate": 0.001', b'"learning_rate": 1' + b"0" * 400),
    ],
)
def test_what_is_no_manifest_is_said_to_be_none(data):
    with pytest.raises(ManifestError, match="this is not a manifest"):
        parse_signed(data)


def test_a_file_has_a_limit():
    with pytest.raises(ManifestError, match="the limit is"):
        parse_signed(b" " * (MAX_MANIFEST + 1))


# --- Signatures and first trust ---------------------------------------------------------------------------------------


def test_enough_admins_and_the_fingerprint_make_first_trust():
    assert verify_root(SIGNED, SIGNED.fingerprint) == MANIFEST
    assert verify_root(HOUSE.signed(2, 0), SIGNED.fingerprint.lower().replace("-", " ")) == MANIFEST
    assert verify_root(HOUSE.signed(0, 1, 2), SIGNED.fingerprint) == MANIFEST


def test_one_admin_of_two_is_not_enough():
    with pytest.raises(
        ManifestError, match="signed by 1 of 2 needed admins of version 1: signatures of admin-0, admin-2"
    ):
        verify_root(HOUSE.signed(1), SIGNED.fingerprint)


def test_one_admin_cannot_sign_twice():
    twice = HOUSE.signed(1).sign(ADMINS[1])
    assert len(twice.signatures) == 1
    doubled = replace(twice, signatures=twice.signatures * 2)
    with pytest.raises(ManifestError, match="signed by 1 of 2"):
        verify_root(doubled, SIGNED.fingerprint)


def test_a_stranger_and_a_forgery_do_not_count():
    assert sign(MANIFEST, STRANGER).signed_by(MANIFEST.admins) == ()
    key = ADMINS[0].public_key.hex()
    for forged in ("", "zz", "00", "00" * 64, SIGNED.signatures[1].signature):
        signed = SignedManifest(MANIFEST, SIGNED.body, (Signature(key, forged),))
        assert signed.signed_by(MANIFEST.admins) == ()


def test_a_signature_of_another_body_does_not_count():
    other = sign(replace(MANIFEST, name="other"), ADMINS[0])
    assert SignedManifest(MANIFEST, SIGNED.body, other.signatures).signed_by(MANIFEST.admins) == ()


def test_a_signature_made_for_another_purpose_does_not_count():
    bare = Signature(ADMINS[0].public_key.hex(), ADMINS[0].sign(SIGNED.body).hex())
    assert SignedManifest(MANIFEST, SIGNED.body, (bare,)).signed_by(MANIFEST.admins) == ()


def test_another_fingerprint_is_refused_and_a_mistyped_one_explained():
    with pytest.raises(ManifestError, match="not the one given"):
        verify_root(SIGNED, fingerprint(b"something else"))
    wrong = ("B" if SIGNED.fingerprint[0] == "A" else "A") + SIGNED.fingerprint[1:]
    with pytest.raises(ManifestError, match="typing error in block 1 or 2"):
        verify_root(SIGNED, wrong)


def test_a_signed_contradiction_is_still_refused():
    bad = sign(replace(MANIFEST, seed=8), *ADMINS)
    with pytest.raises(ManifestError, match="initial_sha256"):
        verify_root(bad, bad.fingerprint)


# --- Succession -------------------------------------------------------------------------------------------------------

GROWN = next_version(MANIFEST, members=(*MANIFEST.members, member("bank-3", STRANGER)))


def test_the_admins_of_both_versions_hand_trust_on():
    assert verify_succession(MANIFEST, sign(GROWN, ADMINS[0], ADMINS[2])) == GROWN


def test_too_few_admins_do_not():
    with pytest.raises(ManifestError, match="version 2 is signed by 1 of 2 needed admins of version 1"):
        verify_succession(MANIFEST, sign(GROWN, ADMINS[0]))


def test_new_admins_alone_cannot_take_over():
    crew = tuple(Identity.from_seed(bytes([i]) * 32) for i in (50, 51))
    coup = next_version(MANIFEST, admins=tuple(Admin(f"new-{i}", c.public_key.hex()) for i, c in enumerate(crew)))
    with pytest.raises(ManifestError, match="0 of 2 needed admins of version 1"):
        verify_succession(MANIFEST, sign(coup, *crew))
    with pytest.raises(ManifestError, match="0 of 2 needed admins of version 2"):
        verify_succession(MANIFEST, sign(coup, *ADMINS))
    assert verify_succession(MANIFEST, sign(coup, *crew, *ADMINS)) == coup


def test_an_admin_may_change_keys_and_keep_the_name():
    renewed = next_version(MANIFEST, admins=(Admin("admin-0", STRANGER.public_key.hex()), *MANIFEST.admins[1:]))
    assert verify_succession(MANIFEST, sign(renewed, ADMINS[0], ADMINS[1], STRANGER)) == renewed
    with pytest.raises(ManifestError, match="1 of 2 needed admins of version 2"):
        verify_succession(MANIFEST, sign(renewed, ADMINS[0], ADMINS[1]))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"version": 1}, "this is version 1: after 1 comes 2"),
        ({"version": 3}, "this is version 3: after 1 comes 2"),
        ({"consortium": "d0" * 16}, "belongs to another consortium"),
        ({"previous": "00" * 32}, "made from another version 1 than ours"),
        ({"threshold": 0}, "the threshold is 0"),
        (with_gossip(rule="abort"), "gossip: unknown merge rule 'abort'"),
    ],
)
def test_what_does_not_follow_is_refused(changes, complaint):
    with pytest.raises(ManifestError, match=complaint):
        verify_succession(MANIFEST, sign(replace(GROWN, **changes), *ADMINS))


@given(st.data())
def test_a_version_counts_exactly_if_enough_admins_of_both_signed(data):
    crowd = [Identity.from_seed(bytes([60 + i]) * 32) for i in range(5)]
    everybody = st.sets(st.sampled_from(range(5)), min_size=1)
    old, new, signers = data.draw(everybody), data.draw(everybody), data.draw(everybody)
    old_threshold, new_threshold = data.draw(st.integers(1, len(old))), data.draw(st.integers(1, len(new)))

    def governed(admins: set[int], threshold: int) -> dict[str, Any]:
        named = tuple(Admin(f"a{i}", crowd[i].public_key.hex()) for i in sorted(admins))
        return {"admins": named, "threshold": threshold}

    current = replace(MANIFEST, **governed(old, old_threshold))
    successor = sign(next_version(current, **governed(new, new_threshold)), *(crowd[i] for i in signers))
    if len(signers & old) >= old_threshold and len(signers & new) >= new_threshold:
        assert verify_succession(current, successor) == successor.manifest
    else:
        with pytest.raises(ManifestError, match="needed admins of version"):
            verify_succession(current, successor)


def test_a_node_several_versions_behind_walks_the_chain():
    third = next_version(GROWN, members=GROWN.members[1:])
    fourth = next_version(third, name="renamed")
    chain = [sign(m, *ADMINS) for m in (fourth, MANIFEST, third, GROWN)]
    assert newest(MANIFEST, chain) == fourth
    assert newest(fourth, chain) == fourth
    assert newest(MANIFEST, []) == MANIFEST
    with pytest.raises(ManifestError, match="this is version 3: after 1 comes 2"):
        newest(MANIFEST, [c for c in chain if c.manifest.version != 2])


# --- Fuzzing ----------------------------------------------------------------------------------------------------------


@given(st.data())
def test_a_flipped_bit_changes_nothing_or_is_refused(data):
    file = bytearray(SIGNED.to_bytes())
    bit = data.draw(st.integers(0, len(file) * 8 - 1))
    file[bit // 8] ^= 1 << bit % 8
    try:
        assert verify_root(parse_signed(bytes(file)), SIGNED.fingerprint) == MANIFEST
    except ManifestError:
        return


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(p for k in keys for p in places(value[k], (*path, k)))]


WITH_CALENDAR = replace(MANIFEST, calendar=replace(CALENDAR, extra=(1_800_000_000,)))


@given(st.sampled_from(places(record.plain(WITH_CALENDAR))[1:]), JSON)
def test_whatever_the_admins_sign_is_checked_without_a_crash(path, value):
    body = record.plain(WITH_CALENDAR)
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file = json.dumps({"body": body, "signatures": []}).encode()
    try:
        signed = parse_signed(file)
        for admin in ADMINS:
            signed = signed.sign(admin)
        verify_root(signed, signed.fingerprint)
    except ManifestError:
        return
    assert isinstance(signed.manifest, Manifest)
    assert parse_signed(signed.to_bytes()) == signed


def test_the_usual_rate_is_as_far_from_the_rarer_as_from_the_more_usual() -> None:
    assert usual_rate([1024.0, 16.0, None]) == 128.0
    assert usual_rate([None]) is None
