"""What `status` says of a node's learning: the calendar, what serves and what that is worth, and the payments."""

from __future__ import annotations

from typing import Any, Literal

from p2pfed.api.reply import Reply


class CycleRow(Reply):
    """A cycle that is to come."""

    cycle: int
    begins: float
    """Unix seconds."""


class LastCycle(Reply):
    """The cycle that ended last, of those that this node was up in; a restart remembers it."""

    cycle: int
    trained: int
    """Rounds of it that were trained here."""
    ended: float
    """Unix seconds."""


class Serving(Reply):
    """The model that `p2pfed score` uses."""

    cycle: int
    round: int
    """Of that cycle."""
    auprc: float | None
    """On validation rows, when it was kept."""
    since: float
    """Unix seconds."""


class Gain(Reply):
    """What serves beside a model that trains alone: on this bank's rows, as many steps, merged with nobody's."""

    auprc: float
    """By which what serves is better on validation rows."""
    serves: float
    """AUPRC of what serves."""
    alone: float
    """That of the other."""
    frauds: int
    """Among the validation rows."""
    rounds: int
    """That the other has trained, over all cycles."""
    cycle: int
    """After which it was measured."""
    seconds: float
    """How long training and measuring it took."""


class ServedRow(Reply):
    """How the payments of one day fared with what served then, each counted once when its label had matured."""

    day: str
    """UTC, as 2026-03-01."""
    rows: int
    frauds: int
    alerts: int
    auprc: float | None
    """Null without a fraud, as recall; a day whose labels matured in parts has the mean of theirs by their frauds."""
    recall: float | None
    """At the threshold that was in force, as precision."""
    precision: float | None
    model: str
    """Weights' hash (hex) of what scored most of them."""


class DataStatus(Reply):
    """What was last read of the bank's payments, also before the daemon was started anew; null is not known."""

    rows: int | None
    """What the source gave."""
    frauds: int | None
    """Among those that can be used."""
    immature: int | None
    """Rows too young for their label to be trusted."""
    newest_payment: float | None
    """Unix seconds."""
    read_at: float | None
    """Unix seconds."""
    read_seconds: float | None
    next_reading: float | None
    """Unix seconds; null while one is under way, or none is planned."""


class LearningStatus(Reply):
    """How far this node has learned."""

    state: Literal["waiting", "training", "listening", "resting", "behind", "clock_off", "finished"]
    """`waiting` for the first cycle, the trainer or the first model; `listening` trains without publishing; `resting`
    between two cycles and `finished` it only serves; `behind` it catches up with the others, and `clock_off` it does
    not know which round it is.
    """
    round: int
    """The newest round that was trained here, counted over all cycles."""
    rounds: int
    """After how many rounds training stops; 0 is never."""
    cycle: int | None
    """The cycle that is under way or was last; null before the first, and without a calendar."""
    round_of_cycle: int | None
    """The round that is under way; 0 while nodes rest."""
    rounds_of_cycle: int | None
    next_begins: float | None
    """When the next cycle begins, Unix seconds."""
    next_cycles: list[CycleRow]
    """The next three; none without a calendar."""
    last_cycle: LastCycle | None
    """Null before the first one's end, and without a calendar."""
    serves: Serving | None
    """Null before the first model, and without a calendar, where the newest one serves."""
    gain: Gain | None
    """Null before the first cycle's end, without frauds to measure on, and without a calendar."""
    data: DataStatus
    served_days: list[ServedRow]
    """The newest 30 days whose labels have matured, oldest first; none without a calendar."""
    seq: int
    train_rows: int | None
    train_frauds: int | None
    loss: float | None
    threshold: float | None
    """Of what serves."""
    metrics: dict[str, dict[str, Any]]
    """Of the newest evaluated model, by row set: `validation`, `own_test`, `test` (pooled)."""
    last_update_seconds_ago: float | None
    """Since a peer's update was accepted."""
    accepted_total: int
    merged_total: int
    """Peers' models averaged in, over all rounds."""
    rejected_total: int
