"""The story that a transcript tells, in as few lines as it takes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence, Set
from itertools import groupby
from typing import NamedTuple

from p2pfed.sim.transcript import listed

PAUSE_SECONDS = 2.0
"""Virtual; what is said again after so long is another line."""

_LINE = re.compile(r" *(?P<time>[\d.]+)s (?P<who>\S+) (?P<said>.*)")
_GETS = re.compile(r"gets update \d+ of (?P<member>\S+)(?: through (?P<relay>\S+))?")
_ROUND = re.compile(r"(?P<round>round \d+) merged (?P<names>.*)")
_OF_ANOTHER = re.compile(r"(?P<verb>meets|suspects|takes|hears) (?P<name>[^\s:]+)(?P<rest>.*)")


class _Entry(NamedTuple):
    time: float
    who: str
    said: str


def story(transcript: Iterable[str]) -> list[str]:
    """A transcript's lines told shorter: those who say the same one after the other share a line.

    A round says whose models arrived since the one before ("new") and whose were merged once more ("old").
    """
    entries = [_Entry(float(m["time"]), m["who"], m["said"]) for m in map(_LINE.fullmatch, transcript) if m]
    everybody = frozenset(who for _, who, said in entries if said.startswith(("starts", "goes on")))
    told: list[str] = []
    for _, block in groupby(_in_step(_of_rounds(entries, everybody)), lambda entry: entry.said.split()[0]):
        told += [_together(alike, everybody) for alike in _gathered(_of_others(block, everybody), lambda e: e.said)]
    return told


def _in_step(entries: Iterable[_Entry]) -> Iterator[_Entry]:
    """The entries, with what happens at once, as by the calendar it does, kind by kind and not bank by bank."""
    for _, at_once in groupby(entries, lambda entry: entry.time):
        kinds: dict[str, list[_Entry]] = defaultdict(list)
        for entry in at_once:
            kinds[entry.said.split()[0]].append(entry)
        for alike in kinds.values():
            yield from alike


def _gathered(entries: Iterable[_Entry], key: Callable[[_Entry], Hashable]) -> list[list[_Entry]]:
    """Entries of the same key that follow each other without a pause."""
    groups: list[list[_Entry]] = []
    newest: dict[Hashable, list[_Entry]] = {}
    for entry in sorted(entries):
        group = newest.get(key(entry))
        if group is None or entry.time - group[-1].time > PAUSE_SECONDS:
            group = newest[key(entry)] = []
            groups.append(group)
        group.append(entry)
    return groups


def _of_rounds(entries: Iterable[_Entry], everybody: frozenset[str]) -> Iterator[_Entry]:
    """The entries without updates that arrive: each is told of by the round that merges it."""
    arrived: dict[str, dict[str, str | None]] = defaultdict(dict)
    for entry in entries:
        _, who, said = entry
        if got := _GETS.fullmatch(said):
            arrived[who][got["member"]] = got["relay"]
            continue
        if done := _ROUND.fullmatch(said):
            new = arrived.pop(who, {})
            old = set(done["names"].split(", ")).difference(new, ["nobody"])
            said = f"{done['round']}: new from {_sources(new, who, everybody)}"
            if old:
                rest = everybody.difference(new, [who])
                said += f"; old from {'them' if old == rest and new else listed(old)}"
        elif said.startswith("has done") and (new := arrived.pop(who, {})):
            said += f"; new from {_sources(new, who, everybody)}"
        elif said == "is killed":
            arrived.pop(who, None)
        yield entry._replace(said=said)


def _sources(relays: dict[str, str | None], who: str, everybody: frozenset[str]) -> str:
    """Whose models arrived, and who passed them on if it was not they themselves."""
    passed: dict[str, list[str]] = defaultdict(list)
    for name, relay in relays.items():
        if relay:
            passed[relay].append(name)
    through = "".join(f" (through {relay}: {listed(passed[relay])})" for relay in sorted(passed))
    return _named(relays.keys(), who, everybody) + through


def _named(names: Set[str], who: str, everybody: frozenset[str]) -> str:
    """Some of all but `who`, in few words; what both halves of a consortium say of each other is the same then."""
    rest = everybody.difference(names, [who])
    if not names:
        return "nobody"
    if 2 * len(rest) > len(everybody):
        return listed(names)
    return f"all but {listed(rest)}" if rest else "all"


def _of_others(entries: Iterable[_Entry], everybody: frozenset[str]) -> Iterator[_Entry]:
    """What one says of several others, said of all of them each time."""

    def about(entry: _Entry) -> tuple[str, ...]:
        said = _OF_ANOTHER.fullmatch(entry.said)
        return (entry.who, said["verb"], said["rest"]) if said else (entry.who, entry.said)

    for group in _gathered(entries, about):
        who, verb, *rest = about(group[0])
        if rest:
            names = {said["name"] for entry in group if (said := _OF_ANOTHER.fullmatch(entry.said))}
            verb += f" {_named(names, who, everybody)}{rest[0]}"
        yield from (entry._replace(said=verb) for entry in group)


def _together(entries: Sequence[_Entry], everybody: frozenset[str]) -> str:
    """The line of those who say the same."""
    first, last = entries[0].time, entries[-1].time
    until = f" -{last:8.2f}s" if last > first else " " * 11
    who = {e.who for e in entries}
    name = "everybody" if who == everybody else listed(who)
    return f"{first:8.2f}s{until}  {name}{':' if who <= everybody else ''} {entries[0].said}"
