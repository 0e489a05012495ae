"""Whether this bank's own rows fit the consortium: what its operator is told before anybody is judged by them.

A bank whose column is in another unit, or whose labels are wrong, does not find itself odd: every merge brings its
model near to the others' again, and in ten rounds one of 175 such banks found most of the others bad (six banks; ulb,
handbook, paysim, generated). Nor does the first layer name the column: its weights were the farthest from the others'
in 44 of 121. The rows themselves tell of numeric columns, where the scaling is the contract's, and with the others'
models of labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.aggregation.geometry import coordinate_median
from p2pfed.core.contract import FeatureContract
from p2pfed.core.effects import Effect
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import Probe
from p2pfed.core.problems import Problems
from p2pfed.core.weights import Vector

LOOK_EVERY = 5
"""Merges between two looks at what others know of own frauds. With fewer, models know too little at the first; with
more, the others have learned to live with a column whose sign is turned: the tenth merge does not show it any more."""
LEAST_LEGITIMATE, LEAST_OF_EACH = 20, 8
"""Held-out legitimate rows without which nothing is said of columns; frauds and legitimate rows without which nothing
is of labels."""
FAR = 2.5
"""Mean distance of a column's legitimate values from the consortium's mean, in its deviations, from which on it is told
of; 1 is usual, and the most of 462 honest banks 1.3 (Dirichlet .1 to 1, lognormal 2, rates to 12). Columns three
deviations off have 2.8 at least. Higher misses these; at 2 three of four banks of 220 unusual rows are told of one."""
TOLD_APART = 0.6
"""How often, at least, a fraud of this bank is to look worse to the others than a legitimate row of it: by chance that
is 0.5. Of labels drawn at random 18 of 20 banks are told in ten rounds (ulb, handbook), and no honest one of these
sets; where frauds hardly show, two of 36 are while the models learn (weak2). At .55 none is, and 10 of the 20."""
KNOWN = 0.25
"""Mean fraud probability of own frauds that stands for this where hardly a row is legitimate, as with labels turned
round: these 20 banks are told, and one honest bank of which 96 % of the rows are fraud (weak, Dirichlet 1)."""
MOST_INPUTS = 300
"""Of wider contracts no column is named: the time grows with the square, and at 300 it is about a second."""
LIFTED = 0.2
"""By so much it rises without a column that is to blame: .41 and more of one with its sign turned that matters, about
.1 at most where labels are random."""
COMPARE = (
    "compare unit, scale, sign and mapping to the contract with the other members'; if the values are right, nothing "
    "need be done"
)
"""What to do about `columns_said`."""


def columns_off(contract: FeatureContract, probe: Probe) -> tuple[str, ...]:
    """The contract's columns whose values, in the held-out legitimate rows, lie `FAR` from the consortium's."""
    rows = probe.held_out.reshape(-1, contract.width)
    if len(probe.labels):
        rows = rows[probe.labels == 0]
    if len(rows) < LEAST_LEGITIMATE:
        return ()
    typical = np.abs(rows, dtype=np.float64).mean(axis=0)
    return tuple(name for name, inputs in _inputs(contract) if typical[inputs].max() >= FAR)


def tells_apart(spec: ModelSpec, probe: Probe, models: NDArray[np.float32]) -> float | None:
    """How often the median of what `models` [k, d] say is higher of an own fraud than of an own legitimate row.

    None with too few rows of one kind to say, and of autoencoders, which know no frauds. Where hardly any row is
    legitimate, 0 if frauds are taken for legitimate ones.
    """
    real = (len(probe.held_out) + len(probe.frauds)) // spec.inputs
    fraud = np.ones(real, bool)
    fraud[: len(probe.labels)] = probe.labels == 1
    known = len(probe.labels) == len(probe.held_out) // spec.inputs
    if spec.kind != "mlp" or not known or fraud.sum() < LEAST_OF_EACH or len(probe.labels) < LEAST_OF_EACH:
        return None
    said = np.median(probe.scores(spec, models)[:, :real], axis=0)
    theirs, others = said[fraud], said[~fraud]
    if len(others) < LEAST_OF_EACH:
        return 0.0 if theirs.mean() < KNOWN else None
    return float(np.mean((theirs[:, None] > others) + 0.5 * (theirs[:, None] == others)))


def column_to_blame(contract: FeatureContract, spec: ModelSpec, probe: Probe, models: Sequence[Vector]) -> str | None:
    """The column without which the others' median model would tell own frauds far better, if one is."""
    if spec.inputs > MOST_INPUTS:
        return None
    middle = coordinate_median(models)[None]
    told = tells_apart(spec, probe, middle) or 0.0
    found = {
        name: tells_apart(spec, _without(probe, inputs, spec.inputs), middle) or 0.0
        for name, inputs in _inputs(contract)
    }
    best = max(found, key=found.__getitem__)
    return best if found[best] >= told + LIFTED else None


def columns_said(contract: FeatureContract, probe: Probe) -> str | None:
    """`columns_off` as a sentence; None where there are none."""
    if not (names := columns_off(contract, probe)):
        return None
    columns = ("column " if len(names) == 1 else "columns ") + ", ".join(map(repr, names))
    return f"{columns}: this bank's values lie far from the consortium's"


def tell_columns(problems: Problems, contract: FeatureContract, probe: Probe) -> list[Effect]:
    """Tell the operator which columns of a new reading lie elsewhere."""
    said = columns_said(contract, probe)
    if said is None:
        return problems.clear("COLUMNS_UNLIKE")
    return problems.raise_("COLUMNS_UNLIKE", "warning", said, COMPARE)


class Labels:
    """What the others' models say of own labels, from one look to the next."""

    def __init__(self, contract: FeatureContract, spec: ModelSpec, problems: Problems) -> None:
        self._contract, self._spec, self._problems = contract, spec, problems
        self._doubted: Probe | None = None
        """The rows of the last look, if the others could not tell its frauds from its legitimate rows."""

    def look(self, probe: Probe, models: list[Vector]) -> list[Effect]:
        """Tell the operator that the others' models do not tell own frauds from legitimate rows, and by which column.

        At once where a column is to blame, else at the second look in a row: models may have learned little yet. It
        stands while the rows are these, for the others learn, round by round, to live with what is wrong here.
        """
        before, stands = self._doubted, "FRAUDS_UNLIKE" in self._problems
        if stands and before is not None and _same_rows(before, probe):
            return []
        told = _told(self._spec, probe, models)
        self._doubted = probe if told is not None and told < TOLD_APART else None
        if told is None or told >= TOLD_APART:
            return self._problems.clear("FRAUDS_UNLIKE")
        column = column_to_blame(self._contract, self._spec, probe, models)
        if column is None and before is None and not stands:
            return []
        message = "the other members' models do not tell this bank's frauds from its legitimate payments"
        hint = "check which payments the labels call fraud, and the mapping of the columns to the contract"
        if column is not None:
            message += f"; without column {column!r} they would"
            hint = f"compare sign, unit and mapping of column {column!r} with the other members', then the labels"
        return self._problems.raise_("FRAUDS_UNLIKE", "warning", message, hint)


def _told(spec: ModelSpec, probe: Probe, models: list[Vector]) -> float | None:
    """`tells_apart` of the models together; of two by the better one, for one that lies must not decide alone."""
    if len(models) < 2:
        return None
    views = [np.stack(models)] if len(models) > 2 else [model[None] for model in models]
    told = [tells_apart(spec, probe, view) for view in views]
    said = [one for one in told if one is not None]
    return max(said) if len(said) == len(told) else None


def _same_rows(one: Probe, other: Probe) -> bool:
    return np.array_equal(one.held_out, other.held_out) and np.array_equal(one.labels, other.labels)


def _inputs(contract: FeatureContract) -> Iterator[tuple[str, slice]]:
    """Each column's name and its model inputs."""
    start = 0
    for column in contract.columns:
        yield column.name, slice(start, start + column.width)
        start += column.width


def _without(probe: Probe, inputs: slice, width: int) -> Probe:
    """The probe's real rows with the consortium's mean, or no known level, in the place of some inputs."""

    def cut(rows: Vector) -> Vector:
        left = rows.reshape(-1, width).copy()
        left[:, inputs] = 0
        return left.ravel()

    return replace(probe, held_out=cut(probe.held_out), frauds=cut(probe.frauds), imagined=probe.imagined[:0])
