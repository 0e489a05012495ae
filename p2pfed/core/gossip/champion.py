"""What serves is never the last thing that was computed: when a merged model may take the champion's place.

Both are measured on the bank's own rows of now, so their difference is quiet exactly when they are equal: a fixed
tolerance, not one that grows with the noise. Where validation has few frauds, the newest training frauds join it.

Rows that chose the champion choose again only where the challenger is better by more than chance. Of sixty models held
against each other on the same few frauds one is lucky, and what served is lost for it. The price: while a bank's source
stands still, what others learn serves there only where it is worth as much. Rows that change, as a window's do every
day, are spared that: there it would keep out what has learned the newest frauds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from p2pfed.core.events import Metrics
from p2pfed.core.types import DAY

TOLERANCE = 0.005
"""AUPRC by which a challenger may be worse than the champion on the same rows."""
BEST_TOLERANCE = 0.01
"""AUPRC by which it may be worse than the best version of the last `BEST_DAYS`: against many small steps down."""
BEST_DAYS = 90
BEST_SECONDS = BEST_DAYS * DAY
PERIOD_DAYS = 10
"""Of so many days the best version is kept, to be the best of `BEST_DAYS` once better ones are older. The price of ten
measurements a cycle at most: the second best of ten days is forgotten."""
SAME = 1e-6
"""Share by which two measurements of one model on the same rows may differ: another processor adds in another order."""
FEWEST_FRAUDS = 10
"""With fewer, borrowed ones among them, AUPRC decides nothing."""
ALERT_FACTOR = 2.0
"""Then a challenger may alert on at most this many times as many payments as the champion, and on that part of them."""


@dataclass(frozen=True)
class Decision:
    """Whether the challenger serves from now on, and why, one sentence."""

    promote: bool
    why: str
    checked: bool = True
    """False where no fraud could tell good from bad, and what serves follows the merge."""


def at_the_gate(metrics: Mapping[str, Metrics]) -> Metrics:
    """Of metrics by row set the ones that decide: `gate` where validation has few frauds, else `validation`."""
    return metrics.get("gate") or metrics.get("validation", {})


def worse(kind: Literal["mlp", "autoencoder"], one: Metrics, than: Metrics, tolerance: float) -> bool:
    """Whether `one` is worse than the other on the same validation rows by more than `tolerance` (AUPRC).

    Autoencoders, and rows without frauds, are compared by their loss, which may be larger by a share of ten times the
    tolerance. What cannot be measured is worse than what can.
    """
    mine, its = one.get("auprc"), than.get("auprc")
    if kind == "mlp" and its is not None:
        return mine is None or not mine >= its - tolerance
    return _loss_worse(one, than, tolerance)


def leads(kind: Literal["mlp", "autoencoder"], one: Metrics, than: Metrics | None) -> bool:
    """Whether `one`, measured `at_the_gate`, is at least as good as the other, by what `decide` goes by."""
    unchecked = kind == "mlp" and one.get("frauds") == 0
    return than is None or unchecked or not _falls_short(kind, _few(kind, one), one, than, 0.0)


def decide(
    kind: Literal["mlp", "autoencoder"],
    challenger: Metrics,
    champion: Metrics | None,
    best: Metrics | None,
    chosen: Metrics | None = None,
) -> Decision:
    """Compare metrics `at_the_gate` on the same rows; None is a model that there is none of.

    `chosen` are the champion's by which an earlier cycle chose it, of as many banks: if they are those of now, so are
    the rows.

    With fewer than `FEWEST_FRAUDS` an MLP is held against the champion and the best by its log loss, calibrated, and
    against the champion by its alerts; with none it is not held against anything. Autoencoders need no frauds.
    """
    frauds = challenger.get("frauds") if kind == "mlp" else None
    if frauds == 0:
        said = "no fraud among validation and training rows: what serves follows the merged model unchecked"
        return Decision(True, said, checked=False)
    if champion is None:
        return Decision(True, "there was no model to serve before")
    few = _few(kind, challenger)
    said, where = _said(challenger, few), _where(challenger)
    if _falls_short(kind, few, challenger, champion, TOLERANCE):
        return Decision(False, f"{said} on {where}, what serves has {_said(champion, few)}")
    if few and (why := _other_alerts(challenger, champion)):
        return Decision(False, why)
    if best is not None and _falls_short(kind, few, challenger, best, BEST_TOLERANCE):
        return Decision(False, f"{said} on {where}, the best of {BEST_DAYS} days has {_said(best, few)}")
    if kind == "mlp" and not few and chosen is not None and _same_rows(champion, chosen):
        luck = _chance(champion)
        if not (challenger.get("auprc") or 0.0) >= (champion.get("auprc") or 0.0) + luck:
            rows = f"the {where} that chose what serves, which has {_said(champion, few)}"
            return Decision(False, f"{said} on {rows}: on the same rows again less than {luck:.4f} more is luck")
    return Decision(True, f"{said} on {where}, {_said(champion, few)} before")


def _few(kind: Literal["mlp", "autoencoder"], metrics: Metrics) -> bool:
    """Whether too few frauds were there for AUPRC to decide."""
    frauds = metrics.get("frauds") if kind == "mlp" else None
    return frauds is not None and frauds < FEWEST_FRAUDS


def _same_rows(now: Metrics, then: Metrics) -> bool:
    """Whether two measurements of one model were on the same rows: then they are equal."""
    return all(
        now.get(name) is not None and then.get(name) is not None and math.isclose(now[name], then[name], rel_tol=SAME)
        for name in ("auprc", "loss")
    )


def _chance(metrics: Metrics) -> float:
    """How far two AUPRCs differ by chance, each measured on so many frauds; 0 where nobody says how many."""
    frauds = metrics.get("frauds") or sum(metrics.get("confusion", ((), ()))[1])
    return math.sqrt(2 * metrics["auprc"] * (1 - metrics["auprc"]) / frauds) if frauds else 0.0


def _falls_short(kind: Literal["mlp", "autoencoder"], few: bool, one: Metrics, than: Metrics, tolerance: float) -> bool:
    return _loss_worse(one, than, tolerance) if few else worse(kind, one, than, tolerance)


def _loss_worse(one: Metrics, than: Metrics, tolerance: float) -> bool:
    mine, its = one.get("loss"), than.get("loss")
    return its is not None and (mine is None or not mine <= its * (1 + 10 * tolerance))


def _other_alerts(challenger: Metrics, champion: Metrics) -> str:
    """What is wrong with the challenger's number of alerts; empty where nothing is."""
    mine, its = challenger.get("alert_rate"), champion.get("alert_rate")
    if its is None or (mine is not None and its / ALERT_FACTOR <= mine <= its * ALERT_FACTOR):
        return ""
    rate = "an unknown share" if mine is None else f"{mine:.2%}"
    return (
        f"it would alert on {rate} of the payments, what serves on {its:.2%}: with {challenger['frauds']} frauds to "
        f"check it by, at most {ALERT_FACTOR:g} times as many or as few are let through"
    )


def _said(metrics: Metrics, few: bool) -> str:
    auprc, loss = metrics.get("auprc"), metrics.get("loss")
    if auprc is not None and not few:
        return f"AUPRC {auprc:.4f}"
    return "nothing measurable" if loss is None else f"loss {loss:.4g}"


def _where(metrics: Metrics) -> str:
    """The rows that both were measured on, and how far to be believed."""
    frauds, borrowed = metrics.get("frauds"), metrics.get("borrowed")
    if frauds is None:
        return "validation rows"
    among = f", {borrowed} of them trained on" if borrowed else ""
    return f"validation rows with {frauds} fraud{'s' * (frauds != 1)}{among}"
