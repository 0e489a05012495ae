"""Honest banks that differ from the others, made of generated payments: what a reputation must convict nobody for."""

from __future__ import annotations

import numpy as np
import pandas as pd

from p2pfed.core.types import DAY
from p2pfed.data.synthetic import BANK, EVENT_TIME, LABEL
from p2pfed.errors import UsageError

KINDS = ("frauds", "customers", "tiny", "huge", "season")
"""What bank 0 to 4 are: with eight times the others' share of frauds; with customers who spend four times as much; with
some 300 payments; with four times the others' payments; open in one week of four. All others are usual."""
FEWEST_BANKS = 2 * len(KINDS) + 1
"""Fewer than half of the banks are unusual, or it would be the others that are."""
FRAUD_TIMES, SPENDS, TINY, HUGE, WEEKS = 8, 4.0, 300, 4, 4
AMOUNTS = ("amount", "customer_mean_7d", "terminal_mean_7d")


def unusual(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Those of `synthetic.generate`'s payments that such banks would have, the first ones by `KINDS`.

    About a third of the payments stays: who is beside a huge bank is small. Raises UsageError.
    """
    banks = int(frame[BANK].max()) + 1
    if banks < FEWEST_BANKS:
        raise UsageError(f"of {banks} banks too many would be unusual: say {FEWEST_BANKS} or more")
    draw = np.random.default_rng(seed).random(len(frame))
    bank, legitimate = frame[BANK].to_numpy(), frame[LABEL].to_numpy() == 0
    kept = (bank == KINDS.index("huge")) | (draw < 1 / HUGE)
    many = bank == KINDS.index("frauds")
    kept[many] = np.where(legitimate, draw < 1 / (HUGE * FRAUD_TIMES), draw < 1 / HUGE)[many]
    season = bank == KINDS.index("season")
    week = (frame[EVENT_TIME].to_numpy() - frame[EVENT_TIME].min()) // (7 * DAY)
    kept[season] = (week % WEEKS == 0)[season]
    tiny = np.flatnonzero(bank == KINDS.index("tiny"))
    kept[tiny] = False
    kept[tiny[np.argsort(draw[tiny])[:TINY]]] = True
    found = frame[kept].reset_index(drop=True)
    rich = found[BANK] == KINDS.index("customers")
    for column in AMOUNTS:
        found[column] = found[column].where(~rich, found[column] * SPENDS)
    return found
