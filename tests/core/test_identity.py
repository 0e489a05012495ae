"""Keys, signatures and the ids people read to each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core import identity
from p2pfed.core.identity import ALPHABET, ID_LENGTH, Identity, fingerprint, grouped, node_id, same_fingerprint, verify

SEED = bytes(range(32))
DATA = b"a manifest"
PRINT = fingerprint(DATA)


def test_signatures_are_those_of_rfc_8032():
    signer = Identity.from_seed(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert signer.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert signer.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


def test_an_identity_survives_its_seed_and_does_not_show_it():
    one = Identity.generate()
    assert Identity.from_seed(one.seed).public_key == one.public_key
    assert one.seed.hex() not in repr(one)
    assert one.node_id in repr(one)
    assert Identity.generate().seed != one.seed


def test_a_seed_has_32_bytes():
    with pytest.raises(ValueError, match="32 bytes, this one has 31"):
        Identity.from_seed(SEED[:31])
    with pytest.raises(ValueError, match="32 bytes, this one has 33"):
        node_id(SEED + b"!")


@given(st.binary(max_size=100), st.data())
def test_a_signature_holds_for_exactly_its_key_and_message(message, data):
    signer = Identity.from_seed(SEED)
    signature = signer.sign(message)
    assert verify(signer.public_key, message, signature)
    assert not verify(signer.public_key, message + b"\0", signature)
    assert not verify(Identity.from_seed(bytes(32)).public_key, message, signature)
    bit = data.draw(st.integers(0, 511))
    forged = bytearray(signature)
    forged[bit // 8] ^= 1 << bit % 8
    assert not verify(signer.public_key, message, bytes(forged))


@given(st.binary(max_size=70), st.binary(max_size=70))
def test_verify_never_raises(key, signature):
    assert not verify(key, b"message", signature)


def test_a_key_of_small_order_signs_nothing():
    # with the neutral point as key, a signature of zeros would hold for every message under a careless verifier
    neutral = (1).to_bytes(32, "little")
    assert not verify(neutral, b"anything", neutral + bytes(32))


def test_signing_domains_cannot_be_mistaken_for_each_other():
    domains = [getattr(identity, name) for name in dir(identity) if name.endswith("_DOMAIN")]
    assert len(domains) == 4
    assert all(d.count(b"\0") == 1 and d.endswith(b"\0") for d in domains)
    assert len(set(domains)) == 4


def test_an_id_is_56_characters_and_stays_what_it_was():
    key = Identity.from_seed(SEED).public_key
    assert node_id(key) == "KZDVVJ2UMNDUYLAUF35O36K6KW4U62MUJVRA46TN3RUQGZOVMIHOCGAL"
    assert Identity.from_seed(SEED).node_id == node_id(key)
    assert len(node_id(key)) == ID_LENGTH
    assert set(node_id(key)) <= set(ALPHABET)


def test_an_id_with_dashes_is_the_fingerprint_of_the_key():
    key = Identity.from_seed(SEED).public_key
    assert grouped(node_id(key)) == fingerprint(key)
    assert [len(block) for block in fingerprint(key).split("-")] == [7] * 8
    assert fingerprint(key).replace("-", "") == node_id(key)


def test_a_fingerprint_may_be_typed_carelessly():
    assert same_fingerprint(PRINT, PRINT.lower())
    assert same_fingerprint(PRINT.replace("-", ""), f"  {PRINT.replace('-', ' ')}\n")
    assert same_fingerprint(PRINT, PRINT.replace("O", "0").replace("I", "1").replace("B", "8"))
    assert not same_fingerprint(PRINT, fingerprint(b"another manifest"))


@given(st.integers(0, ID_LENGTH - 1), st.integers(1, 31))
def test_every_wrong_character_is_found_and_placed(place, shift):
    typed = list(PRINT.replace("-", ""))
    typed[place] = ALPHABET[(ALPHABET.index(typed[place]) + shift) % 32]
    first = place // 14 * 2 + 1
    with pytest.raises(ValueError, match=f"typing error in block {first} or {first + 1} "):
        same_fingerprint(PRINT, "".join(typed))


def test_nearly_every_swap_of_neighbours_is_found():
    text = PRINT.replace("-", "")
    swaps = [text[:i] + text[i + 1] + text[i] + text[i + 2 :] for i in range(ID_LENGTH - 1) if text[i] != text[i + 1]]
    missed = 0
    for swapped in swaps:
        try:
            missed += same_fingerprint(swapped, swapped)
        except ValueError:
            continue
    assert missed <= 1


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("", "has 56 characters, this one has 0"),
        (PRINT[:-1], "this one has 55"),
        (f"{PRINT[:-1]}!", "no character '!'"),
    ],
)
def test_what_is_no_fingerprint_is_said_to_be_none(typed, complaint):
    with pytest.raises(ValueError, match=complaint):
        same_fingerprint(typed, PRINT)
