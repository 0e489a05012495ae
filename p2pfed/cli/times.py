"""Times as people write them on the command line, and a calendar as they read it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from p2pfed.cli.terminal import span
from p2pfed.core.types import DAY
from p2pfed.errors import UsageError

if TYPE_CHECKING:
    from p2pfed.core.gossip.calendar import Calendar

UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY}
SOON = 15 * 60
"""Seconds to the first cycle, where the founders name no time: enough to sign and join a small consortium."""


def duration(text: str, option: str) -> int:
    """Seconds of `24h`, `90m`, `30s`, `1d` or 0; raises UsageError that names `option`."""
    if text.strip() == "0":
        return 0
    match = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if match is None:
        raise UsageError(f"{option} {text}: expected a number with its unit, such as 24h or 90m, or 0")
    return int(match[1]) * UNITS[match[2]]


def moment(text: str, option: str, now: float) -> int:
    """Unix seconds of `2026-12-01T08:00+01:00`, `+15m` from `now`, or Unix seconds; raises UsageError."""
    plain = text.strip()
    if plain.startswith("+"):
        return int(now) + duration(plain[1:], option)
    if plain.isascii() and plain.isdigit():
        return int(plain)
    try:
        read = datetime.fromisoformat(plain)
    except ValueError:
        raise UsageError(
            f"{option} {text}: expected a time such as 2026-12-01T08:00+01:00, +15m from now, or Unix seconds"
        ) from None
    if read.tzinfo is None:
        raise UsageError(f"{option} {text}: say the zone too, such as {plain}Z for UTC or {plain}+01:00")
    return int(read.timestamp())


def earlier(text: str, option: str, now: float) -> float:
    """Unix seconds of `2h` before `now`, or of a time, this machine's unless it names its zone; raises UsageError."""
    if re.fullmatch(r"\d{1,9}[smhd]", text.strip()):
        return now - duration(text, option)
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{option} {text}: expected an age such as 2h, or a time such as 2026-12-01T08:00") from None


def shown(seconds: float) -> str:
    """A time in UTC and as this machine's clock shows it."""
    there, here = datetime.fromtimestamp(seconds, UTC), datetime.fromtimestamp(seconds).astimezone()
    day = "" if here.date() == there.date() else f"{here:%Y-%m-%d} "
    return f"{there:%Y-%m-%d %H:%M:%S} UTC, {day}{here:%H:%M:%S %Z} here"


def calendar_lines(calendar: Calendar, now: float) -> list[str]:
    """What a calendar says and its next three cycles, under the labels of `consortium show`."""
    if calendar.free:
        return ["calendar     none: each bank trains at its own pace, and must set learning.rounds to end"]
    c = calendar
    lines = [
        f"calendar     {c.rounds} rounds of {c.round_seconds:g} s, {span(c.length)} a cycle, every {span(c.every)}"
        f"{'' if c.first else f'; the first {span(c.every)} without rest'}"
    ]
    lines += [f"cycle {cycle:<6} {shown(begins)}" for cycle, begins in c.coming(now)]
    lines += [f"additional   {shown(begins)}" for begins in c.extra if begins > now]
    lines += [f"skipped      {shown(begins)}" for begins in c.skipped if begins > now]
    return lines


def calendar_value(calendar: Calendar, now: float) -> dict[str, Any]:
    """The same for scripts."""
    coming: Iterable[tuple[int, float]] = () if calendar.free else calendar.coming(now)
    return {
        "cycle_seconds": calendar.length,
        "next_cycles": [{"cycle": cycle, "begins": begins} for cycle, begins in coming],
    }


def first_cycle(text: str | None, now: float) -> int:
    """The anchor that `--first-cycle` says, by default in `SOON` seconds on a whole minute; raises UsageError."""
    if text is None:
        return int(-(-(now + SOON) // 60) * 60)
    anchor = moment(text, "--first-cycle", now)
    if anchor < int(now):
        raise UsageError(f"--first-cycle {text}: {shown(anchor)} is over; now it is {shown(time.time())}")
    return anchor
