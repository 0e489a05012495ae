"""How well what served has served: payments scored, once their labels are mature, by the model of their own time.

They are scored before any model trains on them (Gama et al. 2013, prequential evaluation), and once: a reading hands
over what has matured since the one before, so that a label that is corrected later counts as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.contract import FeatureContract, Scaler
from p2pfed.core.served import ServedDay
from p2pfed.core.types import DAY
from p2pfed.learning.bundle import ModelBundle
from p2pfed.learning.metrics import average_precision, curve


class MaturedRows(Protocol):
    """Newly matured payments, before they are scaled (`LoadedBank.matured`)."""

    @property
    def labels(self) -> NDArray[np.float32]:
        """[n]: 1 fraud, 0 legitimate."""
        ...

    @property
    def times(self) -> NDArray[np.float64]:
        """[n] Unix seconds at which they happened."""
        ...

    def fits(self, contract: FeatureContract) -> bool:
        """Whether a model of `contract` can score them."""
        ...

    def inputs(self, contract: FeatureContract, scaler: Scaler, chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Model inputs float32 [m, contract.width] of the `chosen` ones of the n."""
        ...


def prequential(rows: MaturedRows, versions: Sequence[tuple[float, ModelBundle]]) -> list[ServedDay]:
    """The days of `rows` in order, each payment scored by the newest of `versions`: since when (Unix time), and what.

    Payments from before the first version are skipped, and those whose version read other columns.
    """
    versions = sorted(versions, key=itemgetter(0))
    served = np.searchsorted([since for since, _ in versions], rows.times, side="right") - 1
    scores, alerts = np.zeros(len(served)), np.zeros(len(served), bool)
    for number in np.unique(served[served >= 0]):
        bundle, chosen = versions[number][1], served == number
        if not rows.fits(bundle.contract):
            served[chosen] = -1
            continue
        found = bundle.scores(rows.inputs(bundle.contract, bundle.scaler, chosen))
        scores[chosen], alerts[chosen] = found, bundle.alerts(found)
    days = np.floor(rows.times / DAY).astype(np.int64)
    records = []
    for day in np.unique(days[served >= 0]):
        of_day = (days == day) & (served >= 0)
        # the last of equals: counted from the newest version
        most = len(versions) - 1 - int(np.argmax(np.bincount(served[of_day], minlength=len(versions))[::-1]))
        model = versions[most][1].weights_sha256
        records.append(
            _served(str(np.datetime64(int(day), "D")), rows.labels[of_day], scores[of_day], alerts[of_day], model)
        )
    return records


def _served(
    day: str, labels: NDArray[np.float32], scores: NDArray[np.float64], alerts: NDArray[np.bool_], model: str
) -> ServedDay:
    fraud = labels > 0.5
    return ServedDay(
        day,
        len(labels),
        int(fraud.sum()),
        int(alerts.sum()),
        int((fraud & alerts).sum()),
        average_precision(curve(scores, fraud)),
        model,
    )
