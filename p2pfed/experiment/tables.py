"""A simulation's history as tidy tables: one row per round and node, and one per measurement of all models together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from p2pfed.sim.history import History, Point, Spread


def rounds(history: History) -> pd.DataFrame:
    """One row per round and node: `node`, `role` (honest, attacker), and the fields of a `Point`.

    `time` is in virtual seconds, `seconds` on the node's own clock; `auprc` is NaN in rounds that were not measured.
    """
    table = _table(Point, history.points)
    numbers = table["node"].to_numpy(np.intp)
    names = pd.Index([node.name for node in history.run.nodes])
    roles = np.array([node.role for node in history.run.nodes])
    table["node"] = pd.Categorical.from_codes(numbers, names)
    table.insert(1, "role", pd.Series(roles[numbers], dtype="category"))
    table["auprc"] = table["auprc"].astype(float)
    first = ["node", "role", "round"]
    return table[first + [column for column in table.columns if column not in first]]


def spread(history: History) -> pd.DataFrame:
    """One row per measurement of how far apart the honest models are, with the fields of a `Spread`."""
    table = _table(Spread, history.spread)
    return table.astype({"mean_auprc": float, "worst_auprc": float})


def _table(kind: type, rows: list[Point] | list[Spread]) -> pd.DataFrame:
    names = [field.name for field in dataclasses.fields(kind)]
    return pd.DataFrame({name: [getattr(row, name) for row in rows] for name in names})
