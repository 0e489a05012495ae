"""The end of a cycle: the merged model, the champion and the best of 90 days, measured together; who serves then."""

from __future__ import annotations

from typing import Literal

from p2pfed.core.effects import Effect, Emit, KeepModel, KeptModel, StartEvaluation
from p2pfed.core.events import Metrics, ModelHeld, ModelPromoted
from p2pfed.core.gossip.champion import BEST_DAYS, BEST_SECONDS, PERIOD_DAYS, Decision, at_the_gate, decide, leads
from p2pfed.core.inputs import EvaluationFinished
from p2pfed.core.types import DAY, NodeId
from p2pfed.core.weights import Vector

MERGED, CHAMPION = "merged", "champion"


class Gate:
    """Holds what serves. Before its first decision the best model measured so far serves."""

    def __init__(
        self,
        kind: Literal["mlp", "autoencoder"],
        champion: KeptModel | None,
        bests: tuple[KeptModel, ...] = (),
        model: str = "",
    ) -> None:
        """`model` is the digest of what is trained. A champion of another one serves on until the end of a cycle."""
        self.champion, self._model = champion, model
        self.bests = tuple(kept for kept in bests if kept.model == model)
        """Of every `PERIOD_DAYS` the best version that served and was confirmed by a cycle's end, oldest first.

        All of them are measured each time: which is the best depends on the rows.
        """
        self._kind: Literal["mlp", "autoencoder"] = kind
        self._challenger: tuple[int, int, Vector] | None = None
        """Cycle, round and weights of the model that waits to be measured."""
        self._asked: dict[str, Vector] = {}
        """What is measured, by name."""
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
        self._challenger = cycle, number, vector
        self._asked = {MERGED: vector} | ({CHAMPION: self._rival.vector} if self._rival else {})
        # the clock may have been wrong, now or when a version began to serve
        young = [kept for kept in self.bests if abs(wall - kept.since) <= BEST_SECONDS]
        self._asked |= {_name(kept): kept.vector for kept in young}
        return self.again()

    def again(self) -> list[Effect]:
        """Ask for the measurements, once more if the trainer was lost."""
        if self._challenger is None:
            return []
        self._measured.clear()
        cycle = self._challenger[0]
        return [StartEvaluation(f"gate:{cycle}:{name}", vector, cycle) for name, vector in self._asked.items()]

    def drop(self) -> None:
        """Nobody can measure: what serves stays."""
        self._challenger = None

    def measured(self, done: EvaluationFinished, wall: float) -> list[Effect]:
        """Take a measurement; the last one decides."""
        if self._challenger is None:
            return []
        cycle, number, vector = self._challenger
        name = done.purpose.removeprefix(f"gate:{cycle}:")
        if name not in self._asked:  # of another cycle
            return []
        self._measured[name] = done
        if self._measured.keys() != self._asked.keys():
            return []
        self._challenger, self.decided = None, cycle
        merged = self._measured[MERGED]
        decision = self._decide(cycle, at_the_gate(merged.metrics))
        if not decision.promote:
            return [Emit(ModelHeld(number, cycle, merged.metrics, decision.why))]
        self._confirm(cycle)
        return self._promote(cycle, number, vector, merged, wall, decision.why)

    def _figures(self, name: str) -> Metrics | None:
        """What decides, of a model that was measured."""
        done = self._measured.get(name)
        return at_the_gate(done.metrics) if done else None

    def _decide(self, cycle: int, merged: Metrics) -> Decision:
        serves = self.champion
        if serves is not None and self._rival is None:
            if merged.get("auprc") is None and merged.get("loss") is None:
                return Decision(False, "nothing of the new model can be measured, so the one before it serves on")
            return Decision(True, "the first of a new model, which is not compared with the one that served before")
        # what a cycle has measured on its way is chosen or not by its end, and who joined brings something new
        again = serves is not None and serves.cycle < cycle and len(self.sources) <= serves.sources
        chosen = at_the_gate(serves.metrics) if serves is not None and again else None
        return decide(self._kind, merged, self._figures(CHAMPION), self._best(), chosen)

    def _best(self) -> Metrics | None:
        """The figures of the best of 90 days."""
        best = None
        for kept in self.bests:
            its = self._figures(_name(kept))
            if its is not None and (best is None or leads(self._kind, its, best)):
                best = its
        return best

    def _confirm(self, cycle: int) -> None:
        """The champion is about to be replaced: it is the best of its time, if an end of a cycle has confirmed it."""
        old = self._rival
        if old is None or old.cycle == cycle:
            return
        same = next((kept for kept in self.bests if _period(kept) == _period(old)), None)
        if same is not None:
            mine, its = self._figures(CHAMPION), self._figures(_name(same))
            # without frauds, or where a wrong clock kept one from being measured, nothing tells which is better
            if mine is None or its is None or mine.get("frauds") == 0 or not leads(self._kind, mine, its):
                return
        left = [kept for kept in self.bests if kept is not same]
        self.bests = tuple(sorted([*left, old], key=_period)[-(BEST_DAYS // PERIOD_DAYS + 1) :])

    def first(self, cycle: int, number: int, vector: Vector, done: EvaluationFinished, wall: float) -> list[Effect]:
        """A model was measured in the middle of a cycle: it serves if nothing better does, and no gate decides."""
        over = self._challenger is not None or self.decided >= cycle
        if over or (self.champion is not None and self.champion.cycle != cycle):
            return []
        its = None if self.champion is None else at_the_gate(self.champion.metrics)
        if not leads(self._kind, at_the_gate(done.metrics), its):
            return []
        return self._promote(cycle, number, vector, done, wall, "the best model so far; the cycle's end decides")

    def _promote(
        self, cycle: int, number: int, vector: Vector, done: EvaluationFinished, wall: float, why: str
    ) -> list[Effect]:
        sources = len(self.sources)
        self.champion = KeptModel(number, vector, done.threshold, done.metrics, wall, cycle, self._model, sources)
        told = ModelPromoted(number, cycle, done.metrics, done.threshold, why)
        return [KeepModel(self.champion, self.bests), Emit(told)]


def _name(kept: KeptModel) -> str:
    """What tells a version from others."""
    return f"{kept.cycle}.{kept.round}"


def _period(kept: KeptModel) -> int:
    return int(kept.since // (PERIOD_DAYS * DAY))
