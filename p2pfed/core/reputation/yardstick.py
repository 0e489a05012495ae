"""What this node knows of its own training and of what members are usually like: the units of all evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import Probe, Scores
from p2pfed.core.reputation.assess import Look, Own, assess, fine
from p2pfed.core.reputation.params import ReputationParams
from p2pfed.core.reputation.peer_record import Assessment, PeerRecord, Scales
from p2pfed.core.training_scale import TrainingScale, averaged, distances
from p2pfed.core.weights import Vector

DRAWN = 32
"""Weights, drawn at random and known to nobody else, by which a model is told from another one."""
IMAGINE_EVERY = 8
"""Rounds between two looks for imagined frauds. Fewer cost time."""


class Yardstick:
    """Measures models of others by own training and own rows."""

    def __init__(self, spec: ModelSpec, seed: int, params: ReputationParams, *, epochs: bool = False) -> None:
        """`seed` of what nobody else shall know: weights to tell models by, and imagined frauds.

        Where rounds are `epochs`, who has more rows takes more steps, and moves farther.
        """
        self._spec, self._params, self._epochs = spec, params, epochs
        self._rng = np.random.default_rng(seed)
        self._drawn = np.sort(self._rng.integers(spec.schema().size, size=DRAWN))
        self._rounds = 0
        self.probe = Probe(np.zeros(0, np.float32), np.zeros(0, np.float32))
        self.training = TrainingScale()
        """The node's one scale: the merge rule reads it, too."""
        self._scales = Scales()
        """What else is remembered."""
        self._imagined_for: Probe | None = None
        """The probe that frauds were imagined for last."""
        self._own_scores: tuple[Vector, Probe, Scores] | None = None
        self._trained: tuple[list[float], ...] = ()
        """The same weights of this node's own newest models: who hands one of them back brings nothing."""

    def renewed(self, spec: ModelSpec) -> Yardstick:
        """One for another model, which knows nothing yet."""
        return Yardstick(spec, int(self._rng.integers(2**63)), self._params, epochs=self._epochs)

    @property
    def scales(self) -> Scales:
        """What `restore` goes on from."""
        return replace(self._scales, moved=self.training.moved)

    def restore(self, scales: Scales) -> None:
        """Go on from the `scales` of an earlier process."""
        self._scales, self.training.moved = scales, scales.moved

    @property
    def fine(self) -> tuple[float, float]:
        """Distance and disagreement up to which a model is no evidence, by what peers were like in recent merges."""
        return fine(self._scales, self._params)

    def distances(self, own: Vector, models: Sequence[Vector]) -> list[float]:
        """How far `models` are from `own`, in units of own training."""
        unit = self.training.unit(own)
        return [float(distances(model, own)) / unit for model in models]

    def note_training(self, before: Vector, after: Vector) -> None:
        """Learn what a round of own training moves and changes: the units of all evidence about others."""
        self.training.note(before, after)
        if self._rounds % IMAGINE_EVERY == 0 or self.probe is not self._imagined_for:
            self.probe = self._imagined_for = self.probe.imagining(self._spec, after, self._rng)
        self._rounds += 1
        was, now = self.probe.scores(self._spec, np.stack([before, after]))
        self._own_scores = after, self.probe, now
        changed = float(self.probe.disagreements(self._spec, now, was[None])[0])
        changed = averaged(None if self.training.renewed else self._scales.changed, changed)
        self._trained = (*self._trained, after[self._drawn].tolist())[-self._params.recent :]
        self._scales = replace(self._scales, changed=changed)

    def brings_nothing(self, record: PeerRecord, vector: Vector) -> bool:
        """Whether a new version is, as it came, the one before again or one that this node trained."""
        drawn = vector[self._drawn].astype("<f4")
        before, record.drawn = np.frombuffer(bytes.fromhex(record.drawn), "<f4").tolist(), drawn.tobytes().hex()
        told: list[float] = drawn.tolist()  # for so few numbers numpy takes several times as long
        scale = (self.training.moved or 0.0) * math.sqrt(DRAWN / len(vector))  # of so many weights
        known = [before] * (len(before) == DRAWN)
        return any(math.dist(told, one) <= self._params.novelty * scale for one in (*known, *self._trained))

    def measure(
        self,
        own: Vector,
        rows: int,
        looks: Sequence[Look],
        usual_rows: float,
        rates: tuple[float | None, float | None] = (None, None),
    ) -> list[Assessment]:
        """What each of `looks` comes to beside `own`, trained on `rows`; see `assess`.

        `rates` are `Member.legitimate_per_fraud`, this node's and the usual one.
        """
        if self._spec.kind != "mlp":  # what autoencoders say of a payment does not depend on how many are frauds
            rates = (None, None)
        unit, scores = self.training.unit(own), self._scores(own)
        held = Own(self._spec, own, unit, rows, usual_rows, scores, self._epochs, *rates)
        found, self._scales = assess(held, looks, self._scales, self.probe, self._params)
        return found

    def _scores(self, own: Vector) -> Scores:
        """Of this node's own model, which is mostly the one that training ended with."""
        if self._own_scores is None or self._own_scores[0] is not own or self._own_scores[1] is not self.probe:
            self._own_scores = own, self.probe, self.probe.scores(self._spec, own[None])[0]
        return self._own_scores[2]
