"""The files that a source's path names: one, those in a folder, or those that fit a pattern."""

from __future__ import annotations

import glob
from pathlib import Path

from p2pfed.errors import DataError, NotPermitted

WILD = frozenset("*?[")


def files_of(path: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files of `path`, sorted by name; a path that is neither folder nor pattern is one file, there or not.

    In a folder those whose name ends in one of `endings` count, such as `.csv`, but no hidden ones and none deeper
    down. Raises DataError where a folder or a pattern holds none, NotPermitted for a folder that may not be read.
    """
    try:
        if path.is_dir():
            found = [
                entry for entry in path.iterdir() if entry.name.endswith(endings) and not entry.name.startswith(".")
            ]
            return _some(found, f"the folder {path} holds no file that ends in {endings[0]}; check data.source.path")
        if not WILD & set(str(path)) or path.exists():
            return [path]
    except PermissionError:
        raise NotPermitted(f"{path} may not be read by this user; change its owner or mode") from None
    found = [Path(name) for name in glob.glob(str(path), recursive=True)]
    return _some(found, f"no file fits {path}; check the pattern in data.source.path")


def _some(found: list[Path], otherwise: str) -> list[Path]:
    files = sorted(entry for entry in found if entry.is_file())
    if not files:
        raise DataError(otherwise)
    return files
