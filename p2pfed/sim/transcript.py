"""A simulation as readable lines, the same on every machine: figures are rounded to what float noise cannot change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2pfed.core.events import (
    Event,
    Listening,
    ModelAdopted,
    NodeStarted,
    PeerChanged,
    ProblemCleared,
    ProblemRaised,
    RoundCompleted,
    RunFinished,
    TrainingAlone,
    UpdateRefused,
)
from p2pfed.core.types import NodeId, PeerState

NameOf = Callable[[NodeId], str]
_Say = Callable[[Any, NameOf], str]


def line(time: float, said: str) -> str:
    """`said` with the virtual second in front."""
    return f"{time:9.2f}s {said}"


def sentence(event: Event, name_of: NameOf) -> str | None:
    """What happened to a node, to follow its name; None for what happens too often to read."""
    say = _SAY.get(type(event))
    return say(event, name_of) if say else None


def _started(event: NodeStarted, name_of: NameOf) -> str:
    return f"goes on from round {event.round}" if event.round else "starts from the initial weights"


def _peer(event: PeerChanged, name_of: NameOf) -> str:
    name = name_of(event.member)
    if event.after is PeerState.ALIVE:
        return f"meets {name}" if event.before is PeerState.UNKNOWN else f"hears {name} again"
    return {
        PeerState.SUSPECT: f"suspects {name}",
        PeerState.FAILED: f"takes {name} for failed",
        PeerState.LEFT: f"hears {name} say good-bye",
    }[event.after]


def _round(event: RoundCompleted, name_of: NameOf) -> str:
    names = ", ".join(map(name_of, event.merged)) or "nobody"
    return f"round {event.round} merged {names} (moved {event.displacement:.2f})"


_SAY: dict[type, _Say] = {
    NodeStarted: _started,
    TrainingAlone: lambda event, name_of: "has met nobody and trains alone",
    Listening: lambda event, name_of: f"has {event.train_frauds} frauds and only listens",
    ModelAdopted: lambda event, name_of: f"adopts the median of {event.sources} models",
    PeerChanged: _peer,
    UpdateRefused: lambda event, name_of: f"refuses an update of {name_of(event.member)}: {event.reason.sentence}",
    RoundCompleted: _round,
    RunFinished: lambda event, name_of: f"has done its {event.round} rounds",
    ProblemRaised: lambda event, name_of: f"raises {event.code}",
    ProblemCleared: lambda event, name_of: f"clears {event.code}",
}
