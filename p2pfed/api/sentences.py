"""Each event as one line for people."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from p2pfed.api.reply import printable
from p2pfed.core.events import (
    CaughtUp,
    ChangeComing,
    CycleBegun,
    CycleEnded,
    EquivocationProven,
    Event,
    FellBehind,
    GainMeasured,
    Listening,
    ManifestFollowed,
    Metrics,
    ModelAdopted,
    ModelEvaluated,
    ModelHeld,
    ModelKept,
    ModelPromoted,
    MovedToOthers,
    NodeStarted,
    OperatorActed,
    PaymentsRead,
    PaymentsServed,
    PeerBenched,
    PeerChanged,
    ProblemCleared,
    ProblemRaised,
    RoundCompleted,
    RunFinished,
    SoftwareStarted,
    StandingChanged,
    TrainingAlone,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.served import together
from p2pfed.core.types import NodeId, Verdict

NameOf = Callable[[NodeId], str]
_Say = Callable[[Any, NameOf], str]


def sentence(event: Event, name_of: NameOf) -> str:
    """The event in words; members appear under `name_of` their id."""
    return _SAY[type(event)](event, name_of)


def _started(event: NodeStarted, name_of: NameOf) -> str:
    begin = f"goes on from round {event.round}" if event.round else "starts from the initial weights"
    return f"node {begin}; the consortium has {event.members} members"


def _alone(event: TrainingAlone, name_of: NameOf) -> str:
    return f"round {event.round}: no peer met yet, training alone"


def _listening(event: Listening, name_of: NameOf) -> str:
    return (
        f"{event.train_frauds} frauds to train on, {event.needed} are needed to publish: "
        "this node trains, merges and scores, and publishes nothing"
    )


def _adopted(event: ModelAdopted, name_of: NameOf) -> str:
    measured = "" if event.auprc is None else f", AUPRC {event.auprc:.4f} on validation rows"
    away = f", at a distance of {event.distance:.3g} from its own" if event.distance else ""
    return f"adopted the median of {event.sources} members' models{away}{measured}"


def _moved(event: MovedToOthers, name_of: NameOf) -> str:
    return (
        f"round {event.round}: this node's model was far from {event.sources} members', which agree: "
        f"moved towards them by {event.displacement:.3g}"
    )


def _fell_behind(event: FellBehind, name_of: NameOf) -> str:
    return (
        f"round {event.round}: the others are ahead, this node's model is of round {event.merged}; "
        "it publishes nothing and judges nobody until it has caught up"
    )


def _caught_up(event: CaughtUp, name_of: NameOf) -> str:
    return f"round {event.round}: with the others again"


def _cycle_begun(event: CycleBegun, name_of: NameOf) -> str:
    return f"cycle {event.cycle} began: {event.rounds} rounds, until {utc(event.ends)}"


def _cycle_ended(event: CycleEnded, name_of: NameOf) -> str:
    following = f"the next begins at {utc(event.next_begins)}" if math.isfinite(event.next_begins) else "none follows"
    return f"cycle {event.cycle} ended, {event.trained} of its rounds were trained here; {following}"


def _payments(event: PaymentsRead, name_of: NameOf) -> str:
    said = [
        f"payments for cycle {event.cycle} read in {event.seconds:.1f} s: {event.train_rows:,} training rows "
        f"with {event.train_frauds:,} frauds"
    ]
    if event.immature is not None:
        said.append(f"{event.immature:,} rows immature")
    if event.newest is not None:
        said.append(f"the newest payment of {utc(event.newest)}")
    if event.next_reading is not None:
        said.append(f"read next at {utc(event.next_reading)}")
    return ", ".join(said)


def _served(event: PaymentsServed, name_of: NameOf) -> str:
    whole, first, last = together(event.days), event.days[0].day, event.days[-1].day
    when = first if first == last else f"{first} to {last}"
    return (
        f"labels have matured: what served found {whole.caught} of {whole.frauds} frauds among {whole.rows:,} payments "
        f"of {when}; AUPRC {_figure(whole.auprc)}, recall {_figure(whole.recall)}, precision {_figure(whole.precision)}"
    )


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _promoted(event: ModelPromoted, name_of: NameOf) -> str:
    return f"the model of round {event.round}, cycle {event.cycle}, serves from now on: {event.why}"


def _held(event: ModelHeld, name_of: NameOf) -> str:
    return f"what serves stays; the model of round {event.round}, cycle {event.cycle}, is worse: {event.why}"


def _gained(event: GainMeasured, name_of: NameOf) -> str:
    return (
        f"after cycle {event.cycle} the gain over training alone is {event.gain:+.3f}: what serves has AUPRC "
        f"{event.serves:.3f} on validation rows with {event.frauds} frauds, and {event.alone:.3f} a model that was "
        f"trained here for {event.rounds} rounds and merged with nobody's; that took {event.seconds:.0f} s"
    )


def _coming(event: ChangeComing, name_of: NameOf) -> str:
    return (
        f"manifest {event.version} holds from cycle {event.cycle} on, which begins at {utc(event.begins)}; "
        f"it changes: {', '.join(event.changes)}"
    )


def utc(seconds: float) -> str:
    """A Unix time as people read it: `2026-11-29 14:27:37 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _peer(event: PeerChanged, name_of: NameOf) -> str:
    return f"{name_of(event.member)} is {event.after.value} (was {event.before.value})"


def _accepted(event: UpdateAccepted, name_of: NameOf) -> str:
    relay = "" if event.via == event.member else f" by way of {name_of(event.via)}"
    return f"update {event.seq} of {name_of(event.member)} accepted{relay}, {event.bytes} bytes"


def _refused(event: UpdateRefused, name_of: NameOf) -> str:
    verb = "rejected" if event.reason.verdict is Verdict.REJECT else "ignored"
    blamed = f" ({name_of(event.blamed)} handed it over)" if event.blamed != event.member else ""
    detail = f": {printable(event.detail)}" if event.detail else ""
    return f"update of {name_of(event.member)} {verb}{blamed}: {event.reason.sentence}{detail}"


def _standing(event: StandingChanged, name_of: NameOf) -> str:
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in event.numbers.items())
    behind = f" ({numbers})" if numbers else ""
    return f"{name_of(event.member)} is now {event.after} (was {event.before}): {event.reason}{behind}"


def _proven(event: EquivocationProven, name_of: NameOf) -> str:
    return (
        f"{name_of(event.member)} has signed two different updates with sequence number {event.seq}: "
        f"proof {event.proof[:12]}"
    )


def _exchange(event: PeerBenched, name_of: NameOf) -> str:
    return f"exchange with {name_of(event.peer)} failed: {printable(event.error)}"


def _round(event: RoundCompleted, name_of: NameOf) -> str:
    merged = f"merged {len(event.merged)}" if event.merged else "merged nobody"
    return f"round {event.round}: loss {event.loss:.4f}, {merged}, {event.seconds:.2f} s"


def _evaluated(event: ModelEvaluated, name_of: NameOf) -> str:
    return f"round {event.round}: AUPRC {_figures(event.metrics)}"


def _figures(metrics: dict[str, Metrics]) -> str:
    figures = [f"{rows} {of['auprc']:.4f}" for rows, of in metrics.items() if of.get("auprc") is not None]
    return ", ".join(figures) or "unknown, no frauds to measure on"


def _finished(event: RunFinished, name_of: NameOf) -> str:
    return f"all {event.round} rounds are done; serving until told to stop"


def _software(event: SoftwareStarted, name_of: NameOf) -> str:
    return f"p2pfed {event.version} started, by a configuration with hash {event.config_sha256[:12]}"


def _manifest(event: ManifestFollowed, name_of: NameOf) -> str:
    signers = ", ".join(map(printable, event.signers))
    return f"follows version {event.after} of the manifest, in the place of {event.before}; signed by {signers}"


def _kept(event: ModelKept, name_of: NameOf) -> str:
    return f"scores with the model of round {event.round} ({event.sha256[:8]}), threshold {event.threshold:.4g}"


def _acted(event: OperatorActed, name_of: NameOf) -> str:
    subject = f" {printable(event.subject)}" if event.subject else ""
    return f"{event.action}{subject}: asked for by {event.by}"


def _raised(event: ProblemRaised, name_of: NameOf) -> str:
    return f"{event.code}: {event.message} ({event.hint})" if event.hint else f"{event.code}: {event.message}"


def _cleared(event: ProblemCleared, name_of: NameOf) -> str:
    return f"{event.code} is over" + (f" ({name_of(NodeId(event.subject))})" if event.subject else "")


_SAY: dict[type, _Say] = {
    NodeStarted: _started,
    TrainingAlone: _alone,
    Listening: _listening,
    ModelAdopted: _adopted,
    MovedToOthers: _moved,
    FellBehind: _fell_behind,
    CaughtUp: _caught_up,
    CycleBegun: _cycle_begun,
    CycleEnded: _cycle_ended,
    PaymentsRead: _payments,
    PaymentsServed: _served,
    ModelPromoted: _promoted,
    ModelHeld: _held,
    GainMeasured: _gained,
    ChangeComing: _coming,
    PeerChanged: _peer,
    UpdateAccepted: _accepted,
    UpdateRefused: _refused,
    StandingChanged: _standing,
    EquivocationProven: _proven,
    PeerBenched: _exchange,
    RoundCompleted: _round,
    ModelEvaluated: _evaluated,
    RunFinished: _finished,
    SoftwareStarted: _software,
    ManifestFollowed: _manifest,
    ModelKept: _kept,
    OperatorActed: _acted,
    ProblemRaised: _raised,
    ProblemCleared: _cleared,
}
