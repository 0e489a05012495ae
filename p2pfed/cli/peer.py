"""What this node thinks of another member, and the operator's word on it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from p2pfed.cli.daemon import client_of
from p2pfed.cli.terminal import DEFAULT_CONFIG, AsJson, ConfigPath, plural, printable, show

Name = Annotated[str, typer.Argument(help="The member's name or id.")]


def about(name: Name, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """What this node thinks of a member: what was measured, what is usual, what follows, what would change it."""
    reply = client_of(config).get(f"{_path(name)}/reputation")
    show(as_json, reply, printable(_text(reply)))


def block(name: Name, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Have nothing to do with a member: neither dial, answer nor merge it; also after a restart."""
    _tell(name, "block", config, as_json)


def unblock(name: Name, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """End what `peer block` began."""
    _tell(name, "unblock", config, as_json)


def pardon(name: Name, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Forget what speaks against a member, and listen to it again; how often it was quarantined is kept."""
    _tell(name, "pardon", config, as_json)


def _tell(name: str, verb: str, config: ConfigPath, as_json: bool) -> None:
    reply = client_of(config).post(f"{_path(name)}/{verb}")
    show(as_json, reply, printable(reply["detail"]))


def _path(name: str) -> str:
    return f"/api/v1/members/{quote(name, safe='')}"


def _text(reply: dict[str, Any]) -> str:
    lines = [_standing(reply)]
    if not reply["judging"]:
        lines.append("The manifest turns reputation off: what is known below decides nothing.")
    if not reply["looks"] and not reply["score"]:
        return "\n".join([*lines, "No model of it has been judged yet."])
    rows = (
        ("score", _score(reply)),
        ("newest model", _evidence(reply["evidence"])),
        ("distance", _measured(reply, "distance", "a round of own training moves the model")),
        ("disagreement", _measured(reply, "disagreement", "a round of own training changes on own held-out payments")),
        ("frauds", _recognition(reply)),
        ("all together", _together(reply)),
        ("seen", _seen(reply)),
        ("what next", _next(reply)),
    )
    return "\n".join([*lines, *(f"{what:<13} {said}" for what, said in rows)])


def _standing(reply: dict[str, Any]) -> str:
    if reply["blocked"]:
        means = "and blocked by the operator: nothing is asked of it, answered or merged"
    elif reply["standing"] == "quarantined":
        means = "its models are looked at, and weigh nothing"
    elif reply["trust"] == 0:
        means = "but its models bring nothing new, and weigh nothing"
    else:
        means = f"its models weigh {reply['trust']:.2f} of what they otherwise would"
    return f"{reply['name']} ({reply['id'][:7]}) is {reply['standing']}: {means}."


def _score(reply: dict[str, Any]) -> str:
    return (
        f"{reply['score']:.2f}; suspect at {reply['suspect_at']:g}, quarantined at {reply['quarantine_at']:g}. It is "
        f"the worst of: its models {reply['models']:.2f}, gross ones now and then {reply['bursts']:.2f}, "
        f"broken rules {reply['faults']:.2f}"
    )


def _evidence(evidence: float) -> str:
    word = "is clean" if evidence < 0 else "is as bad as counts" if evidence >= 1 else "speaks against it"
    return f"{word}: {evidence:+.2f} to the score, from -0.5 to +1 a model"


def _measured(reply: dict[str, Any], name: str, unit: str) -> str:
    value, fine = reply[name], reply[f"{name}_fine"]
    return f"{value:.3g} times what {unit}; up to {fine:.3g} is fine: {'fine' if value <= fine else 'too much'}"


def _recognition(reply: dict[str, Any]) -> str:
    agreement = reply["agreement"]
    told = f"own ones, with imagined ones where they are few, are given {reply['recognition']:.3f} on average"
    if agreement >= 1:
        return f"{told}; its models weigh no less for that"
    fine = "fine" if reply["recognition"] >= reply["recognition_fine"] else "too little"
    return f"{told}, less than usual: its models weigh {agreement:.2f} for that; {fine}"


def _together(reply: dict[str, Any]) -> str:
    excess, fine = reply["excess"], reply["excess_fine"]
    said = f"{excess:.2f} doublings beyond what is fine for anybody; up to {fine:g} is fine"
    return f"{said}: {'fine' if excess <= fine else 'too much'}"


def _seen(reply: dict[str, Any]) -> str:
    said = f"{plural(reply['looks'], 'model')} judged, quarantined {plural(reply['strikes'], 'time')}"
    if reply["idle"]:
        said += f"; the last {reply['idle']} brought nothing new, {reply['idle_at']} in a row weigh nothing"
    return said


def _next(reply: dict[str, Any]) -> str:
    if reply["standing"] == "quarantined":
        said = (
            f"{reply['clean']} of {reply['release_after']} clean models in a row release it; "
            f"`p2pfed peer pardon {reply['name']}` does so now"
        )
        if reply["doubtful"]:
            said += f". This is doubtful: with its models since then its score is below {reply['suspect_at']:g}"
        return said
    if reply["score"] == 0:
        return "nothing speaks against it"
    said = f"a clean model takes up to {reply['clean_takes']:.2f} off the score"
    needed = reply["clean_needed"]
    return f"{said}; at least {plural(needed, 'clean model')} until it is trusted again" if needed else said
