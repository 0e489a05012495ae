"""`p2pfed consortium create`: version 1 of a manifest, from join requests, a draft contract and what admins choose."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from p2pfed.cli import times
from p2pfed.cli.manifests import AdminPaths, Keys, Out, RequestPaths, read_admin, read_contract, read_request, write
from p2pfed.cli.terminal import AsJson, Force, Report, numbers
from p2pfed.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from p2pfed.core.consortium import Manifest
    from p2pfed.core.contract import FeatureContract
    from p2pfed.core.gossip.calendar import Calendar
    from p2pfed.core.joining import JoinRequest

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
DecayRounds = Annotated[
    str | None,
    typer.Option(
        help="Rounds after which the rate is divided by 5, such as 60,80, or '' for never; default three quarters of "
        "the first cycle, and never without cycles."
    ),
]
Imbalance = Annotated[
    Literal["none", "class_weight", "smote", "adasyn", "undersample"],
    typer.Option(help="What is done about frauds being rare."),
]
Rule = Annotated[str, typer.Option(help="How models are merged: clip, mean, nna:2 or another rule.")]
Fanout = Annotated[int, typer.Option(help="Members each bank pulls from in a round.")]
Topology = Annotated[str, typer.Option(help="Who may pull from whom: random, full, ring or regular:K.")]
Heartbeat = Annotated[float, typer.Option(help="Seconds between heartbeats.")]
RoundInterval = Annotated[
    float, typer.Option(help="Least seconds from round to round with --every 0; 0 is as fast as training goes.")
]
FirstCycle = Annotated[
    str | None,
    typer.Option(help="When training first begins: 2026-12-01T08:00+01:00, +15m or Unix seconds; default in 15 min."),
]
Every = Annotated[str, typer.Option(help="From cycle to cycle: 24h, 90m; 0 trains without cycles, for experiments.")]
Rounds = Annotated[int | None, typer.Option(help="Rounds of a cycle; default 60, and needed with --every 0.")]
RoundSeconds = Annotated[
    float | None, typer.Option(help="Seconds of a round; default three times the slowest bank's, at least 10.")
]
Encoding = Annotated[Literal["float32", "float16", "int8"], typer.Option(help="Weights on the wire.")]
NoReputation = Annotated[
    bool, typer.Option("--no-reputation", help="Let nobody judge others' models: the merge rule is alone.")
]
ROUNDS = 60
"""Of a cycle: the handbook's and ULB's models gain nothing more by further rounds."""
ROOM = 3
"""Times the slowest bank's training that a round lasts: for pulls, for evaluation, and for a busy machine."""


def create(
    name: Annotated[str, typer.Argument(help="The consortium's name.")],
    requests: RequestPaths,
    admins: AdminPaths,
    threshold: Annotated[int, typer.Option(help="How many admins must sign a change.")],
    contract: Annotated[Path, typer.Option(help="The draft feature contract, from `p2pfed data describe --contract`.")],
    first_cycle: FirstCycle = None,
    every: Every = "24h",
    rounds: Rounds = None,
    round_seconds: RoundSeconds = None,
    scaling: Scaling = "contract",
    model: Model = "mlp",
    hidden: Hidden = "",
    dropout: Dropout = 0.2,
    local_steps: LocalSteps = 100,
    batch: Batch = 256,
    learning_rate: LearningRate = 2e-3,
    decay_rounds: DecayRounds = None,
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
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Found a consortium: version 1 of its manifest, from the banks' join requests and the admins' public keys."""
    from p2pfed.core.consortium import GossipPolicy, SignedManifest
    from p2pfed.core.model import DEFAULT_HIDDEN, POSITIVE_WEIGHT_CAP, ModelSpec, TrainingPolicy
    from p2pfed.runtime import enrolment as e

    now, report = time.time(), Report(as_json)
    joining = [read_request(path, report) for path in requests]
    agreed = agree(read_contract(contract), joining, scaling)
    calendar = _calendar(first_cycle, every, rounds, round_seconds, joining, local_steps, now)
    if not calendar.free and round_interval:
        raise UsageError("--round-interval is for --every 0: with a calendar, rounds begin when it says")
    try:
        spec = ModelSpec(model, agreed.width, numbers(hidden, "--hidden") or DEFAULT_HIDDEN[model], dropout)
        decay = _decay(decay_rounds, calendar)
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
    people = (name, joining, [read_admin(path) for path in admins], threshold)
    agreement = (agreed, spec, training, gossip)
    first = e.first_manifest(*people, *agreement, seed=seed, now=now, days=days, calendar=calendar)
    write(SignedManifest.unsigned(first), keys, out, report, force=force)
    report.say("\n".join(times.calendar_lines(calendar, now)), **times.calendar_value(calendar, now))
    if round_seconds is None and not calendar.free:
        report.note(_round_said(calendar.round_seconds, needed(joining, local_steps), hidden))
    say_unlike(first, joining, report)
    if calendar.free:
        report.note(f"each bank must set learning.rounds to {rounds}: without cycles nothing else ends its training")
    report.end()


def _calendar(
    first_cycle: str | None,
    every: str,
    rounds: int | None,
    round_seconds: float | None,
    joining: Sequence[JoinRequest],
    local_steps: int,
    now: float,
) -> Calendar:
    """The calendar that the options say; raises UsageError."""
    from p2pfed.core.gossip.calendar import FREE, Calendar

    period = times.duration(every, "--every")
    if period == 0:
        if rounds is None or rounds < 1:
            raise UsageError("--every 0 trains without cycles, for experiments: say how many --rounds")
        if first_cycle is not None or round_seconds is not None:
            raise UsageError("--every 0 trains without cycles: --first-cycle and --round-seconds mean nothing then")
        return FREE
    if local_steps == 0:
        raise UsageError(
            "--local-steps 0 trains a whole pass over each bank's rows, and a calendar's rounds need the same work "
            "of all: say a number such as 100, or --every 0 for an experiment"
        )
    measured = needed(joining, local_steps)
    if round_seconds is not None:
        check_round(round_seconds, measured, ", or fewer --local-steps")
    seconds = _usual_round(measured) if round_seconds is None else round_seconds
    return Calendar(times.first_cycle(first_cycle, now), period, ROUNDS if rounds is None else rounds, seconds)


def needed(joining: Sequence[JoinRequest], local_steps: int) -> dict[str, float]:
    """Seconds that each bank which measured it trains for `local_steps`, by its name."""
    from p2pfed.core.joining import needed_seconds

    told = {request.name: needed_seconds(request, local_steps) for request in joining}
    return {name: seconds for name, seconds in told.items() if seconds is not None}


def check_round(said: float, measured: dict[str, float], instead: str = "") -> None:
    """Refuse rounds of no length, or shorter than a bank that `measured` trains; warn of those too short for gossip.

    `instead` tells what else would help than longer rounds. Raises UsageError.
    """
    from p2pfed.core.gossip.calendar import LEAST_ROUND_SECONDS

    if not 0.1 <= said < math.inf:
        raise UsageError(f"--round-seconds {said:g}: a round takes some time; say a number of seconds, at least 0.1")
    slowest = max(measured, key=measured.__getitem__, default=None)
    if slowest is not None and said < measured[slowest]:
        raise UsageError(
            f"--round-seconds {said:g}: {slowest} needs {measured[slowest]:.3g} s a round to train; "
            f"say --round-seconds {_usual_round(measured):g}{instead}"
        )
    if said < LEAST_ROUND_SECONDS:
        print(
            f"--round-seconds {said:g}: heartbeats and pulls have to fit into a round, and below "
            f"{LEAST_ROUND_SECONDS:g} s they may not",
            file=sys.stderr,
        )


def _usual_round(measured: dict[str, float]) -> float:
    """Seconds of a round with room enough for all."""
    from p2pfed.core.gossip.calendar import LEAST_ROUND_SECONDS

    return float(max(LEAST_ROUND_SECONDS, math.ceil(ROOM * max(measured.values(), default=0.0))))


def _round_said(seconds: float, measured: dict[str, float], hidden: str | None) -> str:
    """What the length of a round rests on, and does not."""
    from p2pfed.core.gossip.calendar import LEAST_ROUND_SECONDS

    if not measured:
        return f"rounds of {seconds:g} s are a guess, for no bank measured how long it trains; see --round-seconds"
    slowest = max(measured, key=measured.__getitem__)
    needs = f"{slowest}, the slowest bank that measured it, needs {measured[slowest]:.1f} s for its training"
    said = f"rounds take {seconds:g} s: {needs}, and gossip {LEAST_ROUND_SECONDS:g} s at least"
    return f"{said}; that was measured with the usual model, not with --hidden {hidden}" if hidden else said


def _decay(text: str | None, calendar: Calendar) -> tuple[int, ...]:
    """Rounds at which the rate falls, counted over all cycles: by default late in the first, for all that follow."""
    if text is not None:
        return numbers(text, "--decay-rounds")
    return () if calendar.free else (max(1, calendar.rounds * 3 // 4),)


def say_unlike(manifest: Manifest, joining: Sequence[JoinRequest], report: Report) -> None:
    """Tell the admin whose columns seem to be in another unit than the contract's, whose base rate is another, and who
    has hardly any rows."""
    for request in joining:
        rate = rate_said(manifest, request.key, request.legitimate_per_fraud)
        few = rows_said(manifest, request.key, request.training_rows)
        for sentence in (*units_said(manifest.contract, request), *rate, *few):
            report.note(f"look at {request.name}: {sentence}")


def rate_said(manifest: Manifest, key: str, rate: float | None) -> list[str]:
    """That frauds are far more usual, or rarer, at the bank with that key than at others, if it and they told."""
    from p2pfed.core.consortium import usual_rate
    from p2pfed.core.reputation.params import STANDARD

    usual = usual_rate(member.legitimate_per_fraud for member in manifest.members if member.key != key)
    if rate is None or usual is None or 1 / STANDARD.rates <= rate / usual <= STANDARD.rates:
        return []
    apart = f"about {share_of_frauds(rate)} of its payments are frauds, where {share_of_frauds(usual)} is usual"
    return [f"{apart}: are its labels right? The others let its models differ by more for that"]


def rows_said(manifest: Manifest, key: str, rows: int | None) -> list[str]:
    """That the bank with that key has so few rows, beside others, that it is allowed the most, or did not tell."""
    from p2pfed.core.reputation.params import STANDARD

    others = [m.training_rows for m in manifest.members if m.key != key and m.training_rows is not None]
    least = 2 ** (STANDARD.few_rows_from + STANDARD.allowed)
    if rows is None and others:
        return [
            "it did not tell how many training rows it has: the others take it for a quarter of the usual ones at least"
        ]
    if rows is None or not others or least * rows > (usual := median(others)):
        return []
    apart = f"it has about {rows:,} training rows, where {usual:,.0f} are usual"
    return [f"{apart}: are these all? The others let its models differ by more for that"]


def share_of_frauds(legitimate_per_fraud: float | None) -> str:
    """`Member.legitimate_per_fraud` in words."""
    if legitimate_per_fraud is None:
        return "unknown"
    times = 1 + legitimate_per_fraud
    return f"1 in {times:,.0f}" if times >= 2 else f"{1 / times:.0%}"


def units_said(contract: FeatureContract, request: JoinRequest) -> list[str]:
    """Which columns of a bank seem to be in another unit than the contract's, by what its join request says."""
    from p2pfed.core.contract import unit_sentence

    if request.moments is None:
        return []
    return [unit_sentence(name, times) for name, times in contract.other_units(request.moments).items()]


def agree(
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
