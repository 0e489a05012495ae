"""Score payments with the model the node keeps."""

from __future__ import annotations


def score() -> None:
    """Score a file."""
