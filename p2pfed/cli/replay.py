"""Replay what a daemon recorded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pfed.cli.terminal import AllowCode, AsJson, plural, printable, show, span

if TYPE_CHECKING:
    from p2pfed.core.effects import Effect
    from p2pfed.core.node import GossipNode
    from p2pfed.runtime.replay import Entry, Replay

ENDINGS = {
    "whole": "",
    "open": "; the daemon was killed before it could end the journal",
    "cut": "; the daemon was killed while it wrote, so one more input is incomplete and was left out",
    "until": "",
}


def replay(
    journal: Annotated[Path, typer.Argument(help="A file of the daemon's node.journal_dir.")],
    until: Annotated[int | None, typer.Option(min=1, help="Stop after the input of this number.")] = None,
    shown: Annotated[bool, typer.Option("--show", help="Print every input and what the node makes of it.")] = False,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Give a node the inputs that a daemon recorded; exit code 1 if it does anything else than that daemon did."""
    from p2pfed.core.aggregation import code_allowed
    from p2pfed.runtime import replay as runtime

    with code_allowed(allow_code):
        found = runtime.replay(journal, until, _shower(as_json) if shown else None)
    value = dataclasses.asdict(found) | {"same": found.difference is None}
    if shown and as_json:
        print(json.dumps(value))  # one object a line, this one the last
    else:
        show(as_json, value, printable(_text(found)))
    if found.difference is not None:
        raise typer.Exit(1)


def _text(found: Replay) -> str:
    counts = [plural(found.rounds, "round"), plural(found.effects, "effect")]
    did = f"{found.member}: {plural(found.entries, 'input')} over {span(found.seconds)}, {', '.join(counts)}"
    if found.difference is None:
        return f"{did}, all as recorded{ENDINGS[found.ending]}\nstate {found.digest}"
    lines = [did, f"differs at input {found.difference.entry}, {found.difference.input}: {found.difference.what}"]
    if found.difference.at:
        lines[1] += f" (node time {found.difference.at:.6f})"
    if others := _other_makers(found.made_by):
        lines.append(f"recorded with {others}")
    return "\n".join(lines)


def _other_makers(recorded: dict[str, Any]) -> str:
    """What the recording was made with, where that differs from here."""
    from p2pfed.runtime.recording import made_by

    here = made_by() | {"threads": recorded.get("threads")}  # a replay takes as many as were recorded
    others = [key for key in here if recorded.get(key) != here[key]]
    return ", ".join(f"{key} {recorded.get(key)} (here {here[key]})" for key in others)


def _shower(as_json: bool) -> Callable[[Entry, list[Effect], GossipNode], None]:
    """Prints an entry as a line of text, or as one JSON object."""

    def one(entry: Entry, effects: list[Effect], node: GossipNode) -> None:
        names = {member: node.name_of(member) for member in node.members}
        given, done = _brief(entry.given, names), [_brief(effect, names) for effect in effects]
        if as_json:
            row = {"entry": entry.number, "at": entry.at, "input": given, "effects": done, "raised": entry.raised}
            print(json.dumps(row))
        else:
            words = [_line(effect) for effect in done] + ([_line(entry.raised)] if entry.raised else [])
            print(f"{entry.number:>7}  {entry.at:.3f}  {_line(given)}", *words, sep="\n           -> ")

    return one


def _brief(value: Any, names: dict[Any, str]) -> Any:
    """A value as JSON values that people can read: members by name, models and frames by their size."""
    if isinstance(value, (tuple, list, frozenset)):
        return [_brief(v, names) for v in value]
    if isinstance(value, dict):
        return {str(_brief(k, names)): _brief(v, names) for k, v in value.items()}
    kind = type(value).__name__
    if kind in _BRIEF:
        return _brief(_BRIEF[kind](value), names)
    if dataclasses.is_dataclass(value):
        return {"kind": kind} | {f.name: _brief(getattr(value, f.name), names) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name
    return names.get(value, value) if isinstance(value, str) else value


_BRIEF: dict[str, Callable[[Any], Any]] = {
    "Address": str,
    "HeartbeatTable": lambda table: plural(len(table.rows), "heartbeat"),
    "Manifest": lambda manifest: f"manifest {manifest.version}",
    "ModelUpdate": lambda update: {"seq": update.statement.seq, "of": update.statement.sender},
    "bytes": lambda data: plural(len(data), "byte"),
    "ndarray": lambda vector: plural(vector.size, "weight"),
}


def _line(brief: Any) -> str:
    """`UpdateReceived update=..., via=bank-2`."""
    if isinstance(brief, dict):
        kind = f"{brief['kind']} " if "kind" in brief else ""
        return kind + " ".join(f"{k}={_line(v)}" for k, v in brief.items() if k != "kind")
    text = json.dumps(brief, ensure_ascii=False) if isinstance(brief, (list, float)) else str(brief)
    return printable(text).replace("\n", "?")
