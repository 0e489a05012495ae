"""The models that serve or served: the bundle that `p2pfed score` uses, every version of it, and which was the best.

model.p2pfed                      what serves
models/000012-0040.p2pfed         the version of cycle 12, round 40
models/index.json                 {"serves": name, "before": name, "best": name}

Free-running nodes have model.p2pfed alone, which is their newest model.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from operator import itemgetter
from pathlib import Path

from p2pfed.core.effects import KeptModel
from p2pfed.core.types import DAY
from p2pfed.errors import StateCorrupt
from p2pfed.learning.bundle import ModelBundle
from p2pfed.logs import NodeLogger
from p2pfed.runtime import lineage
from p2pfed.store.state_dir import StateDir, disk_faults, write_atomically

LEAST_DAYS = 90.0
"""Versions are kept so long at least after they served: the best of them is a champion's measure."""
_NAME = re.compile(r"[0-9]{6,}-[0-9]{4,}\.p2pfed")


class Versions:
    """The model files of one state directory."""

    def __init__(self, state: StateDir, log: NodeLogger, days: float) -> None:
        """Versions that have not served for `days`, nor for LEAST_DAYS, are removed."""
        self._state, self._log = state, log
        self._seconds = max(days, LEAST_DAYS) * DAY

    def recall(self, model_digest: str) -> tuple[KeptModel | None, KeptModel | None]:
        """What serves and the best version, the same object if they are one; None for one that is of no use any more.

        What serves may be of another generation than `model_digest`, the best may not. A damaged file is told in the
        log.
        """
        (champion, name), best = self._read(self._state.model), self._index().get("best")
        if best is None:
            return champion, None
        leads = champion if best == name else self._read(self._state.models / best)[0]
        return champion, leads if leads is not None and leads.model == model_digest else None

    def keep(self, bundle: ModelBundle, model: KeptModel, best: bool) -> None:
        """Let `model`, of which `bundle` is, serve; keep it as a version, and remove old ones. Raises DiskFault."""
        folder, name = self._state.models, _file_name(bundle)
        with disk_faults(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            newest = max((path.stat().st_mtime for path in _files(folder)), default=model.since)
        data, index = bundle.to_bytes(), self._index()
        write_atomically(folder / name, data)
        write_atomically(self._state.model, data)
        if index.get("serves") != name:
            index["before"] = index.get("serves", name)
        index["serves"] = name
        if best:
            index["best"] = name
        write_atomically(folder / "index.json", json.dumps(index).encode())
        self._prune(model.since, newest, set(index.values()))

    def _prune(self, now: float, newest: float, used: set[str]) -> None:
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

    def _index(self) -> dict[str, str]:
        path = self._state.models / "index.json"
        try:
            found = json.loads(path.read_bytes())
            return {k: v for k, v in found.items() if k in ("serves", "before", "best") and _NAME.fullmatch(v)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            self._log.warning("%s cannot be read and is made anew: %s", path, error)
            return {}

    def _read(self, path: Path) -> tuple[KeptModel | None, str]:
        """The model in a file, and the name of its version."""
        try:
            bundle = ModelBundle.from_bytes(path.read_bytes())
            return lineage.kept(bundle), _file_name(bundle)
        except FileNotFoundError:
            return None, ""
        except (OSError, StateCorrupt) as error:
            self._log.warning("the model in %s is not gone on from: %s", path, error)
            return None, ""


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


def _file_name(bundle: ModelBundle) -> str:
    cycle, number = lineage.place(bundle)
    return f"{cycle or 0:06d}-{number or 0:04d}.p2pfed"
