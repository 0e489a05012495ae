"""What a manifest may say: each check gives the problems, one line each."""

from __future__ import annotations

import base64
import re
from collections import Counter

from p2pfed.core.aggregation import is_foreign, rule_problem
from p2pfed.core.consortium import MAX_MEMBERS, MAX_PARAMETERS, POWERS, ROW_POWERS, Manifest, ManifestError, Member
from p2pfed.core.contract import moments_problem
from p2pfed.core.fields import endpoints_problem, is_hex
from p2pfed.core.gossip.calendar import MOST_CYCLES, calendar_problems
from p2pfed.core.sampling import topology_problem
from p2pfed.core.types import NAME

MAX_ADMINS = 64
MAX_CERTIFICATE = 4096
"""A DER certificate, in bytes."""
LATEST = 2**37
"""Unix seconds of a join request: a time that calendars can write."""

_NAME = re.compile(NAME)


def check_manifest(manifest: Manifest, *, foreign: bool = False) -> None:
    """Raise ManifestError with every contradiction in `manifest`, one problem each.

    With `foreign` its merge rule may be `module:Class` anywhere: for who only reads or stores it. Nothing is imported.
    """
    problems = [
        *_version_problems(manifest),
        *_people_problems(manifest),
        *_policy_problems(manifest, foreign),
        *_cycle_problems(manifest),
        *_model_problems(manifest),
    ]
    if problems:
        raise ManifestError(*problems)


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
    if not all(map(_is_certificate, member.certificates)):
        problems.append(
            f"member {name!r}: a certificate is not base64 of DER, of one certificate and in its one spelling"
        )
    if problem := endpoints_problem(member.endpoints):
        problems.append(f"member {name!r}: {problem}")
    rate = member.legitimate_per_fraud
    if rate is not None and (type(rate) is not float or rate not in POWERS):
        problems.append(f"member {name!r}: legitimate_per_fraud is not a power of two from 2^-20 to 2^20")
    if member.requested is not None and not 0 < member.requested <= LATEST:
        problems.append(f"member {name!r}: the time of its request is not Unix seconds")
    if member.training_rows is not None and member.training_rows not in ROW_POWERS:
        problems.append(f"member {name!r}: training_rows is not a power of two from 1 to 2^40")
    return problems


def _is_certificate(text: str) -> bool:
    """Whether two such texts are equal if and only if the certificates are: nobody can list another's as its own."""
    try:
        der = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return base64.b64encode(der).decode() == text and len(der) <= MAX_CERTIFICATE and _is_one_sequence(der)


def _is_one_sequence(der: bytes) -> bool:
    """Whether these are one ASN.1 sequence, as every certificate is, and nothing behind it."""
    if len(der) < 2 or der[0] != 0x30:
        return False
    if der[1] < 0x80:
        return len(der) == 2 + der[1]
    digits = der[2 : 2 + (der[1] & 0x7F)]
    length = int.from_bytes(digits, "big")
    shortest = length >= 0x80 and digits[0] != 0
    return shortest and len(der) == 2 + len(digits) + length


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


def _policy_problems(manifest: Manifest, foreign: bool) -> list[str]:
    gossip, names = manifest.gossip, [m.name for m in manifest.members]
    wrong = topology_problem(gossip.topology, names, gossip.edges)
    unknown = "" if foreign and is_foreign(gossip.rule) else rule_problem(gossip.rule)
    rules = [
        (not unknown, unknown),
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
    if problem := moments_problem(manifest.contract.moments):
        problems.append(f"the feature contract: {problem}")
    return problems
