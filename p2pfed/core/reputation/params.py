"""Every number that reputation goes by, with its unit, what raising it does, and the measurement that it rests on.

Where a measurement is named, the number was chosen by it; the others are older and rest on the attack tables of ulb and
handbook alone. From now on numbers are chosen on ulb, handbook and weak with seeds 0 to 4, and confirmed once on other
sets (see `scripts/bench_differences.py`) and in the simulated year with attackers. What each does
`scripts/bench_ablation.py` measures: switched off, at half and at double.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class ReputationParams:
    """What makes a member suspect, and what brings it back."""

    # --- the ledger: evidence of many models ----------------------------------------------------------------------

    threshold: float = 4.0
    """Points that quarantine; half of them make suspect. A model brings at most one: so a gross attack takes four.
    Higher convicts later, and more honest banks' bad days pass."""
    forgiven: float = 0.5
    """Points that a clean model takes off at most. Higher lets who attacks every other time pass."""
    gross: float = 0.95
    """Evidence from which a model counts as gross: for who attacks now and then, all of whose models gather points."""
    gross_forgiven: float = 0.1
    """Points of gross models that every other model takes off. Higher lets rarer attacks pass: now one model in ten."""
    faults_kept: float = 0.9
    """Share of the faults that a model leaves: what breaks the protocol once a day is forgiven."""
    release: int = 10
    """Clean models in a row that end a first quarantine; each further one takes twice as many. Lower lets attackers
    that behave in quarantine back sooner, higher keeps honest ones in for longer."""
    strike_models: int = 1000
    """Models after which half of the quarantines are forgotten: a bank with a bad month a year ago is a new bank."""
    lately: int = 8
    """Rounds whose members tell whether it is this node that is odd. Fewer leave too few to ask in a large consortium,
    more ask what members were like before."""
    returned: int = 8
    """Models that `apart` spares. 4 and 16 do as well in seven scenarios of tests/sim/swarm.py that need it."""
    idle: int = 3
    """So often in a row a model may bring nothing: the one before again, or this node's own."""

    # --- the yardstick: what own training does --------------------------------------------------------------------

    memory: float = 0.8
    """Of the moving averages of own training, a round. Higher follows a learning rate that decays more slowly."""
    window: int = 8
    """Merges that brought models, of which what is usual among members is the median."""
    least_moved: float = 1e-3
    """A round of own training moves at least this share of the model's norm, and changes predictions by at least
    `least_changed`: who has learned all it can must not find everybody far."""
    least_changed: float = 0.03
    """Mean difference of fraud probabilities."""
    near: float = 0.3
    """Own rounds within which a model is taken for this node's own, which says nothing of what is usual."""
    novelty: float = 0.02
    """Own rounds within which a model is taken for its sender's last."""
    imagine_every: int = 8
    """Rounds between two looks for imagined frauds. Fewer cost time."""

    # --- the assessment: evidence of one model --------------------------------------------------------------------

    usual_distance: tuple[float, float, float] = (2.0, 1.6, 4.0)
    """Own rounds: the least that is taken for the usual distance, what it is until it is known, and the most: who is
    far from all must not find everything near. Higher ones let attackers farther away."""
    usual_disagreement: tuple[float, float, float] = (1.0, 1.5, 6.0)
    """The same for predictions."""
    steadied: int = 6
    """Values of the middle of these that are added to those seen."""
    distance_doublings: float = 1.0
    """Doublings beyond the usual distance that are still fine."""
    disagreement_doublings: float = 1.75
    """Doublings beyond the usual disagreement that are still fine."""
    recognition_halvings: float = 1.5
    """So many times half of the usual may a model know of own frauds."""
    few_rows_doublings: float = 2.0
    """Doublings more for a bank with so many times fewer rows: with a few hundred it moves three times as far."""
    few_rows_from: float = 2.0
    """Times that a bank has half of the usual rows from which on it may be of another opinion by as much more. From 0
    on (chosen against, on ulb and handbook) four or five of 36 pairs of dissensus attackers that are caught are not,
    from 1 on three; without it, all others quarantine a bank of 220 rows whose customers are of another kind."""
    felt: float = 0.25
    """Least share of a distance that counts, however little it changes predictions: a model with its hidden units in
    another order predicts the same from far away, as no honest one does."""
    felt_at: float = 2.0
    """Own rounds by which predictions differ where all of a distance counts. Were it one, banks with shifted columns
    would quarantine each other after some months (bench_year.py, seed 1), and gross attacks on weights would be caught
    a little more often."""
    unknown: float = 0.05
    """Added to fraud probabilities before they are compared: between a hundredth and a thousandth nobody differs."""
    rates: float = 12.0
    """Times by which base rates may differ: up to there what another rate explains is taken off a disagreement. Beyond,
    a member may disagree by as many times more as the two join requests' rates differ by more, and be as many times
    farther as its rate differs from the usual one by more. Of 3,235 honest pairs one is wronged so, and 168 without
    (bench_differences.py, Dirichlet .1 and 1 on ulb, handbook and weak, five seeds); attackers that lie about their
    rate are caught less, and nobody is let in without an admin who read it."""
    rate_doublings: float = 3.0
    """Doublings that this, and `rarer`, allow at most. Two leave 15 of 77 pairs wronged that three do not (handbook,
    Dirichlet .1, seed 2); without a limit three of 144 pairs of label flippers are not caught (ulb, Dirichlet 1)."""
    rarer: float = 8.0
    """Times by which frauds may be rarer at a member than usual before it may know so many times less of them: of
    100,000 rows of which 7 are frauds nobody learns much. From 4 on, five of 144 pairs of scaled attackers are not
    caught (ulb, Dirichlet 1); from 12 on, five of 264 honest pairs are wronged in the place of one (handbook, Dirichlet
    .1)."""
    rate_spread: float = 1.0
    """Standard deviation up to which the difference of log odds is taken for the same on all rows. It was .4 to .6 for
    banks with 8 and 12 times the others' rate, 1.6 to 5 for dissensus, stale and scaled attackers (10th to 90th
    percentile of the models that would have been evidence; bench_differences.py on weak and weak2, bench_poisoning.py
    on ulb, seed 0)."""

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raise ValueError, naming the field, unless every number can be gone by."""
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            least, most = _LIMITS.get(field.name, (0.0, math.inf))
            if not all(math.isfinite(number) and least <= number <= most for number in numbers):
                raise ValueError(f"{field.name} is from {least:g} to {most:g}, not {value}")
            if isinstance(value, tuple) and list(value[::2]) != sorted(value[::2]):
                raise ValueError(f"{field.name} has its least, {value[0]:g}, above its most, {value[2]:g}")


_LIMITS = {
    **dict.fromkeys(("threshold", "unknown", "felt_at"), (1e-9, math.inf)),
    **dict.fromkeys(("release", "strike_models", "lately", "idle", "window", "steadied", "rates"), (1, math.inf)),
    "rarer": (1, math.inf),
    "imagine_every": (1, math.inf),
    **dict.fromkeys(("forgiven", "gross", "faults_kept", "memory", "felt"), (0.0, 1.0)),
}
"""Least and most of what may not be any number from 0."""

STANDARD = ReputationParams()
"""What every node goes by."""
