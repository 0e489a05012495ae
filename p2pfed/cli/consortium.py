"""The admins' verbs on a consortium that exists: admit and remove banks, sign and look at its manifest; their keys."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from p2pfed.cli import times
from p2pfed.cli.founding import say_unlike, share_of_frauds
from p2pfed.cli.manifests import (
    Days,
    Keys,
    ManifestPath,
    Out,
    RequestPaths,
    read_request,
    read_signed,
    successor,
    write,
)
from p2pfed.cli.terminal import AsJson, Force, Report, plural, show, table
from p2pfed.errors import UsageError

if TYPE_CHECKING:
    from p2pfed.core.consortium import Manifest, Member, SignedManifest
    from p2pfed.core.joining import JoinRequest


def key(
    name: Annotated[str, typer.Argument(help="The admin's name.")],
    folder: Annotated[Path, typer.Option(help="Where to write.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Make an admin's key pair: NAME.key stays with the admin, NAME.pub goes to whoever founds the consortium."""
    from p2pfed import newfile
    from p2pfed.core import record
    from p2pfed.core.consortium import Admin
    from p2pfed.core.identity import Identity, grouped
    from p2pfed.store.state_dir import disk_faults

    secret, public = folder / f"{name}.key", folder / f"{name}.pub"
    identity = Identity.generate()
    seed, admin = identity.seed.hex().encode() + b"\n", record.readable(Admin(name, identity.public_key.hex()))
    for path in (secret, public):
        if os.path.lexists(path):
            raise UsageError(f"{path} exists and is not replaced; move it away first")
    for path, content, mode in ((secret, seed, 0o600), (public, admin, 0o644)):
        with disk_faults(path):
            newfile.write_once(path, content, mode)
    text = f"made {secret} (keep it secret) and {public}\n{name} is {grouped(identity.node_id)}"
    show(as_json, {"name": name, "id": identity.node_id, "secret": secret, "public": public}, text)


def add(
    manifest: ManifestPath,
    requests: RequestPaths,
    keys: Keys = None,
    out: Out = None,
    days: Days = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make the next version with more banks, or with a known bank's new certificate and addresses."""
    from p2pfed.core.joining import as_member

    signed, report = read_signed(manifest), Report(as_json)
    members = {member.key: member for member in signed.manifest.members}
    for path in requests:
        request = read_request(path, report, dataclasses.replace(signed.manifest, members=tuple(members.values())))
        _warn_if_slow(request, signed.manifest)
        say_unlike(signed.manifest, [request], report)
        new = as_member(request)
        members[new.key] = _renewed(members[new.key], new) if new.key in members else new
    write(successor(signed, tuple(members.values()), days), keys, out, report, force=force)
    report.end()


def remove(
    manifest: ManifestPath,
    names: Annotated[list[str], typer.Option("--member", help="Name of a bank to remove; repeatable.")],
    keys: Keys = None,
    out: Out = None,
    days: Days = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make the next version without some banks."""
    signed, report = read_signed(manifest), Report(as_json)
    known = {member.name for member in signed.manifest.members}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"{unknown[0]!r} is no member; the members are {', '.join(sorted(known))}")
    rest = tuple(member for member in signed.manifest.members if member.name not in names)
    write(successor(signed, rest, days), keys, out, report, force=force)
    report.end()


def renew(
    manifest: ManifestPath,
    keys: Keys = None,
    out: Out = None,
    days: Days = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make the next version, in which nothing changes but when it expires."""
    signed, report = read_signed(manifest), Report(as_json)
    new = successor(signed, signed.manifest.members, days)
    write(new, keys, out, report, force=force)
    expires = new.manifest.expires
    report.say(f"expires {time.strftime('%Y-%m-%d', time.gmtime(expires))}", expires=expires)
    report.end()


def sign(
    manifest: ManifestPath,
    keys: Annotated[list[Path], typer.Option("--key", help="An admin's secret key; repeatable.")],
    as_json: AsJson = False,
) -> None:
    """Add an admin's signature to the file. Look at it with `consortium show` first: this is what admits banks."""
    report = Report(as_json)
    write(read_signed(manifest), keys, manifest, report, force=True)
    report.end()


def verify(
    manifest: ManifestPath,
    previous: Annotated[Path | None, typer.Option(help="The version before, whose admins must agree too.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="What the manifest's fingerprint should be.")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether a bank would trust the manifest; exit code 78 and what is missing if not."""
    from p2pfed.core.succession import verify_root, verify_succession

    signed = read_signed(manifest)
    if previous is not None:
        verify_succession(read_signed(previous).manifest, signed)
    if previous is None or fingerprint is not None:
        verify_root(signed, fingerprint or signed.fingerprint)
    version = signed.manifest.version
    text = f"version {version} is signed by enough admins; fingerprint {signed.fingerprint}"
    show(as_json, {"valid": True, "version": version, "fingerprint": signed.fingerprint}, text)


def view(manifest: ManifestPath, as_json: AsJson = False) -> None:
    """What the manifest says, who signed it, and its fingerprint."""
    from p2pfed.core import record

    signed = read_signed(manifest)
    names = [admin.name for admin in signed.signed_by(signed.manifest.admins)]
    value = {
        "fingerprint": signed.fingerprint,
        "signed_by": names,
        **times.calendar_value(signed.manifest.calendar, time.time()),
        "manifest": record.plain(signed.manifest),
    }
    show(as_json, value, _text(signed, names))


def _warn_if_slow(request: JoinRequest, manifest: Manifest) -> None:
    """Say on standard error that a bank needs longer rounds than the calendar's."""
    from p2pfed.core.joining import needed_seconds

    needed, calendar = needed_seconds(request, manifest.training.local_steps), manifest.calendar
    if needed is not None and not calendar.free and needed > calendar.round_seconds:
        print(
            f"{request.name} needs {needed:.1f} s a round to train, and the calendar's take {calendar.round_seconds:g} "
            "s: it will skip rounds, unless `p2pfed consortium change --round-seconds` makes them longer",
            file=sys.stderr,
        )


def _renewed(old: Member, new: Member) -> Member:
    """The old entry with the new addresses and what it told, and both certificates until the next change."""
    from p2pfed.core.joining import declaring

    certificates = dict.fromkeys((old.certificates[-1], *new.certificates))
    return dataclasses.replace(declaring(old, new), certificates=tuple(certificates), endpoints=new.endpoints)


def _text(signed: SignedManifest, signers: Sequence[str]) -> str:
    from p2pfed.core.identity import fingerprint

    m = signed.manifest
    rows = [
        (
            b.name,
            ", ".join(b.endpoints) or "dials out only",
            "-" if b.training_rows is None else f"{b.training_rows:,}",
            share_of_frauds(b.legitimate_per_fraud),
            len(b.certificates),
            fingerprint(bytes.fromhex(b.key)),
        )
        for b in m.members
    ]
    layers = "-".join(map(str, (m.model.inputs, *m.model.hidden, m.model.outputs)))
    return "\n".join(
        (
            f"{m.name}, version {m.version}, expires {time.strftime('%Y-%m-%d', time.gmtime(m.expires))}",
            f"fingerprint  {signed.fingerprint}",
            f"admins       {', '.join(a.name for a in m.admins)}; {m.threshold} must sign",
            f"signed by    {', '.join(signers) or 'nobody'}",
            f"model        {m.model.kind} {layers}, {m.model.schema().size:,} parameters, generation {m.generation}",
            f"training     {m.training.local_steps} steps of {m.training.batch} rows a round, {m.training.imbalance}",
            f"merging      {m.gossip.rule}, {plural(m.gossip.fanout, 'pull')} a round, topology {m.gossip.topology}"
            f"{'' if m.gossip.reputation else ', without reputation'}",
            f"contract     {plural(len(m.contract.columns), 'column')}, {m.contract.scaling} scaling",
            *times.calendar_lines(m.calendar, time.time()),
            "",
            table(("NAME", "ENDPOINTS", "ROWS", "FRAUDS", "CERTIFICATES", "KEY"), rows),
        )
    )
