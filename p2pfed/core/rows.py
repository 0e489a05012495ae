"""Scaled rows as arrays: what `data` hands to `learning`, neither knowing the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """Model inputs float32 [n, width] and labels float32 [n] (1 fraud, 0 legitimate)."""

    features: NDArray[np.float32]
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def frauds(self) -> int:
        """How many rows are fraud."""
        return int(self.labels.sum())


def _none() -> Rows:
    return Rows(np.zeros((0, 0), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True)
class BankRows:
    """One bank's rows after the split. Tests may be empty; `train` is before resampling."""

    train: Rows
    validation: Rows
    own_test: Rows
    pooled_test: Rows
    legitimate_per_day: float
    """Legitimate payments a day while the validation payments happened, for an alert budget; 0 without times."""
    gate: Rows = field(default_factory=_none)
    """What decides which model serves, where validation has few frauds: its rows, then the newest training frauds.

    Empty where validation has enough."""
