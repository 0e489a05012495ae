"""How trust in a manifest begins, and how it passes on to the next version.

A manifest of version N+1 counts only if the admins of version N *and* its own admins sign it in threshold number
(the root rule of The Update Framework). Versions never go down.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2pfed.core.consortium import Manifest, ManifestError, SignedManifest, check_manifest
from p2pfed.core.identity import same_fingerprint


def verify_root(signed: SignedManifest, expected: str) -> Manifest:
    """First trust: the fingerprint `expected`, told by somebody trusted, and the manifest's own threshold.

    Raises ManifestError.
    """
    try:
        same = same_fingerprint(signed.fingerprint, expected)
    except ValueError as error:
        raise ManifestError(f"the fingerprint given is not one: {error}") from None
    if not same:
        raise ManifestError(
            f"this manifest has the fingerprint {signed.fingerprint}, not the one given: ask an admin for both again"
        )
    check_manifest(signed.manifest)
    _check_threshold(signed, signed.manifest)
    return signed.manifest


def verify_succession(current: Manifest, successor: SignedManifest) -> Manifest:
    """Trust handed on: the next version, signed in threshold number by the admins of both.

    The root rule of The Update Framework, section 5.3. Raises ManifestError that says what is missing.
    """
    new = successor.manifest
    if new.consortium != current.consortium:
        raise ManifestError(
            f"this manifest belongs to another consortium ({new.name[:63]!r}), ours is {current.name!r}"
        )
    if new.version != current.version + 1:
        raise ManifestError(f"this is version {new.version}: after {current.version} comes {current.version + 1}")
    if new.previous != SignedManifest.unsigned(current).sha256:
        raise ManifestError(f"version {new.version} was made from another version {current.version} than ours")
    _check_threshold(successor, current)  # first: checking a model costs time that no stranger to the admins may take
    check_manifest(new)
    _check_threshold(successor, new)
    return new


def newest(current: Manifest, chain: Iterable[SignedManifest]) -> Manifest:
    """Walk from `current` over the later versions in `chain`, given in any order.

    Raises ManifestError at the first that does not follow.
    """
    for successor in sorted(chain, key=lambda signed: signed.manifest.version):
        if successor.manifest.version > current.version:
            current = verify_succession(current, successor)
    return current


def _check_threshold(signed: SignedManifest, judge: Manifest) -> None:
    """Whether enough admins of `judge` signed."""
    have = signed.signed_by(judge.admins)
    if len(have) >= judge.threshold:
        return
    missing = ", ".join(a.name for a in judge.admins if a not in have)
    raise ManifestError(
        f"version {signed.manifest.version} is signed by {len(have)} of {judge.threshold} needed admins of version "
        f"{judge.version}: signatures of {missing} can be added"
    )
