"""Scores a file of payments with a model bundle: in pieces, with numpy, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from p2pfed.config import DataSection, Source
from p2pfed.core.contract import FeatureColumn
from p2pfed.data import files, sources
from p2pfed.data.features import transform
from p2pfed.data.table import bank_columns, text_columns
from p2pfed.errors import StateCorrupt, UsageError
from p2pfed.learning.bundle import ModelBundle
from p2pfed.runtime import lineage

OWN_COLUMNS = frozenset(("row", "score", "threshold", "alert", "model"))
"""Of a scored file; a bank's columns that are kept have other names."""


@dataclass(frozen=True)
class Scored:
    """How many payments were scored, how many of them are alerts, and how many lack a value the model needs."""

    rows: int
    alerts: int
    unscored: int
    threshold: float
    model: str
    """`lineage.name_of` the model."""
    cycle: int | None
    """The cycle that the model is of; None of one from before there was a calendar."""
    round: int | None
    """Of that cycle."""
    weights_sha256: str
    unlisted: tuple[str, ...]
    """Columns of which no payment had a level that the contract lists: another column, or other codes."""


def read_bundle(path: Path) -> ModelBundle:
    """The model at `path`; raises UsageError if there is none yet, StateCorrupt naming the file if it is damaged."""
    try:
        return ModelBundle.from_bytes(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: a node writes it once it has evaluated its first model") from None
    except OSError as error:
        raise UsageError(f"{path}: the model cannot be read: {error.strerror}") from None
    except StateCorrupt as error:
        raise StateCorrupt(f"{path}: {error}") from None


def score_file(
    bundle: ModelBundle,
    data: DataSection,
    payments: Source,
    out: Path,
    keep: Sequence[str] = (),
    progress: Callable[[int], None] = lambda rows: None,
) -> Scored:
    """Write `out` (.csv or .parquet), in input order: columns `row` (from 0), those of `keep`, `score`, `threshold`
    (above it a score is an alert), `alert` (1 or 0) and `model`, which names the model that gave the score.

    `data` maps the bank's columns to the contract; `payments` needs neither label nor time. A row that lacks a value
    has no score and no alert. `progress` hears the rows done so far. Raises DataError and what reading and writing
    files raise.
    """
    columns = bundle.contract.columns
    keep = sources.chosen(sources.column_names(payments), keep, sources.place(payments))
    wanted = list(dict.fromkeys([*bank_columns(data, columns), *keep]))
    if taken := sorted(OWN_COLUMNS & set(keep)):
        raise UsageError(f"the output has a column {taken[0]!r} of its own; leave it out of the columns to keep")
    types = sources.types(payments, keep)
    text = text_columns(data, columns) | {name for name, kind in types.items() if kind.kind == "O"}
    broken = {name: kind for name, kind in types.items() if kind.kind == "f"}
    unlisted = {column.name: slice(at, at + column.width) for column, at in _categories(columns)}
    rows = alerts = unscored = 0
    model = lineage.name_of(bundle)
    with files.writing(out) as writer:
        for frame in sources.read_chunks(payments, wanted, text=text):
            inputs = transform(frame, data, bundle.contract, bundle.scaler)
            scores = bundle.scores(inputs)
            unlisted = {name: at for name, at in unlisted.items() if not (inputs[:, at] > 0).any()}
            known = ~np.isnan(inputs).any(axis=1)
            alert = bundle.alerts(scores) & known
            result = frame[list(keep)].astype(broken)
            result.insert(0, "row", np.arange(rows, rows + len(frame)))
            result["score"] = np.where(known, scores, np.float32(np.nan))
            result["threshold"] = float(bundle.threshold)
            result["alert"] = alert.astype(np.int8)
            result["alert"] = result["alert"].astype("Int8").mask(result["score"].isna())
            result["model"] = model
            writer.write(result)
            rows, alerts = rows + len(frame), alerts + int(alert.sum())
            unscored += int((~known).sum())
            progress(rows)
    cycle, number = lineage.place(bundle)
    named = (model, cycle, number, bundle.weights_sha256)
    return Scored(rows, alerts, unscored, bundle.threshold, *named, tuple(unlisted) if rows > unscored else ())


def _categories(columns: Sequence[FeatureColumn]) -> Iterator[tuple[FeatureColumn, int]]:
    """The columns of categories, and the first of each one's model inputs."""
    at = 0
    for column in columns:
        if column.kind == "categorical":
            yield column, at
        at += column.width
