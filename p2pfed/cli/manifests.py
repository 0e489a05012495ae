"""What the admins' verbs share: their options, reading what banks and admins sent, and writing a manifest."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from p2pfed.cli.terminal import Report, naming, read_file, write_new
from p2pfed.core.types import DAY
from p2pfed.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from p2pfed.core.consortium import Admin, Manifest, Member, SignedManifest
    from p2pfed.core.contract import FeatureContract
    from p2pfed.core.identity import Identity
    from p2pfed.core.joining import JoinRequest

ManifestPath = Annotated[Path, typer.Argument(help="The manifest file.")]
RequestPaths = Annotated[list[Path], typer.Option("--request", help="A bank's join request; repeatable.")]
AdminPaths = Annotated[list[Path], typer.Option("--admin", help="An admin's .pub file; repeatable.")]
Days = Annotated[int | None, typer.Option(help="Days until the new version expires; default as the old one.")]
Keys = Annotated[list[Path] | None, typer.Option("--key", help="Sign at once with this secret key; repeatable.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where to write; default manifest-VERSION.json.")]


def read_contract(path: Path) -> FeatureContract:
    """A draft feature contract; raises ConfigError."""
    from p2pfed.core import record
    from p2pfed.core.contract import FeatureContract

    try:
        return record.parse(FeatureContract, read_file(path, "the contract"))
    except record.RecordError as error:
        raise ConfigError(f"{path} is not a feature contract: {error}") from None


def read_request(path: Path, report: Report, old: Manifest | None = None) -> JoinRequest:
    """A bank's request; its fingerprint is told whole, because a few characters of it can be forged.

    Raises ConfigError unless it may change what `old`, if there is one, has of the bank.
    """
    from p2pfed.core.joining import key_fingerprint, misplaced, open_join_request

    with naming(path):
        request = open_join_request(read_file(path, "the join request"))
        if request.made is not None and request.made > time.time() + DAY:
            raise ConfigError(f"{request.name} made it in the future: set that bank's clock, and `p2pfed init` again")
        known = {} if old is None else {member.key: member for member in old.members}
        if problem := misplaced(request, old.consortium if old else None, known.get(request.key)):
            raise ConfigError(problem)
    report.note(f"{request.name} asks with key {key_fingerprint(request)}")
    return request


def read_admin(path: Path) -> Admin:
    """An admin's public key; raises ConfigError or UsageError."""
    from p2pfed.core import record
    from p2pfed.core.consortium import Admin

    try:
        return record.parse(Admin, read_file(path, "the admin's public key"))
    except record.RecordError as error:
        raise ConfigError(f"{path} is not an admin's .pub file: {error}") from None


def read_signed(path: Path) -> SignedManifest:
    """A manifest file, not trusted yet; raises ConfigError or UsageError."""
    from p2pfed.core.consortium import parse_signed

    with naming(path):
        return parse_signed(read_file(path, "the manifest"))


def read_identity(path: Path) -> Identity:
    """An admin's secret key; raises ConfigError, or NotPermitted where others can read the file."""
    from p2pfed.core.identity import Identity
    from p2pfed.store.credentials import read_secret

    try:
        return Identity.from_seed(bytes.fromhex(read_secret(path)))
    except ValueError:
        raise ConfigError(f"{path} does not hold a secret key (64 hex digits)") from None


def successor(signed: SignedManifest, members: tuple[Member, ...], days: int | None) -> SignedManifest:
    """The next version with these members, not signed; it lasts as long as the one before unless `days` are given."""
    from p2pfed.core.consortium import SignedManifest

    old, now = signed.manifest, int(time.time())
    lasting = old.expires - old.issued if days is None else days * DAY
    return SignedManifest.unsigned(
        dataclasses.replace(
            old, version=old.version + 1, previous=signed.sha256, issued=now, expires=now + lasting, members=members
        )
    )


def write(
    signed: SignedManifest, keys: Sequence[Path] | None, out: Path | None, report: Report, *, force: bool = False
) -> None:
    """Check, sign with `keys`, write and say so; raises ManifestError, and UsageError where another file would go."""
    from p2pfed.core.contradictions import check_manifest
    from p2pfed.core.names import deceptive, look_alike

    # a rule that names code is refused where it is chosen, for there it is rather a misspelt name
    check_manifest(signed.manifest, foreign=signed.manifest.version > 1)
    if signed.manifest.version == 1 and (problem := deceptive(signed.manifest.name)):
        raise ConfigError(f"the consortium's name {signed.manifest.name!a} {problem}: choose another")
    known = {admin.key for admin in signed.manifest.admins}
    for path in keys or ():
        identity = read_identity(path)
        # an admin who leaves signs the version that removes him with a key it no longer lists
        if identity.public_key.hex() not in known and signed.manifest.version == 1:
            raise UsageError(f"{path} is the key of no admin of this manifest")
        signed = signed.sign(identity)
    path = out or Path(f"manifest-{signed.manifest.version}.json")
    write_new(path, signed.to_bytes(), force)
    names = [admin.name for admin in signed.signed_by(signed.manifest.admins)]
    needed = signed.manifest.threshold
    report.say(
        f"wrote {path}, signed by {', '.join(names) or 'nobody'}; {needed} needed\nfingerprint {signed.fingerprint}",
        manifest=path, version=signed.manifest.version, fingerprint=signed.fingerprint, signed_by=names, needed=needed,
    )  # fmt: skip
    for what, people in (("banks", signed.manifest.members), ("admins", signed.manifest.admins)):
        for alike in look_alike(one.name for one in people):
            said = f"look at {' and '.join(alike)}: these {what} are easily taken for each other; compare their keys"
            report.note(said)
