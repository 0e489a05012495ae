"""The consortium manifest: who is a member, what is trained, who may change that, and what it may say."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import NamedTuple

from p2pfed.core import record
from p2pfed.core.contract import FeatureContract
from p2pfed.core.fields import endpoints_problem, is_hex
from p2pfed.core.gossip.calendar import FREE, MOST_CYCLES, Calendar, calendar_problems
from p2pfed.core.identity import MANIFEST_DOMAIN, Signer, fingerprint, node_id, verify
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.payload import Encoding
from p2pfed.core.sampling import Graph, graph_of, topology_problem
from p2pfed.core.types import NAME, Address, NodeId, Roster
from p2pfed.core.weights import Weights
from p2pfed.errors import ConfigError

MAX_MANIFEST = 2 * 1024 * 1024
"""A signed manifest file, in bytes."""
MAX_MEMBERS = 20_000
MAX_ADMINS = 64
MAX_CERTIFICATE = 4096
"""A DER certificate, in bytes."""
MAX_PARAMETERS = 20_000_000

POWERS = tuple(2.0**power for power in range(-20, 21))
"""What `Member.legitimate_per_fraud` may be: coarse, to tell little of a bank, and fine enough to know what its models
may be like."""
ROW_POWERS = tuple(1 << power for power in range(41))
"""What `Member.training_rows` may be."""

_NAME = re.compile(NAME)


@dataclass(frozen=True)
class Member:
    """One bank: its name, identity key, one or two TLS certificates and where it usually answers."""

    name: str
    key: str
    """Ed25519 public key, hex."""
    certificates: tuple[str, ...]
    """DER, base64; two while one is being replaced."""
    endpoints: tuple[str, ...]
    """`host:port`; empty for a bank that can only dial out."""
    legitimate_per_fraud: float | None = record.added()
    """Legitimate payments for each fraud, to a power of two, as its join request told; None where it did not."""
    training_rows: int | None = record.added()
    """Its training rows, by the power of two at or below, as its join request told; None where it did not."""


class Declared(NamedTuple):
    """What a member's join request told of its training rows: see `Member`."""

    legitimate_per_fraud: float | None = None
    training_rows: int | None = None


@dataclass(frozen=True)
class Admin:
    """Somebody whose signature counts towards the threshold."""

    name: str
    key: str


@dataclass(frozen=True)
class GossipPolicy:
    """How members exchange and merge; the same for all, so that they are comparable."""

    rule: str
    """A name from the aggregation registry, `name:parameter`, or `module:Class`."""
    fanout: int
    """Members pulled from in a round; min(fanout, n-1)."""
    heartbeat_seconds: float
    round_interval_seconds: float
    """A round starts no earlier than this after the one before; 0 is as fast as training goes."""
    encoding: Encoding
    adoption_seconds: float
    """How long a node without checkpoint waits to meet members it could adopt a model from."""
    publish_min_frauds: int
    """A member with fewer training frauds listens: trains, merges and scores, but publishes nothing."""
    topology: str = "random"
    """Who may pull from whom: `random` or `full` (all), `ring`, `regular:K` drawn from the manifest's seed, `edges`."""
    edges: tuple[tuple[str, str], ...] = ()
    """With topology `edges` the names of each two neighbours; empty with all others."""
    reputation: bool = True
    """Whether members judge each other's models and quarantine; without, the merge rule is alone."""


@dataclass(frozen=True)
class Manifest:
    """Everything the members agreed on."""

    consortium: str
    """16 random bytes, hex; fixed for ever."""
    name: str
    version: int
    previous: str
    """SHA-256 (hex) of the body bytes of version - 1; empty for version 1."""
    issued: int
    """Unix seconds."""
    expires: int
    """Unix seconds; afterwards a problem is raised and work goes on."""
    admins: tuple[Admin, ...]
    threshold: int
    members: tuple[Member, ...]
    model: ModelSpec
    generation: int
    """Raised when training starts anew from initial weights."""
    seed: int
    initial_sha256: str
    """Digest of `model.initial_weights(seed)`; a node whose own differs refuses to start."""
    contract: FeatureContract
    training: TrainingPolicy
    gossip: GossipPolicy
    calendar: Calendar = FREE
    """When members train."""
    from_cycle: int = 0
    """The cycle from which model, contract, training, merge rule and calendar of this version hold."""
    generation_cycle: int = 0
    """The cycle in which this generation of the model began: its learning rate counts from there."""

    # What follows from the fields is worked out once, for all nodes of a process that follow this manifest.

    @cached_property
    def by_id(self) -> dict[NodeId, Member]:
        """The members under their ids, in order of these."""
        return dict(sorted((node_id(bytes.fromhex(m.key)), m) for m in self.members))

    @cached_property
    def roster(self) -> Roster:
        """The members' ids and where they can be dialled."""
        places = {node: map(Address.parse, m.endpoints) for node, m in self.by_id.items()}
        return Roster({node: tuple(a for a in addresses if a.dialable) for node, addresses in places.items()})

    @cached_property
    def keys(self) -> dict[NodeId, bytes]:
        """Each member's public key."""
        return {node: bytes.fromhex(m.key) for node, m in self.by_id.items()}

    @cached_property
    def declared(self) -> dict[NodeId, Declared]:
        """What each member told of its training rows."""
        return {node: Declared(m.legitimate_per_fraud, m.training_rows) for node, m in self.by_id.items()}

    @cached_property
    def graph(self) -> Graph | None:
        """Who may pull from whom; None where all may pull from all. Raises ConfigError on an impossible topology."""
        named = {m.name: node for node, m in self.by_id.items()}
        edges = [(named[a], named[b]) for a, b in self.gossip.edges]
        return graph_of(self.gossip.topology, self.roster.ids, self.seed, edges)

    @cached_property
    def initial(self) -> Weights:
        """What everybody's training begins with."""
        return self.model.initial_weights(self.seed)

    @cached_property
    def model_digest(self) -> str:
        """What updates must name to be averaged: SHA-256 (hex) of schema digest, generation and initial weights."""
        text = f"{self.model.schema().digest}/{self.generation}/{self.initial_sha256}"
        return hashlib.sha256(b"p2pfed/model/1\0" + text.encode()).hexdigest()


@dataclass(frozen=True)
class Signature:
    """An admin's Ed25519 signature (hex) over MANIFEST_DOMAIN and the manifest's body bytes."""

    admin: str
    """The admin's public key, hex: a name may change hands from one version to the next."""
    signature: str


class ManifestError(ConfigError, ValueError):
    """A manifest or join request that must not be trusted; `problems` says why, one line each."""


@dataclass(frozen=True)
class SignedManifest:
    """A manifest, the bytes its signatures cover, and the signatures collected so far."""

    manifest: Manifest
    body: bytes
    """`body_bytes(manifest)`."""
    signatures: tuple[Signature, ...]

    @classmethod
    def unsigned(cls, manifest: Manifest) -> SignedManifest:
        """A draft that nobody has signed; raises ManifestError if a field has the wrong type."""
        return cls(manifest, body_bytes(manifest), ())

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the body: what the next version names as `previous`."""
        return hashlib.sha256(self.body).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """The body's fingerprint, to be read over the phone before first trust."""
        return fingerprint(self.body)

    def sign(self, signer: Signer) -> SignedManifest:
        """With `signer`'s signature added, or put in the place of its older one."""
        key = signer.public_key.hex()
        signature = Signature(key, signer.sign(MANIFEST_DOMAIN + self.body).hex())
        others = tuple(s for s in self.signatures if s.admin != key)
        return SignedManifest(self.manifest, self.body, (*others, signature))

    def signed_by(self, admins: Iterable[Admin]) -> tuple[Admin, ...]:
        """Those of `admins` whose key made one of the signatures."""
        made = {s.admin: s.signature for s in self.signatures}
        return tuple(a for a in admins if a.key in made and self._valid(a.key, made[a.key]))

    def _valid(self, key: str, signature: str) -> bool:
        try:
            return verify(bytes.fromhex(key), MANIFEST_DOMAIN + self.body, bytes.fromhex(signature))
        except ValueError:  # not hex: no signature at all
            return False

    def to_bytes(self) -> bytes:
        """The file: JSON, indented, because people read what they sign."""
        return record.readable({"body": self.manifest, "signatures": self.signatures})


@dataclass(frozen=True)
class _ManifestFile:
    body: Manifest
    signatures: tuple[Signature, ...]


def body_bytes(manifest: Manifest) -> bytes:
    """The one canonical form of a manifest, which is hashed and signed; raises ManifestError on a wrong type."""
    try:
        # once through the parser, so that a 1 given for 1.0 does not sign differently from what is read back
        return record.canonical(record.build(Manifest, record.plain(manifest)))
    except record.RecordError as error:
        raise ManifestError(str(error)) from None


def parse_signed(data: bytes) -> SignedManifest:
    """Read a manifest file, whatever its spaces and order of keys; trusts nothing yet. Raises ManifestError."""
    if len(data) > MAX_MANIFEST:
        raise ManifestError(f"a manifest of {len(data)} bytes: the limit is {MAX_MANIFEST}")
    try:
        file = record.parse(_ManifestFile, data)
    except record.RecordError as error:
        raise ManifestError(f"this is not a manifest: {error}") from None
    return SignedManifest(file.body, record.canonical(file.body), file.signatures)


# --- What a manifest may say ------------------------------------------------------------------------------------------


def check_manifest(manifest: Manifest) -> None:
    """Raise ManifestError with every contradiction in `manifest`, one problem each."""
    problems = [
        *_version_problems(manifest),
        *_people_problems(manifest),
        *_policy_problems(manifest),
        *_cycle_problems(manifest),
        *_model_problems(manifest),
    ]
    if problems:
        raise ManifestError(*problems)


def usual_rate(rates: Iterable[float | None]) -> float | None:
    """The geometric median of those of `Member.legitimate_per_fraud` that are known; None if none is."""
    known = [math.log2(rate) for rate in rates if rate is not None]
    return 2.0 ** median(known) if known else None


def member_problems(member: Member) -> list[str]:
    """What is wrong with one member's entry, by itself."""
    name = member.name[:63]
    problems = []
    if not _NAME.fullmatch(member.name):
        problems.append(f"member {name!r}: a name has up to 63 letters, digits, dots, dashes and underscores")
    if not is_hex(member.key, 64):
        problems.append(f"member {name!r}: the key is not 64 lower-case hex digits")
    if not 1 <= len(member.certificates) <= 2:
        problems.append(f"member {name!r}: lists {len(member.certificates)} certificates, one or two are needed")
    if not all(_is_certificate(c) for c in member.certificates):
        problems.append(f"member {name!r}: a certificate is not base64 of DER")
    if problem := endpoints_problem(member.endpoints):
        problems.append(f"member {name!r}: {problem}")
    rate = member.legitimate_per_fraud
    if rate is not None and (type(rate) is not float or rate not in POWERS):
        problems.append(f"member {name!r}: legitimate_per_fraud is not a power of two from 2^-20 to 2^20")
    if member.training_rows is not None and member.training_rows not in ROW_POWERS:
        problems.append(f"member {name!r}: training_rows is not a power of two from 1 to 2^40")
    return problems


def _is_certificate(text: str) -> bool:
    try:
        der = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return der[:1] == b"\x30" and len(der) <= MAX_CERTIFICATE  # 0x30: an ASN.1 sequence, as every certificate is


def _version_problems(manifest: Manifest) -> list[str]:
    problems = []
    if not is_hex(manifest.consortium, 32):
        problems.append("consortium is not 32 lower-case hex digits")
    if not manifest.name.isprintable() or not 1 <= len(manifest.name) <= 63:
        problems.append("name is not 1 to 63 printable characters")
    if manifest.version < 1:
        problems.append(f"version is {manifest.version}, the first is 1")
    if not is_hex(manifest.previous, 0 if manifest.version == 1 else 64):
        problems.append("previous is empty for version 1 and 64 hex digits for all others")
    if not 0 <= manifest.issued < manifest.expires:
        problems.append("it expires before it is issued")
    return problems


def _people_problems(manifest: Manifest) -> list[str]:
    members, admins = manifest.members, manifest.admins
    problems = [p for m in members for p in member_problems(m)]
    if not 1 <= len(members) <= MAX_MEMBERS:
        problems.append(f"{len(members)} members: from 1 to {MAX_MEMBERS} are possible")
    if not 1 <= len(admins) <= MAX_ADMINS:
        problems.append(f"{len(admins)} admins: from 1 to {MAX_ADMINS} are possible")
    if not 1 <= manifest.threshold <= len(admins):
        problems.append(f"the threshold is {manifest.threshold}, with {len(admins)} admins")
    for admin in admins:
        if not _NAME.fullmatch(admin.name) or not is_hex(admin.key, 64):
            problems.append(f"admin {admin.name[:63]!r}: the name or the key (64 lower-case hex digits) is malformed")
    problems += _twice("member name", [m.name.lower() for m in members]) + _twice(
        "member key", [m.key for m in members]
    )
    problems += _twice("certificate", [c for m in members for c in m.certificates])
    problems += _twice("admin name", [a.name for a in admins]) + _twice("admin key", [a.key for a in admins])
    return problems


def _twice(what: str, values: list[str]) -> list[str]:
    return [f"{what} {value[:63]!r} is listed twice" for value, times in Counter(values).items() if times > 1]


def _policy_problems(manifest: Manifest) -> list[str]:
    gossip, names = manifest.gossip, [m.name for m in manifest.members]
    wrong = topology_problem(gossip.topology, names, gossip.edges)
    rules = [
        (bool(gossip.rule) and gossip.rule.isprintable(), "rule is empty or has control characters"),
        (gossip.fanout >= 1, "fanout is below 1"),
        (0.01 <= gossip.heartbeat_seconds <= 300, "heartbeat_seconds is not between 0.01 and 300"),
        (gossip.round_interval_seconds >= 0, "round_interval_seconds is negative"),
        (gossip.adoption_seconds >= 0, "adoption_seconds is negative"),
        (gossip.publish_min_frauds >= 0, "publish_min_frauds is negative"),
        (not wrong, wrong),
    ]
    problems = [f"gossip: {problem}" for good, problem in rules if not good]
    problems += [f"calendar: {problem}" for problem in calendar_problems(manifest.calendar)]
    if not manifest.calendar.free and manifest.training.local_steps == 0:
        problems.append("training: a round of a calendar needs local_steps, or banks with more rows train longer")
    return problems


def _cycle_problems(manifest: Manifest) -> list[str]:
    """What the numbers of cycles contradict; whether they follow from the version before, `succession` says."""
    start, generation, first = manifest.from_cycle, manifest.generation_cycle, manifest.calendar.first
    if not 0 <= max(generation, first) <= start <= MOST_CYCLES or generation < 0:
        return ["from_cycle is out of range, or the generation or the calendar begins in another cycle after it"]
    if start and (manifest.version == 1 or manifest.calendar.free):
        return ["from_cycle is 0 in version 1, and where there are no cycles"]
    return []


def _model_problems(manifest: Manifest) -> list[str]:
    model, problems = manifest.model, []
    if model.inputs != manifest.contract.width:
        problems.append(f"the model has {model.inputs} inputs, the feature contract gives {manifest.contract.width}")
    if manifest.generation < 0 or not 0 <= manifest.seed < 2**63:
        problems.append("generation or seed is out of range")
    elif sum((fan_in + 1) * fan_out for fan_in, fan_out in model.layers) > MAX_PARAMETERS:
        problems.append(f"the model has more than {MAX_PARAMETERS} parameters")
    elif model.initial_weights(manifest.seed).digest != manifest.initial_sha256:  # not kept: few are begun with
        problems.append("initial_sha256 is not the digest of the initial weights that model and seed give")
    return problems
