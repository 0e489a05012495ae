"""Benchmarks whose every measurement is a line of a file: one that was interrupted goes on where it was."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Cell = dict[str, Any]
Key = tuple[Any, ...]


def key(cell: Cell, names: Sequence[str]) -> Key:
    """What tells a cell from others."""
    return tuple(cell[name] for name in names)


def resume(path: Path, names: Sequence[str]) -> dict[Key, Cell]:
    """The cells in a file, a JSON object a line; none if there is no file. A line that was not finished is cut off."""
    if not path.exists():
        return {}
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return {key(cell, names): cell for cell in map(json.loads, whole.splitlines())}


def complete(
    path: Path,
    cells: Sequence[Cell],
    names: Sequence[str],
    measure: Callable[[Cell, Path], Cell],
    said: Callable[[Cell], str],
) -> dict[Key, Cell]:
    """Measure the `cells` that are not in the file yet, with the time left on stderr; returns all that are in it then.

    `measure` is also given a folder for files on the way, `said` tells a measured cell in a few words.
    """
    done = resume(path, names)
    left = [cell for cell in cells if key(cell, names) not in done]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="p2pfed-bench-") as folder:
        for i, cell in enumerate(left):
            found = cell | measure(cell, Path(folder))
            done[key(cell, names)] = found
            with path.open("a") as file:
                file.write(json.dumps(found) + "\n")
            to_go = (time.monotonic() - begin) / (i + 1) * (len(left) - i - 1)
            line = f"{i + 1} of {len(left)}: {said(found)}; about {to_go / 60:.0f} min to go"
            print(line, file=sys.stderr, flush=True)
    return done
