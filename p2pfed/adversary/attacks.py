"""The registry of attacks, and the campaign of one attacker: which attack, in which of its rounds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from p2pfed.adversary.adaptive import AdaptiveMax
from p2pfed.adversary.attack import Attack
from p2pfed.adversary.handing import (
    Dissensus,
    Echo,
    Equivocation,
    Flooding,
    Forged,
    NearEcho,
    Replay,
    Waiting,
    WrongSchema,
)
from p2pfed.adversary.models import (
    Alie,
    Backtrack,
    Drip,
    DutyCycle,
    Gaussian,
    InnerProduct,
    Mimic,
    MinMax,
    OnOff,
    Scaled,
    SignFlip,
    Stale,
    Zero,
)
from p2pfed.adversary.poisoning import AdaptiveLabelFlip, Backdoor, FraudBlind, LabelFlip
from p2pfed.errors import ConfigError

ATTACKS: dict[str, type[Attack]] = {
    "adaptive_labelflip": AdaptiveLabelFlip,
    "adaptive_max": AdaptiveMax,
    "alie": Alie,
    "backdoor": Backdoor,
    "backtrack": Backtrack,
    "dissensus": Dissensus,
    "drip": Drip,
    "duty": DutyCycle,
    "echo": Echo,
    "equivocation": Equivocation,
    "flooding": Flooding,
    "forged": Forged,
    "fraudblind": FraudBlind,
    "gaussian": Gaussian,
    "ipm": InnerProduct,
    "labelflip": LabelFlip,
    "mimic": Mimic,
    "minmax": MinMax,
    "near_echo": NearEcho,
    "onoff": OnOff,
    "replay": Replay,
    "scaled": Scaled,
    "signflip": SignFlip,
    "stale": Stale,
    "waiting": Waiting,
    "wrong_schema": WrongSchema,
    "zero": Zero,
}

_DUTY = re.compile(r"duty(?::([1-9][0-9]{0,5}):([1-9][0-9]{0,5}))?")


@dataclass(frozen=True)
class Campaign:
    """An attack in the attacker's rounds from `start` up to, but without, `stop`; None is to the end.

    Of these, `duty` says how many are poisoned and how many honest, by turns.
    """

    attack: Attack
    start: int = 1
    stop: int | None = None
    duty: tuple[int, int] = (1, 0)

    def on(self, round_number: int) -> bool:
        """Whether this is a poisoned round."""
        if round_number < self.start or (self.stop is not None and round_number >= self.stop):
            return False
        return (round_number - self.start) % sum(self.duty) < self.duty[0]


def attack_from_name(kind: str, scale: float | None = None) -> Attack:
    """A new attack by its registry name, such as `alie` or `duty:1:2`, with its usual strength where none is given.

    Raises ConfigError on an unknown name, and on a strength for an attack that has none.
    """
    name = kind.partition(":")[0]
    if name not in ATTACKS or (kind != name and name != "duty"):
        raise ConfigError(f"unknown attack {kind!r}: choose one of {', '.join(sorted(ATTACKS))}")
    given: dict[str, Any] = {} if scale is None else {"scale": scale}
    if given and usual_scale(name) is None:
        raise ConfigError(f"attack {kind!r} has no scale: leave it out")
    if name == "duty":
        match = _DUTY.fullmatch(kind)
        if match is None:
            raise ConfigError(f"attack {kind!r}: write duty:POISONED:HONEST, whole numbers of rounds, such as duty:1:2")
        if match[1] is not None:
            given["duty"] = int(match[1]), int(match[2])
    return ATTACKS[name](**given)


def usual_scale(name: str) -> float | None:
    """The strength that an attack of the registry has unless another is asked for; None where it has none."""
    scale: float | None = getattr(ATTACKS[name], "scale", None)
    return scale


def campaign_from_name(
    kind: str,
    scale: float | None = None,
    start: int | None = None,
    stop: int | None = None,
    duty: tuple[int, int] | None = None,
) -> Campaign:
    """An attack by name in some rounds; what is None is the attack's own.

    Raises ConfigError, as `attack_from_name` and where an attack on training rows is given rounds: it has all of them.
    """
    attack = attack_from_name(kind, scale)
    if attack.poisons_rows and not (start is None and stop is None and duty is None):
        raise ConfigError(f"{kind} poisons the rows it trains on, in all rounds: start, stop and duty are not for it")
    first = attack.start if start is None else start
    if stop is not None and stop <= first:
        raise ConfigError(f"stop is {stop}, not after start, {first}")
    return Campaign(attack, first, stop, attack.duty if duty is None else duty)
