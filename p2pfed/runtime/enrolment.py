"""How banks and admins come together: a bank's keys and join request, and the first manifest made of the requests."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from pathlib import Path

from p2pfed import __version__
from p2pfed.config import NodeConfig
from p2pfed.core.aggregation import rule_problem
from p2pfed.core.consortium import (
    Admin,
    Declared,
    GossipPolicy,
    Manifest,
    ManifestError,
    SignedManifest,
    parse_signed,
)
from p2pfed.core.contract import FeatureContract, Moments
from p2pfed.core.gossip.calendar import FREE, Calendar
from p2pfed.core.identity import Identity
from p2pfed.core.joining import JoinRequest, as_member, open_join_request, seal_join_request
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.succession import InForce, newest, verify_root
from p2pfed.core.types import DAY, Address, NodeId
from p2pfed.errors import ConfigError, NotPermitted, StateCorrupt
from p2pfed.net import tls
from p2pfed.store import credentials
from p2pfed.store.lock import StateLock
from p2pfed.store.state_dir import StateDir

CONTRACT_CLIP = 10.0
ADOPTION_SECONDS = 60.0
PUBLISH_MIN_FRAUDS = 5


def make_keys(state: StateDir, name: str, now: float) -> tuple[Identity, list[Path]]:
    """The bank's identity, and the files made for it: member key and TLS certificate, where they are not there yet.

    Raises StateLocked while a daemon runs and something is missing, and what reading the key raises.
    """
    made = []
    if not state.member_key.exists() or not state.tls.exists():
        with StateLock(state, __version__, now):
            if not state.member_key.exists():
                credentials.create_member_key(state)
                made.append(state.member_key)
            if not state.tls.exists():
                tls.write_pem(state.tls, tls.make_certificate(name))
                made.append(state.tls)
    return credentials.load_member_key(state), made


def join_request(
    config: NodeConfig,
    state: StateDir,
    identity: Identity,
    moments: Moments | None,
    declared: Declared,
    seconds_per_round: float | None = None,
    *,
    made: float,
) -> bytes:
    """The signed file to send to an admin, `made` then; raises ManifestError if the configuration does not fit one."""
    request = JoinRequest(
        name=config.node.name,
        key=identity.public_key.hex(),
        certificate=_certificate(state),
        endpoints=config.peers.advertise or _listening(config.peers.listen),
        moments=moments,
        seconds_per_round=seconds_per_round,
        legitimate_per_fraud=declared.legitimate_per_fraud,
        training_rows=declared.training_rows,
        made=int(made),
        consortium=_joined(state),
    )
    return seal_join_request(identity, request)


def made_before(path: Path, identity: Identity) -> JoinRequest | None:
    """The join request that this bank's `init` left at `path`; None if there is no file.

    Raises ConfigError if the file is something else, or another key's.
    """
    if not path.exists():
        return None
    request = open_join_request(path.read_bytes())
    if request.key != identity.public_key.hex():
        raise ConfigError("it was made with another member key")
    return request


def trusted_chain(state: StateDir) -> list[SignedManifest]:
    """The joined manifests, lowest version first, each verified by the one before it; none before `p2pfed join`.

    Raises StateCorrupt if a file is not what `join` once stored.
    """
    try:
        chain = [parse_signed(data) for data in state.manifests().values()]
        if chain:
            verify_root(chain[0], chain[0].fingerprint)  # the fingerprint was compared at `join`; was it edited since?
            newest(chain[0].manifest, chain[1:])
    except ManifestError as error:
        raise StateCorrupt(
            f"the manifests in {state.root / 'manifests'} are not to be trusted: {error}. If they are damaged or were "
            "edited, restore them from a backup, or remove them and `p2pfed join` again"
        ) from None
    return chain


def check_member(manifest: Manifest, identity: Identity, config: NodeConfig, state: StateDir) -> None:
    """Raise NotPermitted or ConfigError unless `manifest` lists this bank's key, name and certificate."""
    member = manifest.by_id.get(identity.node_id)
    where = f"version {manifest.version} of {manifest.name}"
    if member is None:
        if any(identity.node_id in signed.manifest.by_id for signed in trusted_chain(state)):
            raise NotPermitted(f"the admins removed this bank in {where} or before: ask them")
        raise NotPermitted(f"this bank's key is not in {where}: send join-request.json to an admin")
    if member.name != config.node.name:
        raise ConfigError(f"node.name is {config.node.name!r}, but {where} lists this key as {member.name!r}")
    if _certificate(state) not in member.certificates:
        raise NotPermitted(f"{state.tls} holds another certificate than {where}: send a new join request to an admin")


def check_rounds(manifest: Manifest, config: NodeConfig) -> None:
    """Raise ConfigError where training would have no end: neither a calendar nor `learning.rounds` gives it one."""
    if manifest.calendar.free and config.learning.rounds is None:
        raise ConfigError(
            f"learning.rounds is not set, and version {manifest.version} of {manifest.name} has no calendar: set "
            "learning.rounds to the number of rounds to train, or ask the admins for a calendar"
        )


def check_code(force: InForce) -> None:
    """Raise ConfigError if a merge rule names code, which this process may not run: `--allow-code` was not said."""
    for manifest in (force.manifest, force.coming):
        if manifest is not None and (problem := rule_problem(manifest.gossip.rule)):
            raise ConfigError(f"version {manifest.version} of {manifest.name}: {problem}")


def find_member(name: str, manifest: Manifest) -> NodeId | None:
    """The id of the member of that name, or with that id in whatever grouping; None if there is none."""
    members = manifest.by_id
    by_name = {m.name: node for node, m in members.items()}
    found = by_name.get(name, NodeId(name.replace("-", "").upper()))
    return found if found in members else None


def blocked_ids(names: tuple[str, ...], manifest: Manifest) -> frozenset[NodeId]:
    """The ids of members given by name or id; raises ConfigError on one that the manifest does not list."""
    found = {name: find_member(name, manifest) for name in names}
    if unknown := [name for name, node in found.items() if node is None]:
        raise ConfigError(f"peers.blocklist: {unknown[0]!r} is not a member; see `p2pfed members`")
    return frozenset(node for node in found.values() if node is not None)


def first_manifest(
    name: str,
    requests: Sequence[JoinRequest],
    admins: Sequence[Admin],
    threshold: int,
    contract: FeatureContract,
    model: ModelSpec,
    training: TrainingPolicy,
    gossip: GossipPolicy,
    *,
    seed: int,
    now: float,
    days: int,
    calendar: Calendar = FREE,
) -> Manifest:
    """Version 1 of a new consortium, not signed and not checked yet."""
    return Manifest(
        consortium=secrets.token_hex(16),
        name=name,
        version=1,
        previous="",
        issued=int(now),
        expires=int(now) + days * DAY,
        admins=tuple(admins),
        threshold=threshold,
        members=tuple(as_member(request) for request in requests),
        model=model,
        generation=1,
        seed=seed,
        initial_sha256=model.initial_weights(seed).digest,
        contract=contract,
        training=training,
        gossip=gossip,
        calendar=calendar,
    )


def _certificate(state: StateDir) -> str:
    return base64.b64encode(tls.certificate_of(state.tls)).decode()


def _joined(state: StateDir) -> str | None:
    """The consortium that this bank has joined, if it has."""
    manifests = state.manifests()
    return parse_signed(manifests[max(manifests)]).manifest.consortium if manifests else None


def _listening(listen: str | None) -> tuple[str, ...]:
    """The listener's own address, if others can dial it."""
    address = Address.parse(listen) if listen is not None else None
    if address is None or not address.port or address.wildcard:
        return ()
    return (str(address),)
