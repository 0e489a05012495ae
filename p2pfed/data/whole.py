"""Whole numbers of a column, chunk by chunk: an amount to learn from, or numbers that only tell rows apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FEW = 50
"""So many different numbers at most are kinds, whatever their order."""
IDENTIFIER_NAME = re.compile(r"(?:.*[^A-Za-z0-9])?(?:id|ids)|.*[a-z0-9]I[dD]s?", re.DOTALL)
"""Names that end in a word `id`, tried in lower case and as they are: CUSTOMER_ID and customerId, not paid."""
NUMBER_NAME = re.compile(
    r"(?:.*[^A-Za-z0-9])?(?:num|number|nr|no|index|idx|card|account|acct|iban|zip|zipcode|postcode|phone)"
    r"|.*[a-z0-9](?:Num|Number|Nr|No|Index|Idx|Card|Account|Acct|Iban|Zip|Zipcode|Postcode|Phone)",
    re.DOTALL,
)
"""Names that may mean an identifier or a count: only a count is heavy-tailed."""
UNNAMED = re.compile(r"Unnamed: \d+")
"""How a column without a name is called: mostly the row numbers of whatever wrote the file."""
UNIQUE_SHARE, UNIQUE_ROWS = 0.95, 1000
"""Whole numbers of which so many differ, among at least so many rows, are an identifier, but for amounts."""
GROWING = 0.2
"""Different numbers a row, from which on numbers that never fall are row numbers or times: their count grows with the
rows. That of ages or scores does not, by which a file may be sorted as well."""
LONG = 1e11
"""Numbers of twelve digits or more are those of cards, accounts and phones, or times."""
CONSECUTIVE = 0.9
"""Share of the steps from row to row that are 1, from which on a column numbers the rows, be it in several runs."""
HEAVY = 1.0
"""How many times as far it is from the 90th percentile to the 99th as from the 10th to the median: .2 where numbers are
evenly spread, .8 where they are normal, 2 to 4 in exponential tails and 9 and more in those of amounts."""
SKETCH = 1 << 14
"""Hashes kept to count distinct numbers: the count is exact below, and within 2.5 % above."""


@dataclass
class WholeNumbers:
    """What the chunks so far showed of a column of numbers, as long as all of them are whole."""

    count: int = 0
    whole: bool = True
    smallest: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """The smallest hashes of the numbers, sorted, each once."""
    sample: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """The numbers with these hashes, in their order: an even draw from the different ones."""
    ones: int = 0
    """Steps of 1 from a row to the next."""
    falls: int = 0
    """Steps down."""
    last: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """The chunk's last number, if there was one."""

    def add(self, finite: NDArray[np.float64]) -> None:
        """Take in the numbers of one chunk, in their order."""
        self.count += len(finite)
        self.whole = self.whole and bool((finite == np.rint(finite)).all())
        if not self.whole or not len(finite):
            return
        steps = np.diff(np.concatenate([self.last, finite]))
        self.ones += int((steps == 1).sum())
        self.falls += int((steps < 0).sum())
        self.last = finite[-1:]
        different = np.unique(np.concatenate([self.sample, finite]))
        hashes = pd.util.hash_array(different)
        kept = np.argsort(hashes, kind="stable")[:SKETCH]
        self.smallest, self.sample = hashes[kept], different[kept]

    @property
    def distinct(self) -> int:
        """How many different numbers there are, estimated by their k-th smallest hash (Bar-Yossef et al. 2002)."""
        if len(self.smallest) < SKETCH:
            return len(self.smallest)
        return min(self.count, round((SKETCH - 1) * 2.0**64 / float(self.smallest[-1])))

    @property
    def amounts(self) -> bool:
        """Whether the different numbers are heavy-tailed, as amounts and counts are and identifiers are not."""
        tenth, half, ninth, last = np.percentile(self.sample, (10, 50, 90, 99))
        return bool(last - ninth > HEAVY * (half - tenth))

    @property
    def ordered(self) -> bool:
        """Whether many numbers that are no amounts never fall from row to row: a coarse time, or the file is sorted."""
        many = self.whole and self.count >= UNIQUE_ROWS and self.distinct > FEW
        return many and not self.falls and not self.amounts

    def identifier(self, name: str) -> str:
        """Why the numbers of the column `name` are an identifier and no feature; empty if they are not."""
        if not self.whole or self.distinct < 2:
            return ""
        if UNNAMED.fullmatch(name):
            return "it has no name, as the row numbers that some programs write"
        exact = len(self.smallest) < SKETCH
        several = f"{'' if exact else 'about '}{self.distinct:,} different whole numbers in {self.count:,} rows"
        if float(np.median(np.abs(self.sample))) >= LONG:
            return f"{several}, most with twelve digits or more: an identifier, or a time that should be named as such"
        if self.distinct <= FEW:
            return ""
        if _fits(IDENTIFIER_NAME, name) or (_fits(NUMBER_NAME, name) and not self.amounts):
            return f"named as an identifier, {several}: a model would learn them by heart"
        if self.ones >= CONSECUTIVE * (self.count - 1):
            return f"{several}, most of them one more than the row before: it numbers the rows"
        if self.count < UNIQUE_ROWS or self.amounts:
            return ""
        if self.distinct >= UNIQUE_SHARE * self.count:
            return f"{several}: an identifier, or a time that should be named as such"
        if not self.falls and self.distinct >= GROWING * self.count:
            return f"{several} that never fall: they number the rows, or are a time that should be named as such"
        return ""


def _fits(pattern: re.Pattern[str], name: str) -> bool:
    return bool(pattern.fullmatch(name) or pattern.fullmatch(name.lower()))
