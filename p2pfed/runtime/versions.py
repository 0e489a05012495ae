"""The models that serve or served: the bundle that `p2pfed score` uses, every version of it, and which are the best.

model.p2pfed                      what serves
models/000012-000520.p2pfed        the version of cycle 12, by the number of its round in the calendar
models/index.json                 {"serves": name, "before": name, "bests": [name, ...]}

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
from p2pfed.errors import NoDescriptors, StateCorrupt
from p2pfed.learning.bundle import ModelBundle
from p2pfed.logs import NodeLogger
from p2pfed.runtime import lineage
from p2pfed.store import descriptors
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
    bests: tuple[_Name, ...] = ()
    """See `KeepModel`."""


class Versions:
    """The model files of one state directory."""

    def __init__(self, state: StateDir, log: NodeLogger, days: float) -> None:
        """Versions that have not served for `days`, nor for LEAST_DAYS, are removed."""
        self._state, self._log = state, log
        self._seconds = max(days, LEAST_DAYS) * DAY

    def recall(self) -> tuple[KeptModel | None, tuple[KeptModel, ...]]:
        """What serves, and the best versions before it, oldest first. A damaged file is left out, and told in the log.

        If it is that of what serves, its version does.
        """
        index = self._index()
        bests = (self._read(self._state.models / name, expected=True) for name in index.bests)
        serves = self._read(self._state.model)
        if serves is None and index.serves is not None:
            serves = self._read(self._state.models / index.serves, expected=True)
        return serves, tuple(kept for kept in bests if kept is not None)

    def keep(self, bundle: ModelBundle, kept: KeepModel) -> None:
        """Let the model of `kept`, of which `bundle` is, serve, and remove old versions. Raises DiskFault."""
        folder, name, since = self._state.models, _file_name(kept.model), kept.model.since
        with disk_faults(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            newest = max((path.stat().st_mtime for path in _files(folder)), default=since)
        data, index = bundle.to_bytes(), self._index()
        before = index.before if index.serves == name else index.serves
        bests = tuple(map(_file_name, kept.bests))
        self._keep_copy()
        write_atomically(folder / name, data)
        index = _Index(serves=name, before=before, bests=bests)
        write_atomically(folder / "index.json", index.model_dump_json().encode())
        write_atomically(self._state.model, data)
        self._prune(since, newest, {name, before, *bests})

    def _keep_copy(self) -> None:
        """What serves is a version as well, if only its file was brought here, or was kept under another name."""
        serves = self._read(self._state.model)
        if serves is not None and not (copy := self._state.models / _file_name(serves)).exists():
            write_atomically(copy, self._state.model.read_bytes())

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
            if isinstance(error, OSError) and descriptors.out(error):
                raise NoDescriptors(f"cannot open {path}: {error.strerror}; raise the limit (`ulimit -n`)") from error
            self._log.warning("%s cannot be read and is made anew: %s", path, error)
            return _Index()

    def _read(self, path: Path, expected: bool = False) -> KeptModel | None:
        try:
            return lineage.kept(ModelBundle.from_bytes(path.read_bytes()))
        except (OSError, StateCorrupt) as error:
            if expected or not isinstance(error, FileNotFoundError):
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
    return f"{kept.cycle:06d}-{kept.round:06d}.p2pfed"
