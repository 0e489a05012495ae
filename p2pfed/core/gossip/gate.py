"""The end of a cycle: the merged model, the champion and the best of 90 days, measured together; who serves then."""

from __future__ import annotations

from typing import Literal

from p2pfed.core.effects import Effect, Emit, KeepModel, KeptModel, StartEvaluation
from p2pfed.core.events import Metrics, ModelHeld, ModelPromoted
from p2pfed.core.gossip.champion import BEST_SECONDS, Decision, at_the_gate, decide, leads
from p2pfed.core.inputs import EvaluationFinished
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector

MERGED, CHAMPION, BEST = "gate:merged", "gate:champion", "gate:best"


class Gate:
    """Holds what serves. Before its first decision the best model measured so far serves."""

    def __init__(
        self,
        kind: Literal["mlp", "autoencoder"],
        champion: KeptModel | None,
        best: KeptModel | None,
        model: str = "",
    ) -> None:
        """`model` is the digest of what is trained. A champion of another one serves on until the end of a cycle."""
        self.champion, self._model = champion, model
        self.best = best if best is not None and best.model == model else None
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
    def _other_best(self) -> bool:
        """Whether the best is another version than what serves. A restart, or a replay, makes two of one."""
        if self.best is None or self.champion is None:
            return self.best is not None
        of_best, of_champion = ((kept.cycle, kept.round, kept.since) for kept in (self.best, self.champion))
        return of_best != of_champion

    @property
    def deciding(self) -> int | None:
        """The cycle whose merged model is being measured."""
        return self._challenger[0] if self._challenger else None

    def begin(self, cycle: int, number: int, vector: Vector, wall: float) -> list[Effect]:
        """Measure the model that a cycle ended with, and what it must not be worse than."""
        if self.best is not None and wall - self.best.since > BEST_SECONDS:
            self.best = self._rival
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
        if self.best is not None and self._other_best:
            asked.append(StartEvaluation(BEST, self.best.vector, cycle))
        return [*asked]

    def drop(self) -> None:
        """Nobody can measure: what serves stays."""
        self._challenger = None

    def measured(self, done: EvaluationFinished, wall: float) -> list[Effect]:
        """Take a measurement; the last one decides."""
        if self._challenger is None:
            return []
        self._measured[done.purpose] = done
        needed = 1 + (self._rival is not None) + self._other_best
        if len(self._measured) < needed:
            return []
        cycle, number, vector = self._challenger
        self._challenger, self.decided = None, cycle
        merged, champion = self._measured[MERGED], self._validation(CHAMPION)
        best = self._validation(BEST) if BEST in self._measured else champion
        decision = self._decide(cycle, at_the_gate(merged.metrics), champion, best)
        if not decision.promote:
            return [Emit(ModelHeld(number, cycle, merged.metrics, decision.why))]
        kept = KeptModel(number, vector, merged.threshold, merged.metrics, wall, cycle, self._model, len(self.sources))
        return self._promote(kept, decision.why, best)

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
        kept = KeptModel(number, vector, done.threshold, done.metrics, wall, cycle, self._model, len(self.sources))
        mine, its = at_the_gate(kept.metrics), None
        if self.champion is not None:
            its = at_the_gate(self.champion.metrics)
            if not leads(self._kind, mine, its):
                return []
        return self._promote(kept, "the best model so far; the cycle's end decides", its)

    def _validation(self, purpose: str) -> Metrics | None:
        done = self._measured.get(purpose)
        return at_the_gate(done.metrics) if done else None

    def _promote(self, kept: KeptModel, why: str, best: Metrics | None) -> list[Effect]:
        best_yet = leads(self._kind, at_the_gate(kept.metrics), best)
        self.champion = kept
        if best_yet:
            self.best = kept
        told = ModelPromoted(kept.round, kept.cycle, kept.metrics, kept.threshold, why)
        return [KeepModel(kept, best=best_yet), Emit(told)]
