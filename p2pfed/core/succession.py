"""How trust in a manifest begins, and how it passes on to the next version.

A manifest of version N+1 counts only if the admins of version N *and* its own admins sign it in threshold number
(the root rule of The Update Framework). Versions never go down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from p2pfed.core import record
from p2pfed.core.consortium import Manifest, ManifestError, Signature, SignedManifest, parse_signed
from p2pfed.core.contradictions import check_manifest
from p2pfed.core.identity import same_fingerprint
from p2pfed.core.types import DAY, NodeId

DEPARTED_SECONDS = 30 * DAY
"""How long a bank that was removed may ask for the version that removed it."""


@dataclass(frozen=True)
class _Seals:
    signatures: tuple[Signature, ...]


@dataclass(frozen=True)
class Departed:
    """A bank that is no member any more, and may still learn so."""

    member: NodeId
    certificates: tuple[str, ...]
    """DER, base64, as its last entry listed them."""
    version: int
    """The first version without it."""
    until: float
    """Unix seconds."""


def verify_root(signed: SignedManifest, expected: str) -> Manifest:
    """First trust: the fingerprint `expected`, told by somebody trusted, and the manifest's own threshold.

    Raises ManifestError. Whether this process may run a merge rule that names code, is asked where it would.
    """
    try:
        same = same_fingerprint(signed.fingerprint, expected)
    except ValueError as error:
        raise ManifestError(f"the fingerprint given is not one: {error}") from None
    if not same:
        raise ManifestError(
            f"this manifest has the fingerprint {signed.fingerprint}, not the one given: ask an admin for both again"
        )
    check_manifest(signed.manifest, foreign=True)
    _check_threshold(signed, signed.manifest)
    return signed.manifest


def verify_succession(current: Manifest, successor: SignedManifest) -> Manifest:
    """Trust handed on: the next version, signed in threshold number by the admins of both.

    The root rule of The Update Framework, section 5.3. Raises ManifestError that says what is missing. Of a merge rule
    that names code see `verify_root`.
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
    check_manifest(new, foreign=True)
    _check_threshold(successor, new)
    if problems := change_problems(current, new):
        raise ManifestError(*problems)
    return new


def open_successor(current: Manifest, data: bytes) -> SignedManifest:
    """What a member offers as the next version, once an admin of `current` is seen to have signed it.

    Little is made of `data` before. Raises ManifestError; whether the version follows, `verify_succession` says.
    """
    if len(data) > current.longest_successor:
        raise ManifestError(f"a manifest of {len(data)} bytes: at most {current.longest_successor} are taken here")
    try:
        told = record.load(data)
        seals = record.build(_Seals, {"signatures": told["signatures"]})
        body = record.canonical(told["body"])
    except (record.RecordError, TypeError, KeyError, RecursionError) as error:
        raise ManifestError(f"this is not a manifest: {error}") from None
    if not SignedManifest(current, body, seals.signatures).signed_by(current.admins):
        raise ManifestError("no admin of the present version has signed this manifest")
    return parse_signed(data)


def departed(versions: Iterable[Manifest], now: float) -> tuple[Departed, ...]:
    """Who was removed by one of `versions`, given in order, less than `DEPARTED_SECONDS` before `now`."""
    left: dict[NodeId, Departed] = {}
    before: Manifest | None = None
    for manifest in versions:
        for node, member in before.by_id.items() if before else ():
            if node not in manifest.by_id:
                left[node] = Departed(node, member.certificates, manifest.version, manifest.issued + DEPARTED_SECONDS)
        left = {node: one for node, one in left.items() if node not in manifest.by_id}
        before = manifest
    return tuple(one for one in left.values() if now < one.until)


@dataclass(frozen=True)
class InForce:
    """Which versions hold: of the newest the members at once; what is trained, how and when from its cycle on."""

    manifest: Manifest
    """The newest version; before its cycle with what is trained, how and when of the one before."""
    coming: Manifest | None = None
    """The newest version, while it waits for its cycle. Where there are no cycles it waits for a restart."""
    before: Manifest | None = None
    """What was in force before the cycle that is under way changed it."""

    @cached_property
    def _begins(self) -> float:
        """When what is coming begins: where the old calendar says so, which then ends."""
        if self.coming is None or self.manifest.calendar.free:
            return float("inf")
        return self.manifest.calendar.begins(self.coming.from_cycle)

    @cached_property
    def _settled(self) -> float:
        """When a cycle has passed since the last change."""
        return self.manifest.calendar.begins(self.manifest.from_cycle + 1) if self.before else float("inf")

    def at(self, wall: float) -> InForce:
        """What is in force at `wall` (Unix seconds); this very object if nothing changes.

        What has begun does not end again, though the clock may be set back.
        """
        if self.coming is not None and self._begins <= wall:
            return InForce(self.coming, before=self.manifest)
        if self._settled <= wall:
            return InForce(self.manifest, self.coming)
        return self

    def followed(self, new: Manifest) -> InForce:
        """With a newer version, whose changes wait for their cycle."""
        old = self.manifest
        if new.from_cycle == old.from_cycle and not (old.calendar.free and changes_training(old, new)):
            return InForce(new, before=old if changes_training(old, new) else self.before)
        return InForce(governed(new, old), new, self.before)


def in_force(versions: Iterable[Manifest], wall: float, trained: str = "") -> InForce:
    """What is in force at `wall` (Unix seconds) by `versions`, which follow each other.

    `trained` is the model digest of a checkpoint: what was trained has begun, whatever the clock shows.
    """
    first, *later = versions
    force = InForce(first)
    for new in later:
        force = InForce(new) if first.calendar.free else force.followed(new)
        coming = force.coming
        if coming is not None and coming.model_digest == trained != force.manifest.model_digest:
            force = InForce(coming, before=force.manifest)
        while (then := force.at(wall)) is not force:
            force = then
    return force


def governed(newest: Manifest, trains: Manifest) -> Manifest:
    """The members and admins of `newest`, with what is trained, how and when of `trains`."""
    return replace(
        newest,
        model=trains.model,
        generation=trains.generation,
        seed=trains.seed,
        initial_sha256=trains.initial_sha256,
        contract=trains.contract,
        training=trains.training,
        gossip=replace(newest.gossip, rule=trains.gossip.rule),
        calendar=trains.calendar,
        from_cycle=trains.from_cycle,
        generation_cycle=trains.generation_cycle,
    )


def last_trained(versions: Sequence[Manifest]) -> int:
    """The index in `versions` from which on they say what is in force now: the last one of the change before."""
    newest = versions[-1].from_cycle
    older = [i for i, version in enumerate(versions) if version.from_cycle < newest]
    return older[-1] if older else max(len(versions) - 2, 0)


def changes_training(current: Manifest, new: Manifest) -> bool:
    """Whether `new` says otherwise what is trained, how, or when: all that holds from a cycle on, and not at once."""
    return _scheduled(current) != _scheduled(new)


def what_changes(current: Manifest, new: Manifest) -> tuple[str, ...]:
    """What `new` changes of that, in words."""
    named = (
        ("the model", current.model != new.model),
        ("the feature contract", current.contract != new.contract),
        ("the generation, so that training begins anew", current.generation != new.generation),
        ("the training policy", current.training != new.training),
        ("the merge rule", current.gossip.rule != new.gossip.rule),
        ("the calendar", current.calendar != new.calendar),
    )
    return tuple(name for name, differs in named if differs)


def earliest_change(current: Manifest, issued: float) -> int:
    """The cycle from which a version issued at `issued` (Unix seconds) may change what is trained, how, or when.

    It begins at least one period after that, so that every member has the version by then. While changes of `current`
    itself wait for their cycle, it is that one; raises ManifestError if it comes too soon. 0 where there are no cycles.
    """
    calendar = current.calendar
    if calendar.free:
        return 0
    enough = issued + calendar.every
    if current.from_cycle and calendar.begins(current.from_cycle) > issued:
        if calendar.begins(current.from_cycle) >= enough:
            return current.from_cycle
        raise ManifestError(
            f"the changes of version {current.version} hold from cycle {current.from_cycle} on, which begins in less "
            "than a period: wait until it has begun"
        )
    cycle = calendar.at(enough).cycle
    return cycle if cycle >= calendar.first and calendar.begins(cycle) >= enough else cycle + 1


def change_problems(current: Manifest, new: Manifest) -> list[str]:
    """Why `new` may not follow `current`: its changes come too early, or its numbers do not go on where ours end."""
    if current.calendar.free != new.calendar.free:
        return ["a consortium is founded with a calendar or without, and stays so"]
    if not changes_training(current, new):
        same = (new.from_cycle, new.generation_cycle) == (current.from_cycle, current.generation_cycle)
        return [] if same else ["from_cycle or generation_cycle changes, but nothing that would hold from it"]
    return [*_generation_problems(current, new), *_schedule_problems(current, new)]


def _scheduled(manifest: Manifest) -> tuple[object, ...]:
    m = manifest
    return (m.model, m.generation, m.seed, m.contract, m.training, m.gossip.rule, m.calendar)


def _generation_problems(current: Manifest, new: Manifest) -> list[str]:
    raised = new.generation - current.generation
    anew = (new.model, new.seed, new.contract) != (current.model, current.seed, current.contract)
    if raised not in (0, 1) or (anew and raised == 0):
        return [f"after generation {current.generation} comes the next, and every new model or contract begins one"]
    if new.generation_cycle != (new.from_cycle if raised else current.generation_cycle):
        return ["generation_cycle is not the cycle from which this generation holds"]
    return []


def _schedule_problems(current: Manifest, new: Manifest) -> list[str]:
    old, then = current.calendar, new.calendar
    if old.free:
        return []
    earliest, pending = earliest_change(current, new.issued), current.from_cycle
    waits = pending > 0 and old.begins(pending) > new.issued
    if new.from_cycle < earliest or (waits and new.from_cycle != pending):
        return [f"its changes hold from cycle {new.from_cycle}, and {earliest} is the first that is a period ahead"]
    begins = old.begins(new.from_cycle)
    goes_on = then.at(begins - 0.001).cycle == new.from_cycle - 1 and then.begins(new.from_cycle) >= begins
    if not goes_on or then.number(new.from_cycle, 0) != old.number(new.from_cycle, 0):
        return [f"its calendar does not go on from the old one at cycle {new.from_cycle}"]
    return []


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
