"""What a merge rule sees, what it answers, and what it promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from p2pfed.core.record import RecordError, canonical, parse
from p2pfed.core.training_scale import TrainingScale
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector
from p2pfed.errors import StateCorrupt

T = TypeVar("T")

Loss = Callable[[Vector], float]
"""How badly a model does on this node's own rows, at least 0; infinity where it cannot be computed with."""


class Candidate(NamedTuple):
    """One peer's model as a merge sees it; its vector float32 [d] is finite and never written to."""

    member: NodeId
    vector: Vector
    rows: int
    """Training rows the member claims."""
    waited: int
    """Rounds since a merge took this version first, counted here and never taken from the sender; 0 is new."""
    apart: int = 0
    """Rounds of the calendar between this model and the node's own; 0 of free-running nodes."""
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
    kept: dict[NodeId, float] = field(default_factory=dict)
    """Part of the way to a candidate that was gone; all of it where nothing is said."""

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


@runtime_checkable
class SeesLoss(Protocol):
    """A rule that also wants to know how models do on this node's own rows."""

    def see(self, loss: Loss) -> None:
        """Told once, before the first merge."""
        ...


@runtime_checkable
class KnowsTraining(Protocol):
    """A rule that measures by how far training moves this node."""

    def measure_by(self, training: TrainingScale) -> None:
        """Told once, before `restore` and the first merge. The node keeps it, and notes each round before the rule."""
        ...


class Memoryless:
    """What a rule without memory leaves in a checkpoint: its name."""

    name: str

    def note_training(self, before: Vector, after: Vector) -> None:
        """Nothing to remember."""

    def state(self) -> bytes:
        """Only the rule's name: there is no memory."""
        return with_memory(self.name, "")

    def restore(self, state: bytes) -> None:
        """Nothing to restore."""


@dataclass(frozen=True)
class _RuleState:
    rule: str
    memory: str


def with_memory(rule: str, memory: object) -> bytes:
    """The state of a rule: its name and `memory`, a dataclass, as JSON."""
    return canonical(_RuleState(rule, canonical(memory).decode() if memory else ""))


def memory_of(rule: str, kind: type[T], state: bytes) -> T | None:
    """What `rule` kept in `state`, None if another rule wrote it; raises StateCorrupt."""
    try:
        written = parse(_RuleState, state)
        return parse(kind, written.memory.encode()) if written.rule == rule else None
    except RecordError as error:
        raise StateCorrupt(f"the checkpoint's state of merge rule {rule!r} is unreadable: {error}") from None
