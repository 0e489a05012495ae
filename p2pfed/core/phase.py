"""What a node is waiting for."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """What the node is waiting for."""

    LOADING = "loading"  # the trainer is not ready
    MEETING = "meeting"  # a late joiner looks for a model to adopt
    CATCHING_UP = "catching_up"  # free-running: merging before publishing, after an absence; else measuring a median
    PAUSED = "paused"  # the round, or the round interval, is not over
    TRAINING = "training"
    RESTING = "resting"  # between two cycles of the calendar
    CLOSING = "closing"  # free-running: the configured rounds are done; merging what slower members still publish
    FINISHED = "finished"  # the configured rounds are done
    STOPPED = "stopped"
