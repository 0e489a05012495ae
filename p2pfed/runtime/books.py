"""What is remembered of the bank's payments over a restart: the last reading, and how what served has fared, by day."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pfed.core import record
from p2pfed.core.events import Event, PaymentsServed
from p2pfed.core.record import RecordError
from p2pfed.core.served import ServedDay, together
from p2pfed.logs import NodeLogger
from p2pfed.runtime.trainer import Loaded
from p2pfed.store.state_dir import StateDir, write_atomically

KEPT_DAYS = 366
"""Days of the curve that are kept, the newest ones: a year, in some 100 kB."""

StartsTask = Callable[[str, Callable[[], Coroutine[Any, Any, None]]], None]
"""As `Supervisor.start`."""


@dataclass(frozen=True)
class _Curve:
    """The file of the curve."""

    until: float
    days: tuple[ServedDay, ...]


class Books:
    """Two files of the state directory, written in the background; an observer of an EventLog."""

    def __init__(self, state: StateDir, log: NodeLogger, start: StartsTask) -> None:
        """Read what there is; a damaged file is told in the log, and begun anew.

        A damaged curve is put aside before. One that cannot be read at all, as by its owner, may be whole: it stays as
        it is, and what is counted meanwhile is not written, but counted again once it can be read.
        """
        self._state, self._log, self._start = state, log, start
        reading = self._read_reading()
        self.reading: dict[str, Any] | None = reading if isinstance(reading, dict) else None
        """What the payments were like that were taken last: `Loaded.reading`."""
        self._writes_curve = True
        self._curve = self._read_curve()

    @property
    def days(self) -> tuple[ServedDay, ...]:
        """How what served has fared, oldest day first."""
        return self._curve.days if self._curve else ()

    @property
    def counted_until(self) -> float | None:
        """Payments up to here (Unix seconds) are in `days`; before there are any, those of the last reading."""
        if self._curve is not None:
            return self._curve.until
        until = (self.reading or {}).get("mature_until")
        return until if isinstance(until, float) else None

    def take(self, loaded: Loaded) -> None:
        """A trainer has read the payments."""
        if loaded.reading is not None:
            self.reading = loaded.reading
            self._write("reading", self._state.reading, loaded.reading)

    def observe(self, _: float, event: Event) -> None:
        """Labels have matured: add to the days. Midnight seldom is when payments are read: parts of a day add up.

        What begins before the end of the curve was counted in part; the next reading begins there.
        """
        if not isinstance(event, PaymentsServed) or (self._curve is not None and event.since < self._curve.until):
            return
        parts: dict[str, list[ServedDay]] = {}
        for part in (*self.days, *event.days):
            parts.setdefault(part.day, []).append(part)
        days = [together(parts[day]) for day in sorted(parts)[-KEPT_DAYS:]]
        self._curve = _Curve(event.until, tuple(days))
        if self._writes_curve:
            self._write("curve", self._state.curve, record.plain(self._curve))

    def _read_reading(self) -> Any:
        path = self._state.reading
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self._log.warning("%s is damaged, the next reading is compared with none: %s", path, error)
            return None

    def _read_curve(self) -> _Curve | None:
        path = self._state.curve
        try:
            return record.parse(_Curve, path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._writes_curve = False
            self._log.warning("%s cannot be read, no curve is kept before the next start: %s", path, error)
        except RecordError as error:
            self._put_aside(path, error)
        return None

    def _put_aside(self, path: Path, why: RecordError) -> None:
        """Rename a curve that is damaged or of another version, that no other takes its place."""
        aside = path.with_name(path.name + ".damaged")
        try:
            path.replace(aside)
            self._log.warning("%s is damaged, the curve begins anew and it is %s now: %s", path, aside.name, why)
        except OSError as error:
            self._writes_curve = False
            self._log.warning("%s is damaged (%s) and cannot be put aside, no curve is kept: %s", path, why, error)

    def _write(self, name: str, path: Path, value: Any) -> None:
        data = json.dumps(value).encode()
        self._start(name, lambda: asyncio.to_thread(write_atomically, path, data))
