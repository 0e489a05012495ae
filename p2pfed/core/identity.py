"""Who signed what: Ed25519 keys, the ids made from them, and one signing domain for each kind of message."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from typing import Protocol

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from p2pfed.core.types import NodeId

# Put in front of what is signed, so that a signature made for one purpose proves nothing for another.
UPDATE_DOMAIN = b"p2pfed/update/1\0"
HEARTBEAT_DOMAIN = b"p2pfed/heartbeat/1\0"
MANIFEST_DOMAIN = b"p2pfed/manifest/1\0"
JOIN_DOMAIN = b"p2pfed/join/1\0"

KEY_BYTES = 32
SIGNATURE_BYTES = 64

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
GROUP = 13
"""Base32 characters that share one check character; an id has four such groups."""
BLOCK = 7
"""Characters between two dashes of a fingerprint."""
ID_LENGTH = 4 * (GROUP + 1)
_VALUE = {character: value for value, character in enumerate(ALPHABET)}
_TYPED_FOR = str.maketrans("018", "OIB", "- \t\n")  # digits base32 does not have, for the letters they look like


class Signer(Protocol):
    """Whatever holds a private key: a file today, a hardware module tomorrow."""

    @property
    def public_key(self) -> bytes:
        """The Ed25519 public key, 32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`, 64 bytes."""


class Identity:
    """A signer whose key is in memory."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Identity:
        """A new random key."""
        return cls(SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The key of a 32-byte seed; raises ValueError on another length."""
        if len(seed) != KEY_BYTES:
            raise ValueError(f"a key seed has {KEY_BYTES} bytes, this one has {len(seed)}")
        return cls(SigningKey(seed))

    @property
    def seed(self) -> bytes:
        """The secret the key is made from, 32 bytes."""
        return bytes(self._key)

    @property
    def public_key(self) -> bytes:
        """The Ed25519 public key, 32 bytes."""
        return bytes(self._key.verify_key)

    @property
    def node_id(self) -> NodeId:
        """The id that everybody knows this key by."""
        return node_id(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`, 64 bytes."""
        return self._key.sign(message).signature

    def __repr__(self) -> str:
        return f"Identity({self.node_id})"


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is `public_key`'s over `message`; False for keys and signatures of a wrong length too."""
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(public_key).verify(message, signature)
    except CryptoError:
        return False
    return True


@lru_cache(maxsize=2**15)  # every node of a simulation asks for the ids of all others
def node_id(public_key: bytes) -> NodeId:
    """The 56-character id of a key: base32 of its SHA-256, with a check character after every 13.

    Syncthing's device ids are built in this way. Raises ValueError if the key has not 32 bytes.
    """
    if len(public_key) != KEY_BYTES:
        raise ValueError(f"a public key has {KEY_BYTES} bytes, this one has {len(public_key)}")
    return NodeId(_checked_digest(public_key))


def fingerprint(data: bytes) -> str:
    """SHA-256 of any bytes in the form of an id, with a dash after every 7 characters: to be read over the phone."""
    return _dashed(_checked_digest(data))


def grouped(node: NodeId) -> str:
    """An id with a dash after every 7 characters, which is also the fingerprint of the member's public key."""
    return _dashed(node)


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two typed fingerprints or ids are equal, whatever their case and dashes.

    Raises ValueError that names the blocks in which a typing error must be.
    """
    return normal_form(one) == normal_form(other)


def normal_form(text: str) -> str:
    """A typed fingerprint or id as 56 capitals without dashes; raises ValueError that says where it is mistyped."""
    typed = text.upper().translate(_TYPED_FOR)
    if strange := sorted(set(typed) - set(ALPHABET)):
        raise ValueError(f"a fingerprint has no character {strange[0]!r}: it is made of A to Z and 2 to 7")
    if len(typed) != ID_LENGTH:
        raise ValueError(f"a fingerprint has {ID_LENGTH} characters, this one has {len(typed)}: copy all of it")
    for start in range(0, ID_LENGTH, GROUP + 1):
        group = typed[start : start + GROUP + 1]
        if _check_character(group[:GROUP]) != group[GROUP]:
            block = start // BLOCK + 1
            raise ValueError(f"there is a typing error in block {block} or {block + 1} ({_dashed(group)})")
    return typed


def _checked_digest(data: bytes) -> str:
    text = base64.b32encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    groups = [text[i : i + GROUP] for i in range(0, len(text), GROUP)]
    return "".join(group + _check_character(group) for group in groups)


def _check_character(text: str) -> str:
    """Luhn's check character, modulo 32: finds every wrong character and nearly every swap of two neighbours."""
    total = 0
    for place, character in enumerate(reversed(text)):
        value = _VALUE[character] * (1 if place % 2 else 2)
        total += value // len(ALPHABET) + value % len(ALPHABET)
    return ALPHABET[-total % len(ALPHABET)]


def _dashed(text: str) -> str:
    return "-".join(text[i : i + BLOCK] for i in range(0, len(text), BLOCK))
