"""Whether empty fields tell of fraud: then leaving their rows out hides frauds from training and from every test."""

from __future__ import annotations

FACTOR = 2.0
"""The share of frauds among rows with a gap may be this many times that of the others, or that part of it."""
CHANCE = 1e-3
"""Least probability of a count of frauds, binomial at the limit of what the share may be."""


def telling(gaps: int, frauds: int, others: int, other_frauds: int) -> bool:
    """Whether of `gaps` rows with a gap far more, or far fewer, are frauds than of the others (all labelled rows)."""
    from scipy.special import bdtr, bdtrc  # binomial P(X <= k) and P(X > k)

    if not gaps or not others:
        return False
    # none at all is a share too: below that of one
    share = max(other_frauds, 1) / others
    if frauds > gaps * share:
        return bool(bdtrc(frauds - 1, gaps, min(1.0, FACTOR * share)) < CHANCE)
    return other_frauds > 0 and bool(bdtr(frauds, gaps, share / FACTOR) < CHANCE)


def sentence(gaps: int, frauds: int, others: int, other_frauds: int) -> str:
    """The numbers of `telling`, in words."""
    return (
        f"{frauds:,} of {gaps:,} are frauds ({frauds / gaps:.1%}), of the other {others:,} rows {other_frauds:,} "
        f"({other_frauds / others:.1%})"
    )
