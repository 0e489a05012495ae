"""An attacker that runs the defence itself, and goes as far as that lets it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

from p2pfed.adversary.attack import Attack, Doubles, View, largest
from p2pfed.adversary.poisoning import blinded, flipped
from p2pfed.config import ThresholdSection
from p2pfed.core.aggregation import Candidate
from p2pfed.core.reputation import Reputation
from p2pfed.core.rows import BankRows, Rows
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector
from p2pfed.learning.numpy_learner import NumpyLearner

MYSELF = NodeId("attacker")
"""The attacker's name in its model of a victim."""


@dataclass
class AdaptiveMax(Attack):
    """Adaptive-max, after the AGR-tailored attacks of Shejwalkar and Houmansadr (NDSS 2021, sec. IV): mu + g * u.

    u is the direction of ALIE (-s), of a label-flipped or of a fraud-blind model (what training on such rows adds). The
    attacker is a victim to itself: it keeps a `Reputation` of its own, with its own rows and training, of everybody and
    of itself. g is the largest, for each direction, at which that suspects it less than half as much as would
    quarantine; published is what then rates the attacker's frauds least above its other rows.
    """

    MOST = 8.0

    _victim: Reputation | None = field(default=None, repr=False)
    _judged: dict[NodeId, Vector] = field(default_factory=dict, repr=False)

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        victim = self._look(view)
        centre = view.benign().mean(axis=0)
        best = max((self._farthest(victim, view, centre, u) for u in _directions(view)), key=lambda v: _harm(view, v))
        _judge(victim, view, best)
        return best

    def _look(self, view: View) -> Reputation:
        """The victim that has trained as the attacker did and judged what is new of others."""
        if self._victim is None:
            epochs = view.manifest.training.local_steps == 0
            self._victim = Reputation(view.manifest.model, len(view.manifest.members), 0, epochs=epochs)
        self._victim.yardstick.probe = view.probe
        self._victim.yardstick.note_training(view.begun, view.honest)
        new = {member: vector for member, vector in view.peers.items() if self._judged.get(member) is not vector}
        self._judged |= new
        self._victim.judge(view.honest, 1, [Candidate(member, vector, 1, 0) for member, vector in new.items()])
        return self._victim

    def _farthest(self, victim: Reputation, view: View, centre: Doubles, direction: Doubles) -> Vector:
        def at(scale: float) -> Vector:
            vector: Vector = (centre + scale * direction).astype(np.float32)
            return vector

        def unnoticed(scale: float) -> bool:
            trial = deepcopy(victim)
            _judge(trial, view, at(scale))
            return trial.peers[MYSELF].suspicion < trial.params.threshold / 2

        return at(largest(unnoticed, self.MOST))


def _judge(victim: Reputation, view: View, vector: Vector) -> None:
    """Let `victim` see a model of the attacker's."""
    victim.arrived(MYSELF, vector)
    victim.judge(view.honest, 1, [Candidate(MYSELF, vector, 1, 0)])


def _directions(view: View) -> Iterator[Doubles]:
    yield -view.benign().std(axis=0)
    spec, probe = view.manifest.model, view.probe
    features = np.concatenate([probe.held_out, probe.frauds]).reshape(-1, spec.inputs)
    if spec.kind != "mlp" or not len(features):
        return
    labels = np.zeros(len(features), np.float32)
    labels[len(probe.held_out) // spec.inputs :] = 1
    none = Rows(features[:0], labels[:0])
    for poisoned in (flipped, blinded):
        rows = BankRows(poisoned(Rows(features, labels)), none, none, none, 0.0)
        learner = NumpyLearner(spec, view.manifest.training, rows, ThresholdSection())
        yield learner.train(view.honest, b"", 1).vector.astype(np.float64) - view.honest


def _harm(view: View, vector: Vector) -> float:
    """How much higher the model rates the attacker's held-out rows than its frauds, on average."""
    n = len(view.probe.held_out) // view.manifest.model.inputs
    frauds = len(view.probe.frauds) // view.manifest.model.inputs
    said = view.probe.scores(view.manifest.model, vector[None])[0]
    return float(said[:n].mean() - said[n : n + frauds].mean()) if n and frauds else 0.0
