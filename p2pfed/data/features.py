"""A bank's rows -> model inputs, through the consortium's feature contract."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from p2pfed.config import DataSection, ParquetSource
from p2pfed.core.consortium import Declared
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments, Scaler
from p2pfed.core.joining import declaration
from p2pfed.core.rows import BankRows, Rows
from p2pfed.core.types import DAY
from p2pfed.data import gaps, parsing
from p2pfed.data.leaks import check_leaks, pairs
from p2pfed.data.reading import UNSEEN_SHARE, Reading
from p2pfed.data.split import Index, Parts, by_time, gate_rows, row_keys, stratified
from p2pfed.data.table import Table, bank_columns, mature_until, read_features, read_table
from p2pfed.errors import DataError

MOMENT_BOUND = 1e12
"""Means and deviations in a join request stay within this, whatever the rows hold."""


@dataclass(frozen=True)
class Matured:
    """Payments whose labels have matured since the reading before, unscaled: each model has a scaler of its own."""

    columns: tuple[FeatureColumn, ...]
    numeric: NDArray[np.float32]
    """[n, numeric columns], as `Table.numeric`."""
    codes: NDArray[np.int32]
    """[n, categorical columns]."""
    labels: NDArray[np.float32]
    """[n]: 1 fraud, 0 legitimate."""
    times: NDArray[np.float64]
    """[n] Unix seconds."""

    def __len__(self) -> int:
        return len(self.labels)

    def fits(self, contract: FeatureContract) -> bool:
        """Whether a model of `contract` takes these columns."""
        return contract.columns == self.columns

    def inputs(self, contract: FeatureContract, scaler: Scaler, chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Model inputs float32 [m, contract.width] of the `chosen` ones [n], as a model with that scaler takes them."""
        return model_inputs(self.numeric[chosen], self.codes[chosen], contract, scaler)


@dataclass(frozen=True)
class LoadedBank:
    """A bank's rows as arrays, the scaler they were made with, and what happened on the way (plain JSON values)."""

    rows: BankRows
    scaler: Scaler
    report: dict[str, Any]
    reading: Reading
    """What was read, to be compared with the next time."""
    matured: Matured


def load_bank(
    data: DataSection, contract: FeatureContract, now: float, matured_since: float | None = None
) -> LoadedBank:
    """Read, check, split and scale a bank's rows.

    `now` (Unix seconds) decides which payments are in the window and which labels are mature. `matured_since` is
    `Reading.mature_until` of the reading before; without it nothing counts as newly matured. Raises DataError where
    the rows do not fit, and what `sources.read_chunks` raises.
    """
    begin = time.perf_counter()
    table = read_table(data, contract.columns, now)
    _check_levels(table, data)
    if data.leak_alarm:
        check_leaks(table, contract.columns)
    parts = _split(table, data)
    _check_classes(table, parts, data)
    own = _statistics(table, parts.train, contract.columns)
    scaler = _fit(own, contract)
    train, validation, own_test = (
        _rows(table, index, contract, scaler) for index in (parts.train, parts.validation, parts.test)
    )
    pooled = _rows(table, np.empty(0, np.intp), contract, scaler)
    if data.pooled_test is not None:
        source = ParquetSource(kind="parquet", path=data.pooled_test)
        unaged = data.model_copy(update={"label_maturity_days": 0.0, "window_days": 0.0})
        held_out = read_table(unaged, contract.columns, now, source=source)
        pooled = _rows(held_out, np.arange(len(held_out)), contract, scaler)
    per_day = 0.0 if table.times is None else legitimate_per_day(table.times, table.labels, parts.validation)
    at_gate = gate_rows(table.labels, table.times, parts.train, parts.validation)
    rows = BankRows(train, validation, own_test, pooled, per_day, _rows(table, at_gate, contract, scaler))
    units = contract.units(told(own.means, own.deviations))
    reading = _reading(table, data, contract, units, now, matured_since, time.perf_counter() - begin)
    return LoadedBank(rows, scaler, _report(table, parts, rows), reading, _matured(table, contract, matured_since))


def transform(frame: pd.DataFrame, data: DataSection, contract: FeatureContract, scaler: Scaler) -> NDArray[np.float32]:
    """Model inputs float32 [n, contract.width] of the bank's own `frame`; needs neither label nor event_time.

    A row that lacks a value is all NaN under `missing: drop`. Raises DataError like `load_bank`.
    """
    features = read_features(frame, data, contract.columns)
    lacking = features.empty | features.infinite
    numeric = np.where(np.isfinite(features.numeric), features.numeric, np.float32(np.nan))
    inputs = model_inputs(numeric, features.codes, contract, scaler)
    if data.missing == "drop":
        inputs[lacking] = np.nan
    return inputs


class Told(NamedTuple):
    """What a join request tells the others of a bank's training rows, and nothing but these numbers."""

    moments: Moments
    """Mean and deviation of the numeric columns after their transform."""
    declared: Declared
    """How many rows there are and how many of them are frauds."""
    notes: tuple[str, ...]
    """What this bank is to know of its rows; nobody else is told."""


def declared(data: DataSection, columns: Sequence[FeatureColumn], now: float) -> Told:
    """What this bank's join request tells of its rows. Raises like `load_bank`."""
    table = read_table(data, columns, now)
    _check_levels(table, data)
    suspects = []
    if data.leak_alarm:
        check_leaks(table, columns)
        suspects = list(pairs(table, columns))
    parts = _split(table, data)
    own = _statistics(table, parts.train, columns)
    frauds = int(table.labels[parts.train].sum())
    return Told(
        told(own.means, own.deviations), declaration(len(parts.train), frauds), (*suspects, *_table_notes(table))
    )


def told(means: NDArray[np.float64], deviations: NDArray[np.float64]) -> Moments:
    """The moments as a join request may carry them."""
    means, deviations = np.clip(means, -MOMENT_BOUND, MOMENT_BOUND), np.clip(deviations, 0, MOMENT_BOUND)
    return Moments(tuple(means.tolist()), tuple(deviations.tolist()))


def contract_moments(banks: Sequence[Moments]) -> Moments:
    """The contract's centre and scale: the median over the banks, column by column; a constant column is not scaled.

    The median holds as long as fewer than half of the banks lie. Raises ValueError without banks, or if they differ
    in length.
    """
    if not banks or len({len(b.means) for b in banks} | {len(b.deviations) for b in banks}) != 1:
        raise ValueError("expected the moments of at least one bank, all over the same columns")
    means = np.median(np.array([b.means for b in banks]), axis=0)
    deviations = np.median(np.array([b.deviations for b in banks]), axis=0)
    deviations[~(deviations > 1e-9)] = 1.0
    return Moments(tuple(means.tolist()), tuple(deviations.tolist()))


# --- split and scale --------------------------------------------------------------------------------------------------


def _split(table: Table, data: DataSection) -> Parts:
    if data.split == "time" and table.times is not None:
        return by_time(table.times, data.validation_share, data.test_share, data.gap_days)
    return stratified(split_keys(table), table.labels, data.validation_share, data.test_share, data.seed)


def split_keys(table: Table) -> NDArray[np.uint64]:
    """uint64 [n]: what the stratified split knows rows by. Not the label: a late chargeback must not move its row."""
    columns: list[NDArray[Any]] = [table.numeric, table.codes]
    if table.times is not None:
        columns.append(table.times)
    return row_keys(*columns)


def _check_classes(table: Table, parts: Parts, data: DataSection) -> None:
    """Raise DataError where a part cannot serve. No fraud at all passes: that bank listens."""
    if table.labels.all():
        raise DataError(f"all {len(table)} usable rows are fraud; check that {data.label!r} is the label, 1 for fraud")
    for name, index in (("training", parts.train), ("validation", parts.validation)):
        if not len(index):
            raise DataError(f"the split leaves no {name} rows of {len(table)}; more rows or other shares are needed")
        if table.labels[index].all():
            raise DataError(f"after the {data.split} split all {len(index)} {name} rows are fraud; split otherwise")


def _check_levels(table: Table, data: DataSection) -> None:
    """Raise DataError for a column of which no row has a level of the contract: another column, or other codes."""
    for name, unknown in table.unknown_levels.items():
        if unknown == len(table):
            raise DataError(
                f"column {data.columns.get(name, name)!r}: none of the {unknown:,} usable rows has a level that the "
                f"contract lists for {name!r}; compare the spelling, or map another column under data.columns"
            )


class _Statistics(NamedTuple):
    """Of each numeric column over the training rows, after its transform."""

    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    medians: NDArray[np.float64]


def _statistics(table: Table, train: Index, columns: Sequence[FeatureColumn]) -> _Statistics:
    """What scaling and imputing need. Raises DataError for a column without a single number."""
    names = [c.name for c in columns if c.kind == "numeric"]
    found = np.empty((3, len(names)))
    for i, name in enumerate(names):
        # column by column: doubles of the whole table would be its largest copy
        values = table.numeric[train, i].astype(np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            raise DataError(f"column {name!r} is empty in every training row: nothing to impute it from")
        found[:, i] = values.mean(), values.std(), np.median(values)
    return _Statistics(*found)


def _fit(own: _Statistics, contract: FeatureContract) -> Scaler:
    """The contract's scale, or the bank's own under `local`; the fill is always the bank's own training median."""
    scale = contract.moments
    if contract.scaling == "local":
        scale = contract_moments([Moments(tuple(own.means.tolist()), tuple(own.deviations.tolist()))])
    return Scaler(scale.means, scale.deviations, tuple(own.medians.tolist()))


def _rows(table: Table, index: Index, contract: FeatureContract, scaler: Scaler) -> Rows:
    return Rows(model_inputs(table.numeric[index], table.codes[index], contract, scaler), table.labels[index])


def model_inputs(
    numeric: NDArray[np.float32], codes: NDArray[np.int32], contract: FeatureContract, scaler: Scaler
) -> NDArray[np.float32]:
    """Scaled, clipped numbers and 0/1 levels in contract order, float32 [n, contract.width]."""
    inputs = np.zeros((len(numeric), contract.width), np.float32)
    rows = np.arange(len(numeric))
    at = n = c = 0
    for column in contract.columns:
        if column.kind == "numeric":
            values = numeric[:, n].astype(np.float64)
            missing = np.isnan(values)
            values[missing] = scaler.fill[n]
            inputs[:, at] = np.clip((values - scaler.centre[n]) / scaler.scale[n], -contract.clip, contract.clip)
            n += 1
        else:
            known, missing = codes[:, c] >= 0, codes[:, c] == parsing.MISSING
            inputs[rows[known], at + codes[known, c]] = 1
            c += 1
        at += column.width
        if column.missing == "indicator":
            inputs[missing, at - 1] = 1
    return inputs


def legitimate_per_day(times: NDArray[np.float64], labels: NDArray[np.float32], validation: Index | slice) -> float:
    """Legitimate payments a day while the validation payments happened; 0 where that is unknown."""
    during = times[validation]
    if not len(during):
        return 0.0
    first, last = during.min(), during.max()
    if first == last:
        return 0.0
    legitimate = (times >= first) & (times <= last) & (labels == 0)
    return float(legitimate.sum() / ((last - first) / DAY))


def _reading(
    table: Table,
    data: DataSection,
    contract: FeatureContract,
    units: Mapping[str, float],
    now: float,
    since: float | None,
    seconds: float,
) -> Reading:
    own = [*bank_columns(data, contract.columns), data.label, *([data.event_time] if data.event_time else [])]
    until = None
    if table.newest is not None:
        # not back behind the last reading, lest a clock that was set back makes payments count twice
        until = max(min(mature_until(data, now), table.newest), -np.inf if since is None else since)
    unknown = tuple((name, n / len(table)) for name, n in table.unknown_levels.items())
    return Reading(
        rows=table.rows_read,
        rows_in_window=table.rows_in_window,
        immature=table.immature,
        usable=len(table),
        frauds=int(table.labels.sum()),
        oldest=table.oldest,
        newest=table.newest,
        mature_until=until,
        columns=tuple(dict.fromkeys(own)),
        unknown=unknown,
        unknown_taken=unknown,
        units=tuple(units.items()),
        units_taken=tuple(units.items()),
        read_at=now,
        seconds=seconds,
    )


def _matured(table: Table, contract: FeatureContract, since: float | None) -> Matured:
    """The usable rows that happened after `since`, whatever their part; none without a time."""
    new = np.zeros(len(table), bool)
    if table.times is not None and since is not None:
        new = table.times > since
    times = np.zeros(len(table)) if table.times is None else table.times
    return Matured(contract.columns, table.numeric[new], table.codes[new], table.labels[new], times[new])


def _report(table: Table, parts: Parts, rows: BankRows) -> dict[str, Any]:
    report: dict[str, Any] = {
        "rows_read": table.rows_read,
        "dropped": {cause: n for cause, n in table.dropped.items() if n},
        "unknown_levels": {name: n for name, n in table.unknown_levels.items() if n},
        "imputed": {name: n for name, n in table.imputed.items() if n},
    }
    if len(parts.gap):
        report["dropped"]["gap between the parts"] = len(parts.gap)
    for name in ("train", "validation", "own_test", "pooled_test"):
        part: Rows = getattr(rows, name)
        report[f"{name}_rows"], report[f"{name}_frauds"] = len(part), part.frauds
    report["notes"] = _notes(table, rows)
    return report


def _doubts_of_labels(table: Table) -> list[str]:
    """That frauds are the majority, as if the labels were turned round."""
    frauds, rows = int(table.labels.sum()), len(table)
    if 2 * frauds <= rows:
        return []
    return [f"{frauds:,} of {rows:,} usable rows are fraud: are the labels turned round? 1 means fraud"]


def _table_notes(table: Table) -> list[str]:
    """What looks wrong in the labels, in the times, and in which rows were left out for their gaps."""
    notes = [*_doubts_of_labels(table), *([f"data.event_time: {table.doubt}"] if table.doubt else [])]
    counts = (*table.gaps, len(table), int(table.labels.sum()))
    if not gaps.telling(*counts):
        return notes
    return [
        *notes,
        f"of the rows left out for an empty or infinite feature {gaps.sentence(*counts)}: what is trained on and "
        "measured is another kind of payments; write missing: impute, or let the contract give the columns that "
        "`data describe` names an indicator",
    ]


def _notes(table: Table, rows: BankRows) -> list[str]:
    notes = [
        f"column {name!r}: {n} of {len(table)} rows have a level that the contract does not list; check its spelling"
        for name, n in table.unknown_levels.items()
        if n > len(table) * UNSEEN_SHARE
    ]
    notes += _table_notes(table)
    if not rows.train.frauds:
        notes.append("no training row is fraud: this bank listens, it learns from the others and publishes nothing")
    for name in ("validation", "own_test"):
        part: Rows = getattr(rows, name)
        if len(part) and not part.frauds:
            notes.append(f"no {name} row is fraud: AUPRC and recall are undefined there")
    return notes
