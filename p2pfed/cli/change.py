"""`p2pfed consortium change`: a next version with other admins at once, or with other training from a cycle on."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from p2pfed.cli import times
from p2pfed.cli.founding import agree, check_round, needed, say_unlike
from p2pfed.cli.manifests import (
    Keys,
    ManifestPath,
    Out,
    read_admin,
    read_contract,
    read_request,
    read_signed,
    successor,
    write,
)
from p2pfed.cli.terminal import AsJson, Force, Report, numbers
from p2pfed.core.types import DAY
from p2pfed.errors import UsageError

if TYPE_CHECKING:
    from p2pfed.core.consortium import Admin, Manifest
    from p2pfed.core.contract import FeatureContract
    from p2pfed.core.gossip.calendar import Calendar
    from p2pfed.core.joining import JoinRequest

Repeated = list[str] | None


def change(
    manifest: ManifestPath,
    add_admins: Annotated[
        list[Path] | None, typer.Option("--add-admin", help="Another admin's .pub file; repeatable.")
    ] = None,
    remove_admins: Annotated[
        Repeated, typer.Option("--remove-admin", help="Name of an admin to remove; repeatable.")
    ] = None,
    threshold: Annotated[int | None, typer.Option(help="How many admins must sign from now on.")] = None,
    model: Annotated[Literal["mlp", "autoencoder"] | None, typer.Option(help="Another kind of model.")] = None,
    hidden: Annotated[str, typer.Option(help="Other hidden layers, such as 64,32.")] = "",
    dropout: Annotated[float | None, typer.Option(help="Another share of hidden units dropped.")] = None,
    seed: Annotated[int | None, typer.Option(help="Begin anew from initial weights drawn from this.")] = None,
    contract: Annotated[Path | None, typer.Option(help="Another feature contract; the model begins anew.")] = None,
    requests: Annotated[
        list[Path] | None,
        typer.Option("--request", help="A bank's request: for the scaling of --contract, and for --round-seconds."),
    ] = None,
    scaling: Annotated[
        Literal["contract", "local"], typer.Option(help="With --contract: as of `create`.")
    ] = "contract",
    rule: Annotated[str | None, typer.Option(help="Another merge rule.")] = None,
    every: Annotated[str | None, typer.Option(help="Another period from cycle to cycle: 24h, 90m.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Another number of rounds a cycle.")] = None,
    round_seconds: Annotated[float | None, typer.Option(help="Another length of a round, in seconds.")] = None,
    extra: Annotated[
        Repeated, typer.Option("--extra", help="An additional cycle begins then: ISO time with zone; repeatable.")
    ] = None,
    skip: Annotated[
        Repeated, typer.Option("--skip", help="No cycle begins then: its time, or a day (UTC); repeatable.")
    ] = None,
    keys: Keys = None,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make the next version with other admins, model, contract, merge rule or calendar.

    Admins change at once. The rest holds from the first cycle that begins at least one period from now, so that every
    bank has the version by then; a new model or contract begins a new generation, from initial weights.
    """
    from p2pfed.core.consortium import SignedManifest
    from p2pfed.core.contradictions import check_manifest
    from p2pfed.core.succession import change_problems, changes_training, earliest_change

    signed, report = read_signed(manifest), Report(as_json)
    old, now = signed.manifest, time.time()
    same = successor(signed, old.members, None).manifest
    cycle = earliest_change(old, same.issued)
    new = _governed(same, add_admins, remove_admins, threshold)
    asked = None if contract is None else read_contract(contract)
    joining = [read_request(path, report, old) for path in requests or ()]
    agreed = agree(asked, joining, scaling) if asked else None
    new = _declaring(_remodelled(new, agreed, model, hidden, dropout, seed, cycle), joining)
    if rule is not None:
        new = dataclasses.replace(new, gossip=dataclasses.replace(new.gossip, rule=rule))
    if any(option is not None for option in (every, rounds, round_seconds, extra, skip)):
        if round_seconds is not None and not old.calendar.free:
            _check_round(round_seconds, old, joining)
        calendar = _rescheduled(old.calendar, cycle, every, rounds, round_seconds)
        begins = old.calendar.begins(cycle)
        new = dataclasses.replace(new, calendar=_excepted(calendar, extra or (), skip or (), begins, now))
    if new == same:
        raise UsageError("nothing is changed: say what; `p2pfed consortium renew` only makes it last longer")
    later = changes_training(old, new)
    if later:
        new = dataclasses.replace(new, from_cycle=cycle)
    check_manifest(new, foreign=rule is None)
    if problems := change_problems(old, new):
        raise UsageError("; ".join(problems))
    write(SignedManifest.unsigned(new), keys, out, report, force=force)
    if later and not old.calendar.free:
        begins = old.calendar.begins(cycle)
        report.say(
            f"admins of both versions must sign; the change holds from cycle {cycle} on, {times.shown(begins)}",
            from_cycle=cycle,
            begins=begins,
        )
        report.say("\n".join(times.calendar_lines(new.calendar, max(now, begins - 1))))
    say_unlike(new, joining, report)
    report.end()


def _governed(
    manifest: Manifest, added: Sequence[Path] | None, removed: Sequence[str] | None, threshold: int | None
) -> Manifest:
    """With other admins and another threshold; who is added under a known name takes the place of that key."""
    admins: dict[str, Admin] = {admin.name: admin for admin in manifest.admins}
    for name in removed or ():
        if name not in admins:
            raise UsageError(f"{name!r} is no admin; the admins are {', '.join(admins)}")
        del admins[name]
    for path in added or ():
        admin = read_admin(path)
        admins[admin.name] = admin
    needed = manifest.threshold if threshold is None else threshold
    return dataclasses.replace(manifest, admins=tuple(admins.values()), threshold=needed)


def _declaring(manifest: Manifest, joining: Sequence[JoinRequest]) -> Manifest:
    """With what the members' new join requests tell of their rows."""
    from p2pfed.core.joining import as_member, declaring

    told = {request.key: as_member(request) for request in joining}
    members = (declaring(m, told[m.key]) if m.key in told else m for m in manifest.members)
    return dataclasses.replace(manifest, members=tuple(members))


def _remodelled(
    manifest: Manifest,
    contract: FeatureContract | None,
    kind: str | None,
    hidden: str,
    dropout: float | None,
    seed: int | None,
    cycle: int,
) -> Manifest:
    """With another contract or model, as the next generation; unchanged where none of both is asked for."""
    from p2pfed.core.model import DEFAULT_HIDDEN, ModelSpec

    if contract is None and kind is None and not hidden and dropout is None and seed is None:
        return manifest
    old, contract = manifest.model, contract or manifest.contract
    layers = DEFAULT_HIDDEN[kind] if kind not in (None, old.kind) else old.hidden
    try:
        model = ModelSpec(
            kind or old.kind,  # type: ignore[arg-type]  # typer lets only the two kinds through
            contract.width,
            numbers(hidden, "--hidden") or layers,
            old.dropout if dropout is None else dropout,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    drawn = manifest.seed if seed is None else seed
    if (model, contract, drawn) == (old, manifest.contract, manifest.seed):
        return manifest
    return dataclasses.replace(
        manifest,
        model=model,
        contract=contract,
        seed=drawn,
        initial_sha256=model.initial_weights(drawn).digest,
        generation=manifest.generation + 1,
        generation_cycle=cycle,
    )


def _check_round(said: float, old: Manifest, joining: Sequence[JoinRequest]) -> None:
    """As of `create`; shorter rounds than the old ones are told to be unchecked if no request says what banks need."""
    measured = needed(joining, old.training.local_steps)
    check_round(said, measured)
    if not measured and said < old.calendar.round_seconds:
        print(
            f"--round-seconds {said:g}: whether every bank can train in that time is not checked; give the requests "
            "of the banks that measured it, with --request",
            file=sys.stderr,
        )


def _rescheduled(
    old: Calendar, cycle: int, every: str | None, rounds: int | None, round_seconds: float | None
) -> Calendar:
    """The old calendar, or one that begins with `cycle` and counts on."""
    if old.free:
        raise UsageError("this consortium has no calendar: found another one to train in cycles")
    if every is None and rounds is None and round_seconds is None:
        return old
    period = old.every if every is None else times.duration(every, "--every")
    if period == 0:
        raise UsageError("--every 0: a consortium that was founded with a calendar keeps one")
    begins = math.ceil(old.begins(cycle))
    plain = dataclasses.replace(
        old,
        anchor=begins,
        every=period,
        rounds=old.rounds if rounds is None else rounds,
        round_seconds=old.round_seconds if round_seconds is None else round_seconds,
        extra=(),
        skipped=(),
        first=cycle,
        before=old.number(cycle, 0),
    )
    skipped = tuple(t for t in old.skipped if t >= begins and plain.begins(plain.at(t).cycle) == t)
    return dataclasses.replace(plain, extra=tuple(t for t in old.extra if t > begins), skipped=skipped)


def _excepted(calendar: Calendar, extra: Sequence[str], skip: Sequence[str], begins: float, now: float) -> Calendar:
    """With additional and skipped cycles, none of which may be before `begins`, when the change holds."""
    added = [times.moment(text, "--extra", now) for text in extra]
    left_out = [at for text in skip for at in _beginnings(calendar, text, now)]
    for text, at in zip(extra, added, strict=True):
        if at < begins:
            raise UsageError(f"--extra {text}: a change holds from {times.shown(begins)} on; choose a later time")
    if left_out and min(left_out) < begins:
        raise UsageError(f"--skip {times.shown(min(left_out))}: a change holds from {times.shown(begins)} on")
    return dataclasses.replace(
        calendar,
        extra=tuple(sorted({*calendar.extra, *added})),
        skipped=tuple(sorted({*calendar.skipped, *left_out})),
    )


def _beginnings(calendar: Calendar, text: str, now: float) -> list[int]:
    """When the cycles begin that `--skip` names: all of a day (UTC), or the one of that very time."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text.strip()):
        start = times.moment(f"{text.strip()}T00:00Z", "--skip", now)
        end = start + DAY
    else:
        start = times.moment(text, "--skip", now)
        end = start + 1
    found: list[int] = []
    cycle = calendar.at(start - 1).cycle + 1
    while (begins := calendar.begins(cycle)) < end:
        found.append(int(begins))
        cycle += 1
    if not found:
        raise UsageError(f"--skip {text}: no cycle begins then; the next one begins {times.shown(begins)}")
    return found
