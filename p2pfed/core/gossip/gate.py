"""The end of a cycle: the merged model, the champion and what led it in 90 days, measured together; who serves then."""

from __future__ import annotations

from typing import Literal

from p2pfed.core.effects import Effect, Emit, KeepModel, KeptModel, StartEvaluation
from p2pfed.core.events import Metrics, ModelHeld, ModelPromoted
from p2pfed.core.gossip.champion import BEST_SECONDS, Decision, at_the_gate, decide, leads
from p2pfed.core.inputs import EvaluationFinished
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector

MERGED, CHAMPION = "gate:merged", "gate:champion"


class Gate:
    """Holds what serves. Before its first decision the best model measured so far serves."""

    def __init__(
        self,
        kind: Literal["mlp", "autoencoder"],
        champion: KeptModel | None,
        leaders: tuple[KeptModel, ...] = (),
        model: str = "",
    ) -> None:
        """`model` is the digest of what is trained. A champion of another one serves on until the end of a cycle."""
        self.champion, self._model = champion, model
        self.leaders = tuple(kept for kept in leaders if kept.model == model)
        """What served before and was better than each that came after: the best of 90 days first, and those that will
        be the best once it is older."""
        self._kind: Literal["mlp", "autoencoder"] = kind
        self._challenger: tuple[int, int, Vector] | None = None
        """Cycle, round and weights of the model that waits to be measured."""
        self._measured: dict[str, EvaluationFinished] = {}
        self.sources: set[NodeId] = set()
        """Members whose models were merged in this cycle."""
        self.decided = -1
        """The newest cycle whose merged model was measured."""

    @property
    def _rival(self) -> KeptModel | None:
        """The champion, if it can be measured on the rows of now: one of another generation cannot."""
        return self.champion if self.champion is not None and self.champion.model == self._model else None

    @property
    def deciding(self) -> int | None:
        """The cycle whose merged model is being measured."""
        return self._challenger[0] if self._challenger else None

    def begin(self, cycle: int, number: int, vector: Vector, wall: float) -> list[Effect]:
        """Measure the model that a cycle ended with, and what it must not be worse than."""
        self.leaders = tuple(kept for kept in self.leaders if wall - kept.since <= BEST_SECONDS)
        self._challenger = cycle, number, vector
        return self.again()

    def again(self) -> list[Effect]:
        """Ask for the measurements, once more if the trainer was lost."""
        if self._challenger is None:
            return []
        cycle, _, vector = self._challenger
        self._measured.clear()
        asked = [StartEvaluation(MERGED, vector, cycle)]
        if self._rival is not None:
            asked.append(StartEvaluation(CHAMPION, self._rival.vector, cycle))
        asked += [StartEvaluation(_leader(i), kept.vector, cycle) for i, kept in enumerate(self.leaders)]
        return [*asked]

    def drop(self) -> None:
        """Nobody can measure: what serves stays."""
        self._challenger = None

    def measured(self, done: EvaluationFinished, wall: float) -> list[Effect]:
        """Take a measurement; the last one decides."""
        if self._challenger is None:
            return []
        self._measured[done.purpose] = done
        if len(self._measured) < 1 + (self._rival is not None) + len(self.leaders):
            return []
        cycle, number, vector = self._challenger
        self._challenger, self.decided = None, cycle
        merged, champion = self._measured[MERGED], self._validation(CHAMPION)
        leaders, best = self._leading(cycle, at_the_gate(merged.metrics))
        decision = self._decide(cycle, at_the_gate(merged.metrics), champion, best)
        if not decision.promote:
            return [Emit(ModelHeld(number, cycle, merged.metrics, decision.why))]
        self.leaders = leaders
        return self._promote(number, vector, merged, decision.why, cycle, wall)

    def _leading(self, cycle: int, merged: Metrics) -> tuple[tuple[KeptModel, ...], Metrics | None]:
        """What is better than the merged model and than all that came after it, oldest first; the best's figures.

        What a cycle chose on its way counts once the cycle's end, or a later one, has confirmed it.
        """
        served = [(kept, self._validation(_leader(i))) for i, kept in enumerate(self.leaders)]
        if self._rival is not None and self._rival.cycle < cycle:
            served.append((self._rival, self._validation(CHAMPION)))
        leaders, best = [], None
        for kept, its in reversed(served):
            if its is not None and not leads(self._kind, merged if best is None else best, its):
                leaders.append(kept)
                best = its
        return tuple(reversed(leaders)), best

    def _decide(self, cycle: int, merged: Metrics, champion: Metrics | None, best: Metrics | None) -> Decision:
        if self.champion is None or self._rival is not None:
            serves = self.champion
            # what a cycle has measured on its way is chosen or not by its end, and who joined brings something new
            again = serves is not None and serves.cycle < cycle and len(self.sources) <= serves.sources
            chosen = at_the_gate(serves.metrics) if serves is not None and again else None
            return decide(self._kind, merged, champion, best, chosen)
        if merged.get("auprc") is None and merged.get("loss") is None:
            return Decision(False, "nothing of the new model can be measured, so the one before it serves on")
        return Decision(True, "the first of a new model, which is not compared with the one that served before")

    def first(self, cycle: int, number: int, vector: Vector, done: EvaluationFinished, wall: float) -> list[Effect]:
        """A model was measured in the middle of a cycle: it serves if nothing better does, and no gate has decided."""
        if self.decided >= cycle or (self.champion is not None and self.champion.cycle != cycle):
            return []
        its = None if self.champion is None else at_the_gate(self.champion.metrics)
        if not leads(self._kind, at_the_gate(done.metrics), its):
            return []
        return self._promote(number, vector, done, "the best model so far; the cycle's end decides", cycle, wall)

    def _validation(self, purpose: str) -> Metrics | None:
        done = self._measured.get(purpose)
        return at_the_gate(done.metrics) if done else None

    def _promote(
        self, number: int, vector: Vector, done: EvaluationFinished, why: str, cycle: int, wall: float
    ) -> list[Effect]:
        kept = KeptModel(number, vector, done.threshold, done.metrics, wall, cycle, self._model, len(self.sources))
        self.champion = kept
        told = ModelPromoted(number, cycle, kept.metrics, kept.threshold, why)
        return [KeepModel(kept, self.leaders), Emit(told)]


def _leader(i: int) -> str:
    """For what purpose the leader of that number is measured."""
    return f"gate:leader {i}"
