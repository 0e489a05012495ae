"""The models that serve or served: the bundle that `p2pfed score` uses, every version of it, and which was the best.

model.p2pfed                      what serves
models/000012-0040.p2pfed         the version of cycle 12, round 40
models/index.json                 {"serves": name, "before": name, "best": name}

Free-running nodes have model.p2pfed alone, which is their newest model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from p2pfed.core.effects import KeptModel
from p2pfed.core.types import DAY
from p2pfed.errors import StateCorrupt
from p2pfed.learning.bundle import ModelBundle
from p2pfed.logs import NodeLogger
from p2pfed.runtime import lineage
from p2pfed.store.state_dir import StateDir, disk_faults, write_atomically

LEAST_DAYS = 90.0
"""Versions are kept so long at least: the best of them is a champion's measure."""
_NAME = re.compile(r"[0-9]{6,}-[0-9]{4,}\.p2pfed")


class Versions:
    """The model files of one state directory."""

    def __init__(self, state: StateDir, log: NodeLogger, days: float) -> None:
        """Versions older than `days`, and than LEAST_DAYS, are removed."""
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
        data, index = bundle.to_bytes(), self._index()
        write_atomically(folder / name, data)
        write_atomically(self._state.model, data)
        if index.get("serves") != name:
            index["before"] = index.get("serves", name)
        index["serves"] = name
        if best:
            index["best"] = name
        write_atomically(folder / "index.json", json.dumps(index).encode())
        self._prune(model.since, set(index.values()))

    def _prune(self, now: float, used: set[str]) -> None:
        """Remove versions that were written too long before `now`, Unix seconds, but for those that are used."""
        for path in self._state.models.iterdir():
            if not _NAME.fullmatch(path.name) or path.name in used:
                continue
            with disk_faults(path):
                if path.stat().st_mtime < now - self._seconds:
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


def _file_name(bundle: ModelBundle) -> str:
    cycle, number = lineage.place(bundle)
    return f"{cycle or 0:06d}-{number or 0:04d}.p2pfed"
