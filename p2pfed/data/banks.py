"""One table of payments -> the rows of many banks at once: what each would load from its own share, in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from p2pfed.config import DataSection, ParquetSource
from p2pfed.core.contract import FeatureContract, Moments, Scaler
from p2pfed.core.rows import BankRows, Rows
from p2pfed.data import files, synthetic
from p2pfed.data.describe import propose_contract
from p2pfed.data.features import contract_moments, legitimate_per_day, model_inputs, split_keys, told
from p2pfed.data.leaks import check_leaks
from p2pfed.data.partition import MIN_BANK_ROWS, deal, dealing, holdout
from p2pfed.data.sources import check_columns, chosen
from p2pfed.data.split import TEST, TRAIN, VALIDATION, Index, Owners, each_by_time, each_stratified, gate_rows
from p2pfed.data.table import Table, read_table
from p2pfed.data.unusual import unusual as make_unusual
from p2pfed.errors import DataError

PARTS = (TRAIN, VALIDATION, TEST)
ODD_FRAUDS = 0.25
"""Most of the odd bank's rows that are fraud."""


@dataclass(frozen=True)
class Payments:
    """All payments of an experiment, and what their columns are."""

    frame: pd.DataFrame
    label: str
    time: str | None
    split: Literal["stratified", "time"]
    dealing: str
    """How they are dealt to banks, as `partition` reads it."""
    drop: tuple[str, ...]
    """Columns that are no features, besides label and time."""

    def dealt(self, how: str) -> Payments:
        """The same dealt otherwise; a column that deals them is no feature. Raises UsageError."""
        kind, argument = dealing(how)
        drop = (*self.drop, str(argument)) if kind == "by" else self.drop
        return replace(self, dealing=how, drop=tuple(dict.fromkeys(drop)))


@dataclass(frozen=True)
class OddBank:
    """One bank unlike the others: few rows, and customers of another kind."""

    bank: int
    rows: int
    shift: float
    """Legitimate rows are moved by so many deviations a numeric feature, along one random direction."""


@dataclass(frozen=True)
class LoadedBanks:
    """The rows of each bank, as its own trainer would load them; all share the pooled test."""

    banks: tuple[BankRows, ...]
    contract: FeatureContract
    dropped: dict[str, int]
    """Rows left out, by cause; those of an odd bank and beyond `test_rows` were meant to be."""


def read_payments(
    path: Path, label: str, time: str | None, split: Literal["stratified", "time"], how: str, drop: Sequence[str] = ()
) -> Payments:
    """The payments of a CSV or Parquet file; raises DataError, UsageError."""
    frame = files.read(path)
    check_columns(list(frame.columns), [label], str(path))
    return Payments(frame, label, time, split, how, chosen(list(frame.columns), drop, str(path))).dealt(how)


def generated_payments(rows: int, banks: int, seed: int, unusual: bool = False) -> Payments:
    """Generated payments, each at the bank it was made for; with `unusual` banks as `data.unusual` makes them."""
    frame = synthetic.generate(rows, banks, seed)
    if unusual:
        frame = make_unusual(frame, seed)
    drop = (synthetic.BANK, *synthetic.IDENTIFIERS)
    return Payments(frame, synthetic.LABEL, synthetic.EVENT_TIME, "time", f"by:{synthetic.BANK}", drop)


def load_banks(
    payments: Payments,
    count: int,
    *,
    seed: int,
    clip: float,
    test_share: float = 0.3,
    gap_days: float = 0.0,
    own_test_share: float = 0.1,
    min_rows: int = MIN_BANK_ROWS,
    test_rows: int = 0,
    odd: OddBank | None = None,
) -> LoadedBanks:
    """Hold out the pooled test, deal the rest to `count` banks, split and scale each bank's rows.

    The same shards, splits, contract and inputs as of a cluster of real banks, each with a file of its own and a join
    request. The pooled test is cut to `test_rows` (0 keeps all), drawn within each class. Raises DataError, UsageError.
    """
    p = payments
    rest, test, left_out = holdout(p.frame, p.label, p.split, p.time, test_share, gap_days, seed, p.drop)
    owners = deal(rest, p.label, count, p.dealing, seed, min_rows)
    columns = propose_contract(rest, p.label, p.drop, p.time)
    # the rows are at hand: nothing is read from the source named here
    nowhere = ParquetSource(kind="parquet", path=Path("payments.parquet"))
    data = DataSection(
        source=nowhere, label=p.label, event_time=p.time, split=p.split, test_share=own_test_share, seed=seed
    )
    table = read_table(data, columns, 0.0, source=rest)
    check_leaks(table, columns)
    held_out = read_table(data, columns, 0.0, source=test)
    owners = owners[table.positions]
    counts = Counter(left_out) + Counter(table.dropped) + Counter(held_out.dropped)
    counts += Counter({"in no bank": int((owners < 0).sum())})
    if odd is not None:
        owners = _make_odd(table, owners, odd, seed)
    dealt = _Dealt.of(table, owners, count, data)
    scale = contract_moments([dealt.moments(bank) for bank in range(count)])
    contract = FeatureContract(columns, p.label, "contract", scale, clip)
    pooled = _take(held_out, _drawn(held_out.labels, test_rows, seed), contract)
    return LoadedBanks(dealt.banks(contract, pooled), contract, dict(counts))


@dataclass(frozen=True)
class _Dealt:
    """The rows that banks have, bank after bank, and in each its training, validation and test rows in this order."""

    table: Table
    bounds: Index
    """[banks, 4]: where each bank's parts begin, and where the last ends."""

    @classmethod
    def of(cls, table: Table, owners: NDArray[np.intp], count: int, data: DataSection) -> _Dealt:
        """Split each bank's rows as it would itself. Raises DataError where a part cannot serve."""
        table, owners = _rows_of(table, np.flatnonzero(owners >= 0)), owners[owners >= 0]
        parts = _split(table, Owners(owners, count), data)
        cells = len(PARTS) * owners + parts
        sizes = np.bincount(cells, minlength=len(PARTS) * count)
        frauds = np.bincount(cells, weights=table.labels, minlength=len(PARTS) * count)
        _check_parts(sizes.reshape(count, -1), frauds.reshape(count, -1))
        ends = np.cumsum(sizes).reshape(count, -1)
        bounds = np.column_stack([np.append(0, ends[:-1, -1]), ends])
        return cls(_rows_of(table, np.argsort(cells, kind="stable")), bounds)

    def moments(self, bank: int) -> Moments:
        """What the bank's join request would tell of its training rows."""
        start, stop = self.bounds[bank, :2]
        # columns along the fast axis: summed in the order in which a bank sums each of its columns
        columns = np.ascontiguousarray(self.table.numeric[start:stop].T, np.float64)
        return told(np.nanmean(columns, axis=1), np.nanstd(columns, axis=1))

    def banks(self, contract: FeatureContract, pooled: Rows) -> tuple[BankRows, ...]:
        """Every bank's scaled rows: views of one array."""
        everything = _take(self.table, np.arange(len(self.table)), contract)
        times, labels = self.table.times, self.table.labels
        made = []
        for start, validation, test, stop in self.bounds.tolist():
            own = slice(validation - start, test - start)
            per_day = 0.0 if times is None else legitimate_per_day(times[start:stop], labels[start:stop], own)
            cuts = (slice(start, validation), slice(validation, test), slice(test, stop))
            train, chosen_on, own_test = (Rows(everything.features[cut], everything.labels[cut]) for cut in cuts)
            chosen = gate_rows(labels, times, np.arange(start, validation), np.arange(validation, test))
            gate = Rows(everything.features[chosen], everything.labels[chosen])
            made.append(BankRows(train, chosen_on, own_test, pooled, per_day, gate))
        return tuple(made)


def _split(table: Table, owners: Owners, data: DataSection) -> NDArray[np.int8]:
    shares = data.validation_share, data.test_share
    if data.split == "time" and table.times is not None:
        return each_by_time(table.times, owners, *shares, data.gap_days)
    return each_stratified(split_keys(table), table.labels, owners, *shares, data.seed)


def _check_parts(sizes: NDArray[Any], frauds: NDArray[Any]) -> None:
    """Raise DataError naming the first bank without rows to learn or choose from, or with nothing but fraud there."""
    for part, name in ((TRAIN, "training"), (VALIDATION, "validation")):
        if len(empty := np.flatnonzero(sizes[:, part] == 0)):
            bank, rows = int(empty[0]), int(sizes[empty[0]].sum())
            raise DataError(f"bank-{bank + 1}: its {rows} usable rows leave none for {name}; give each bank more rows")
        if len(full := np.flatnonzero(frauds[:, part] == sizes[:, part])):
            bank = int(full[0])
            raise DataError(
                f"bank-{bank + 1}: all of its {int(sizes[bank, part])} {name} rows are fraud; deal otherwise"
            )


def _make_odd(table: Table, owners: NDArray[np.intp], odd: OddBank, seed: int) -> NDArray[np.intp]:
    """`owners` with all but `odd.rows` of the odd bank's rows taken away, and in place its legitimate rows moved."""
    mine = np.flatnonzero(owners == odd.bank)
    if len(mine) < odd.rows:
        raise DataError(f"odd: bank-{odd.bank + 1} was dealt {len(mine):,} rows: at most so many fit, not {odd.rows:,}")
    rng = np.random.default_rng([seed, odd.bank])
    mine = rng.permutation(mine)
    fraud = table.labels[mine] == 1
    frauds = mine[fraud][: int(odd.rows * ODD_FRAUDS)]
    legitimate = mine[~fraud][: odd.rows - len(frauds)]
    direction = rng.standard_normal(table.numeric.shape[1])
    direction /= max(float(np.sqrt(np.mean(direction**2))), 1e-12)
    move = odd.shift * direction * np.nanstd(table.numeric, axis=0, dtype=np.float64)
    table.numeric[legitimate] += move.astype(np.float32)
    owners = np.where(owners == odd.bank, -1, owners)
    owners[frauds] = owners[legitimate] = odd.bank
    return owners


def _drawn(labels: NDArray[np.float32], rows: int, seed: int) -> Index:
    """At most `rows` row numbers (0: all), ascending, each class in its share."""
    if not 0 < rows < len(labels):
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    classes = [rng.permutation(np.flatnonzero(labels == label)) for label in (1, 0)]
    frauds = max(round(rows * len(classes[0]) / len(labels)), min(1, len(classes[0])))
    return np.sort(np.concatenate([classes[0][:frauds], classes[1][: rows - frauds]]))


def _rows_of(table: Table, index: Index) -> Table:
    return replace(
        table,
        numeric=table.numeric[index],
        codes=table.codes[index],
        labels=table.labels[index],
        times=None if table.times is None else table.times[index],
        positions=table.positions[index],
    )


def _take(table: Table, index: Index, contract: FeatureContract) -> Rows:
    """Scaled rows; what is missing has an indicator, and is filled with the contract's mean at every bank."""
    scaler = Scaler(contract.moments.means, contract.moments.deviations, contract.moments.means)
    return Rows(model_inputs(table.numeric[index], table.codes[index], contract, scaler), table.labels[index])
