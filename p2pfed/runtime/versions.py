"""The models that serve or served: the bundle that `p2pfed score` uses, every version of it, and which led it.

model.p2pfed                      what serves
models/000012-0520.p2pfed         the version of cycle 12, by the number of its round in the calendar
models/index.json                 {"serves": name, "before": name, "leaders": [name, ...]}

Free-running nodes have model.p2pfed alone, which is their newest model.
"""

from __future__ import annotations

import re
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, StringConstraints

from p2pfed.core.effects import KeepModel, KeptModel
from p2pfed.core.types import DAY
from p2pfed.errors import StateCorrupt
from p2pfed.learning.bundle import ModelBundle
from p2pfed.logs import NodeLogger
from p2pfed.runtime import lineage
from p2pfed.store.state_dir import StateDir, disk_faults, write_atomically

LEAST_DAYS = 90.0
"""Versions are kept so long at least after they served: the best of them is a champion's measure."""
_NAME = re.compile(r"[0-9]{6,}-[0-9]{4,}\.p2pfed")
_Name = Annotated[str, StringConstraints(pattern=f"^{_NAME.pattern}$")]


class _Index(BaseModel):
    """Which versions are used."""

    serves: _Name | None = None
    before: _Name | None = None
    """What served before that."""
    leaders: tuple[_Name, ...] = ()


class Versions:
    """The model files of one state directory."""

    def __init__(self, state: StateDir, log: NodeLogger, days: float) -> None:
        """Versions that have not served for `days`, nor for LEAST_DAYS, are removed."""
        self._state, self._log = state, log
        self._seconds = max(days, LEAST_DAYS) * DAY

    def recall(self) -> tuple[KeptModel | None, tuple[KeptModel, ...]]:
        """What serves, and what led it, oldest first. A damaged file is left out, and told in the log."""
        leaders = (self._read(self._state.models / name) for name in self._index().leaders)
        return self._read(self._state.model), tuple(kept for kept in leaders if kept is not None)

    def keep(self, bundle: ModelBundle, kept: KeepModel) -> None:
        """Let the model of `kept`, of which `bundle` is, serve, and remove old versions. Raises DiskFault."""
        folder, name, since = self._state.models, _file_name(kept.model), kept.model.since
        with disk_faults(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            newest = max((path.stat().st_mtime for path in _files(folder)), default=since)
        data, index = bundle.to_bytes(), self._index()
        before = index.before if index.serves == name else index.serves
        leaders = tuple(map(_file_name, kept.leaders))
        write_atomically(folder / name, data)
        write_atomically(self._state.model, data)
        index = _Index(serves=name, before=before, leaders=leaders)
        write_atomically(folder / "index.json", index.model_dump_json().encode())
        self._prune(since, newest, {name, before, *leaders})

    def _prune(self, now: float, newest: float, used: set[str | None]) -> None:
        """Remove versions in whose place others came too long ago, but for those used.

        `now` is Unix seconds by this computer's clock, which may be wrong: too long ago is also before `newest`, when
        the last version before this one was written. A clock that jumps once removes nothing.
        """
        with disk_faults(self._state.models):
            paths = _files(self._state.models)
            for path, successor in pairwise(paths):
                # the last one has just been written, so that it began at `now`
                ended = now if successor == paths[-1] else successor.stat().st_mtime
                if ended < min(now, newest) - self._seconds and path.name not in used:
                    path.unlink()

    def _index(self) -> _Index:
        path = self._state.models / "index.json"
        try:
            return _Index.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return _Index()
        except (OSError, ValueError) as error:
            self._log.warning("%s cannot be read and is made anew: %s", path, error)
            return _Index()

    def _read(self, path: Path) -> KeptModel | None:
        try:
            return lineage.kept(ModelBundle.from_bytes(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, StateCorrupt) as error:
            self._log.warning("the model in %s is not gone on from: %s", path, error)
            return None


def served_between(folder: Path, since: float, until: float) -> tuple[list[tuple[float, ModelBundle]], list[str]]:
    """Which versions in `folder` served from `since` to `until` (Unix seconds), each from when on, in that order.

    Beside them the names of files that cannot be read, and why.
    """
    before: list[tuple[float, ModelBundle]] = []
    meanwhile: list[tuple[float, ModelBundle]] = []
    damaged = []
    for path in _files(folder) if folder.is_dir() else ():
        try:
            bundle = ModelBundle.from_bytes(path.read_bytes())
            began = lineage.kept(bundle).since
        except (OSError, StateCorrupt) as error:
            damaged.append(f"{path.name} ({error})")
            continue
        if since < began <= until:
            meanwhile.append((began, bundle))
        elif began <= since and (not before or began >= before[0][0]):
            before = [(began, bundle)]
    return sorted([*before, *meanwhile], key=itemgetter(0)), damaged


def _files(folder: Path) -> list[Path]:
    """The versions in `folder`, oldest first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _file_name(kept: KeptModel) -> str:
    return f"{kept.cycle:06d}-{kept.round:04d}.p2pfed"
