"""What happens in a simulation as readable lines, one for each event: `story` tells the same in far fewer.

No line holds a figure of a model: a transcript is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from p2pfed.core.events import (
    CaughtUp,
    CycleBegun,
    CycleEnded,
    EquivocationProven,
    Event,
    FellBehind,
    Listening,
    ModelAdopted,
    ModelHeld,
    ModelPromoted,
    MovedToOthers,
    NodeStarted,
    PaymentsRead,
    PeerChanged,
    ProblemCleared,
    ProblemRaised,
    RoundCompleted,
    RunFinished,
    StandingChanged,
    TrainingAlone,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.types import NodeId, PeerState

NameOf = Callable[[NodeId], str]
_Say = Callable[[Any, NameOf], str]


def line(time: float, said: str) -> str:
    """`said` with the virtual second in front."""
    return f"{time:9.2f}s {said}"


def sentence(event: Event, name_of: NameOf) -> str | None:
    """What happened to a node, to follow its name; None for what says nothing of models or members."""
    say = _SAY.get(type(event))
    return say(event, name_of) if say else None


def listed(names: Iterable[str]) -> str:
    """Names of nodes in the order of their numbers."""
    return ", ".join(sorted(names, key=lambda name: (len(name), name)))


def _started(event: NodeStarted, name_of: NameOf) -> str:
    return f"goes on from round {event.round}" if event.round else "starts with nothing saved"


def _peer(event: PeerChanged, name_of: NameOf) -> str:
    name = name_of(event.member)
    if event.after is PeerState.ALIVE:
        return f"meets {name}" if event.before is PeerState.UNKNOWN else f"hears {name} again"
    return {
        PeerState.SUSPECT: f"suspects {name}",
        PeerState.FAILED: f"takes {name} for failed",
        PeerState.LEFT: f"hears {name} say good-bye",
    }[event.after]


def _accepted(event: UpdateAccepted, name_of: NameOf) -> str:
    relay = "" if event.via == event.member else f" through {name_of(event.via)}"
    return f"gets update {event.seq} of {name_of(event.member)}{relay}"


def _round(event: RoundCompleted, name_of: NameOf) -> str:
    return f"round {event.round} merged {listed(map(name_of, event.merged)) or 'nobody'}"


_SAY: dict[type, _Say] = {
    NodeStarted: _started,
    TrainingAlone: lambda event, name_of: "has met nobody and trains alone",
    Listening: lambda event, name_of: f"has {event.train_frauds} frauds and only listens",
    ModelAdopted: lambda event, name_of: f"adopts the median of {event.sources} models",
    MovedToOthers: lambda event, name_of: f"moves to {event.sources} others from afar in round {event.round}",
    FellBehind: lambda event, name_of: f"is behind: at round {event.merged}, the others at {event.round}",
    CaughtUp: lambda event, name_of: f"is with the others again in round {event.round}",
    CycleBegun: lambda event, name_of: f"begins cycle {event.cycle}",
    CycleEnded: lambda event, name_of: f"ends cycle {event.cycle} after training {event.trained} rounds of it",
    PaymentsRead: lambda event, name_of: f"has read the payments for cycle {event.cycle}",
    ModelPromoted: lambda event, name_of: f"serves the model of round {event.round}",
    ModelHeld: lambda event, name_of: f"does not serve the model of round {event.round}",
    PeerChanged: _peer,
    UpdateAccepted: _accepted,
    UpdateRefused: lambda event, name_of: f"refuses an update of {name_of(event.member)}: {event.reason.sentence}",
    EquivocationProven: lambda event, name_of: f"proves that {name_of(event.member)} signed two updates {event.seq}",
    StandingChanged: lambda event, name_of: f"takes {name_of(event.member)} for {event.after}: {event.reason}",
    RoundCompleted: _round,
    RunFinished: lambda event, name_of: f"has done its {event.round} rounds",
    ProblemRaised: lambda event, name_of: f"raises {event.code}",
    ProblemCleared: lambda event, name_of: f"clears {event.code}",
}
