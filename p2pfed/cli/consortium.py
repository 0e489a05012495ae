"""The admins' verbs: found a consortium, admit and remove banks, sign and look at its manifest."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from p2pfed.cli.terminal import AsJson, naming, numbers, plural, read_file, show, table
from p2pfed.core.types import DAY
from p2pfed.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from p2pfed.core.consortium import Admin, JoinRequest, Member, SignedManifest
    from p2pfed.core.contract import FeatureContract
    from p2pfed.core.identity import Identity

ManifestPath = Annotated[Path, typer.Argument(help="The manifest file.")]
RequestPaths = Annotated[list[Path], typer.Option("--request", help="A bank's join request; repeatable.")]
AdminPaths = Annotated[list[Path], typer.Option("--admin", help="An admin's .pub file; repeatable.")]
Scaling = Annotated[
    Literal["contract", "local"],
    typer.Option(help="Scale by the median of the banks' moments, or each bank by its own."),
]
Model = Annotated[Literal["mlp", "autoencoder"], typer.Option(help="Kind of model.")]
Hidden = Annotated[str, typer.Option(help="Hidden layers, such as 64,32; default by kind of model.")]
Dropout = Annotated[float, typer.Option(help="Share of hidden units dropped in training.")]
LocalSteps = Annotated[int, typer.Option(help="Optimiser steps a round; 0 is one epoch of a bank's rows.")]
Batch = Annotated[int, typer.Option(help="Rows an optimiser step.")]
LearningRate = Annotated[float, typer.Option(help="Adam's learning rate.")]
DecayRounds = Annotated[str, typer.Option(help="Rounds after which the rate is divided by 5, such as 60,80.")]
Imbalance = Annotated[
    Literal["none", "class_weight", "smote", "adasyn", "undersample"],
    typer.Option(help="What is done about frauds being rare."),
]
Rule = Annotated[str, typer.Option(help="How models are merged: clip, mean, nna:2 or another rule, or module:Class.")]
Fanout = Annotated[int, typer.Option(help="Members each bank pulls from in a round.")]
Topology = Annotated[str, typer.Option(help="Who may pull from whom: random, full, ring or regular:K.")]
Heartbeat = Annotated[float, typer.Option(help="Seconds between heartbeats.")]
RoundInterval = Annotated[float, typer.Option(help="Least seconds from round to round; 0 is as fast as training goes.")]
Encoding = Annotated[Literal["float32", "float16", "int8"], typer.Option(help="Weights on the wire.")]
NoReputation = Annotated[
    bool, typer.Option("--no-reputation", help="Let nobody judge others' models: the merge rule is alone.")
]
Days = Annotated[int | None, typer.Option(help="Days until the new version expires; default as the old one.")]
Keys = Annotated[list[Path] | None, typer.Option("--key", help="Sign at once with this secret key; repeatable.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where to write; default manifest-VERSION.json.")]


def key(
    name: Annotated[str, typer.Argument(help="The admin's name.")],
    folder: Annotated[Path, typer.Option(help="Where to write.")] = Path(),
) -> None:
    """Make an admin's key pair: NAME.key stays with the admin, NAME.pub goes to whoever founds the consortium."""
    from p2pfed.core import record
    from p2pfed.core.consortium import Admin
    from p2pfed.core.identity import Identity, grouped
    from p2pfed.store.state_dir import write_atomically

    secret, public = folder / f"{name}.key", folder / f"{name}.pub"
    if secret.exists():
        raise UsageError(f"{secret} exists and is not replaced; move it away first")
    identity = Identity.generate()
    write_atomically(secret, identity.seed.hex().encode() + b"\n")
    write_atomically(public, record.readable(Admin(name, identity.public_key.hex())), 0o644)
    print(f"made {secret} (keep it secret) and {public}\n{name} is {grouped(identity.node_id)}")


def create(
    name: Annotated[str, typer.Argument(help="The consortium's name.")],
    requests: RequestPaths,
    admins: AdminPaths,
    threshold: Annotated[int, typer.Option(help="How many admins must sign a change.")],
    contract: Annotated[Path, typer.Option(help="The draft feature contract, from `p2pfed data describe --contract`.")],
    scaling: Scaling = "contract",
    model: Model = "mlp",
    hidden: Hidden = "",
    dropout: Dropout = 0.2,
    local_steps: LocalSteps = 100,
    batch: Batch = 256,
    learning_rate: LearningRate = 2e-3,
    decay_rounds: DecayRounds = "",
    imbalance: Imbalance = "class_weight",
    rule: Rule = "clip",
    no_reputation: NoReputation = False,
    fanout: Fanout = 6,
    topology: Topology = "random",
    heartbeat: Heartbeat = 10.0,
    round_interval: RoundInterval = 0.0,
    encoding: Encoding = "float32",
    seed: Annotated[int, typer.Option(help="Draws the initial weights.")] = 0,
    days: Annotated[int, typer.Option(help="Days until the manifest expires.")] = 365,
    keys: Keys = None,
    out: Out = None,
) -> None:
    """Found a consortium: version 1 of its manifest, from the banks' join requests and the admins' public keys."""
    from p2pfed.core.consortium import GossipPolicy, SignedManifest
    from p2pfed.core.model import DEFAULT_HIDDEN, POSITIVE_WEIGHT_CAP, ModelSpec, TrainingPolicy
    from p2pfed.runtime import enrolment as e

    joining = [_request(path) for path in requests]
    agreed = _agree(read_contract(contract), joining, scaling)
    try:
        spec = ModelSpec(model, agreed.width, numbers(hidden, "--hidden") or DEFAULT_HIDDEN[model], dropout)
        decay = numbers(decay_rounds, "--decay-rounds")
        training = TrainingPolicy(local_steps, batch, learning_rate, decay, imbalance, POSITIVE_WEIGHT_CAP)
    except ValueError as error:
        raise UsageError(str(error)) from None
    gossip = GossipPolicy(
        rule,
        fanout,
        heartbeat,
        round_interval,
        encoding,
        e.ADOPTION_SECONDS,
        e.PUBLISH_MIN_FRAUDS,
        topology,
        reputation=not no_reputation,
    )
    people = (name, joining, [_admin(path) for path in admins], threshold)
    first = e.first_manifest(*people, agreed, spec, training, gossip, seed=seed, now=time.time(), days=days)
    _write(SignedManifest.unsigned(first), keys, out)


def add(manifest: ManifestPath, requests: RequestPaths, keys: Keys = None, out: Out = None, days: Days = None) -> None:
    """Make the next version with more banks, or with a known bank's new certificate and addresses."""
    from p2pfed.core.joining import as_member

    signed = _signed(manifest)
    members = {member.key: member for member in signed.manifest.members}
    for path in requests:
        new = as_member(_request(path))
        members[new.key] = _renewed(members[new.key], new) if new.key in members else new
    _write(_successor(signed, tuple(members.values()), days), keys, out)


def remove(
    manifest: ManifestPath,
    names: Annotated[list[str], typer.Option("--member", help="Name of a bank to remove; repeatable.")],
    keys: Keys = None,
    out: Out = None,
    days: Days = None,
) -> None:
    """Make the next version without some banks."""
    signed = _signed(manifest)
    known = {member.name for member in signed.manifest.members}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"{unknown[0]!r} is no member; the members are {', '.join(sorted(known))}")
    rest = tuple(member for member in signed.manifest.members if member.name not in names)
    _write(_successor(signed, rest, days), keys, out)


def sign(
    manifest: ManifestPath,
    keys: Annotated[list[Path], typer.Option("--key", help="An admin's secret key; repeatable.")],
) -> None:
    """Add an admin's signature to the file. Look at it with `consortium show` first: this is what admits banks."""
    _write(_signed(manifest), keys, manifest)


def verify(
    manifest: ManifestPath,
    previous: Annotated[Path | None, typer.Option(help="The version before, whose admins must agree too.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="What the manifest's fingerprint should be.")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether a bank would trust the manifest; exit code 78 and what is missing if not."""
    from p2pfed.core.succession import verify_root, verify_succession

    signed = _signed(manifest)
    if previous is not None:
        verify_succession(_signed(previous).manifest, signed)
    if previous is None or fingerprint is not None:
        verify_root(signed, fingerprint or signed.fingerprint)
    version = signed.manifest.version
    text = f"version {version} is signed by enough admins; fingerprint {signed.fingerprint}"
    show(as_json, {"valid": True, "version": version, "fingerprint": signed.fingerprint}, text)


def view(manifest: ManifestPath, as_json: AsJson = False) -> None:
    """What the manifest says, who signed it, and its fingerprint."""
    from p2pfed.core import record

    signed = _signed(manifest)
    names = [admin.name for admin in signed.signed_by(signed.manifest.admins)]
    value = {"fingerprint": signed.fingerprint, "signed_by": names, "manifest": record.plain(signed.manifest)}
    show(as_json, value, _text(signed, names))


def read_contract(path: Path) -> FeatureContract:
    """A draft feature contract; raises ConfigError."""
    from p2pfed.core import record
    from p2pfed.core.contract import FeatureContract

    try:
        return record.parse(FeatureContract, read_file(path, "the contract"))
    except record.RecordError as error:
        raise ConfigError(f"{path} is not a feature contract: {error}") from None


def _request(path: Path) -> JoinRequest:
    """A bank's request; its fingerprint is printed whole, because a few characters of it can be forged."""
    from p2pfed.core.joining import key_fingerprint, open_join_request

    with naming(path):
        request = open_join_request(read_file(path, "the join request"))
    print(f"{request.name} asks with key {key_fingerprint(request)}")
    return request


def _admin(path: Path) -> Admin:
    from p2pfed.core import record
    from p2pfed.core.consortium import Admin

    try:
        return record.parse(Admin, read_file(path, "the admin's public key"))
    except record.RecordError as error:
        raise ConfigError(f"{path} is not an admin's .pub file: {error}") from None


def _signed(path: Path) -> SignedManifest:
    from p2pfed.core.consortium import parse_signed

    with naming(path):
        return parse_signed(read_file(path, "the manifest"))


def _identity(path: Path) -> Identity:
    from p2pfed.core.identity import Identity
    from p2pfed.store.credentials import read_secret

    try:
        return Identity.from_seed(bytes.fromhex(read_secret(path)))
    except ValueError:
        raise ConfigError(f"{path} does not hold a secret key (64 hex digits)") from None


def _agree(
    draft: FeatureContract, joining: Sequence[JoinRequest], scaling: Literal["contract", "local"]
) -> FeatureContract:
    """The draft with its scaling settled."""
    from p2pfed.core.contract import Moments

    if scaling == "local":
        return dataclasses.replace(draft, scaling="local", moments=Moments((), ()))
    from p2pfed.data.features import contract_moments

    told = [request.moments for request in joining if request.moments is not None]
    silent = [request.name for request in joining if request.moments is None]
    if len(told) * 2 <= len(joining):
        raise ConfigError(
            f"the join requests of {', '.join(silent)} have no moments, and more than half must: those banks run "
            "`p2pfed init --contract DRAFT` and send the new request; or choose --scaling local"
        )
    if wrong := [r.name for r in joining if r.moments is not None and len(r.moments.means) != len(draft.numeric)]:
        raise ConfigError(f"the join request of {wrong[0]} was made for another contract: ask for a new one")
    return dataclasses.replace(draft, scaling="contract", moments=contract_moments(told))


def _successor(signed: SignedManifest, members: tuple[Member, ...], days: int | None) -> SignedManifest:
    from p2pfed.core.consortium import SignedManifest

    old, now = signed.manifest, int(time.time())
    lasting = old.expires - old.issued if days is None else days * DAY
    return SignedManifest.unsigned(
        dataclasses.replace(
            old, version=old.version + 1, previous=signed.sha256, issued=now, expires=now + lasting, members=members
        )
    )


def _renewed(old: Member, new: Member) -> Member:
    """The old entry with the new addresses, and both certificates until the next change."""
    certificates = dict.fromkeys((old.certificates[-1], *new.certificates))
    return dataclasses.replace(old, certificates=tuple(certificates), endpoints=new.endpoints)


def _write(signed: SignedManifest, keys: Sequence[Path] | None, out: Path | None) -> None:
    from p2pfed.core.consortium import check_manifest
    from p2pfed.store.state_dir import write_atomically

    check_manifest(signed.manifest)
    known = {admin.key for admin in signed.manifest.admins}
    for path in keys or ():
        identity = _identity(path)
        # an admin who leaves signs the version that removes him with a key it no longer lists
        if identity.public_key.hex() not in known and signed.manifest.version == 1:
            raise UsageError(f"{path} is the key of no admin of this manifest")
        signed = signed.sign(identity)
    path = out or Path(f"manifest-{signed.manifest.version}.json")
    write_atomically(path, signed.to_bytes(), 0o644)
    names = [admin.name for admin in signed.signed_by(signed.manifest.admins)]
    print(f"wrote {path}, signed by {', '.join(names) or 'nobody'}; {signed.manifest.threshold} needed")
    print(f"fingerprint {signed.fingerprint}")


def _text(signed: SignedManifest, signers: Sequence[str]) -> str:
    from p2pfed.core.identity import fingerprint

    m = signed.manifest
    rows = [
        (b.name, ", ".join(b.endpoints) or "dials out only", len(b.certificates), fingerprint(bytes.fromhex(b.key)))
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
            "",
            table(("NAME", "ENDPOINTS", "CERTIFICATES", "KEY"), rows),
        )
    )
