"""What a merge rule sees, what it answers, and what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector


class Candidate(NamedTuple):
    """One peer's model as a merge sees it; its vector float32 [d] is finite and never written to."""

    member: NodeId
    vector: Vector
    rows: int
    """Training rows the member claims."""
    waited: int
    """Own merges since this version arrived, counted here and never taken from the sender; 0 is new."""
    trust: float = 1.0
    """What the reputation leaves of its weight, in (0, 1]; only `clip` heeds it."""


@dataclass(frozen=True)
class Merged:
    """The model after a merge."""

    vector: Vector
    weights: dict[NodeId, float]
    """Each candidate's share; the rest, up to 1, is the node's own."""
    displacement: float
    """How far the merge moved the model (Euclidean)."""

    @property
    def own_weight(self) -> float:
        """The share of the node's own model."""
        return 1.0 - sum(self.weights.values())


@runtime_checkable
class AggregationRule(Protocol):
    """A merge rule with its memory. Candidates come in any order and their order must not matter."""

    name: str

    def note_training(self, before: Vector, after: Vector) -> None:
        """Learn how far local training moves this node: the model before and after one round of it."""
        ...

    def merge(self, own: Vector, rows: int, candidates: Sequence[Candidate]) -> Merged:
        """Merge into `own` (trained on `rows` rows); writes to no input, answers `own` itself without candidates."""
        ...

    def state(self) -> bytes:
        """The memory as JSON, for the checkpoint."""
        ...

    def restore(self, state: bytes) -> None:
        """Go on from `state()` of an earlier process; raises StateCorrupt if the bytes are none.

        Another rule's state is ignored: the manifest may have changed the rule since the checkpoint.
        """
        ...


@dataclass(frozen=True)
class RuleState:
    """What a rule leaves in a checkpoint: its name and, as JSON, its memory."""

    rule: str
    memory: str
