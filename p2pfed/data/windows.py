"""What happened before a payment, per key (a customer, a terminal of one bank): sliding windows without a loop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class History:
    """The payments of each key in order of time; answers questions about a window before each payment.

    `keys` int64 [n] >= 0 and `seconds` int64 [n] >= 0, in any order; answers are float64 [n] in that order.
    """

    def __init__(self, keys: Ints, seconds: Ints) -> None:
        # one rising number per payment: its key above, its time below, so that one search finds any window
        self._span = int(seconds.max()) + 1
        moment = keys * self._span + seconds
        self._order = np.argsort(moment, kind="stable")
        self._moment = moment[self._order]
        self._key_start = self._moment - seconds[self._order]
        self._back = np.empty(len(keys), np.intp)
        self._back[self._order] = np.arange(len(keys))

    def count(self, window: int) -> Floats:
        """Payments of the key in the last `window` seconds, this one included."""
        return self._unsorted(np.arange(1, len(self._order) + 1) - self._first_since(window))

    def mean(self, values: Floats, window: int, delay: int = 0, prior: float = 0.0, weight: float = 0.0) -> Floats:
        """Mean of `values` over `window` seconds before `delay` seconds ago, drawn to `prior` by `weight` payments.

        With a delay of 0 this payment is included; with a delay only what was known by then.
        """
        sums = np.concatenate(([0.0], np.cumsum(values[self._order])))
        stop = self._first_since(delay) if delay else np.arange(1, len(self._order) + 1)
        start = np.minimum(self._first_since(window + delay), stop)
        return self._unsorted((sums[stop] - sums[start] + prior * weight) / np.maximum(stop - start + weight, 1e-9))

    def since_previous(self, never: float) -> Floats:
        """Seconds since the key's payment before this one; `never` for its first."""
        gap = np.diff(self._moment, prepend=self._moment[0] - 1).astype(np.float64)
        gap[np.diff(self._key_start, prepend=-1) != 0] = never
        return self._unsorted(gap)

    def _first_since(self, window: int) -> NDArray[np.intp]:
        """Position of the key's first payment in the last `window` seconds."""
        return np.searchsorted(self._moment, np.maximum(self._moment - window, self._key_start))

    def _unsorted(self, values: NDArray[np.generic]) -> Floats:
        return values[self._back].astype(np.float64)
