"""A scenario from its rows to its history."""

from __future__ import annotations

from collections.abc import Callable

from p2pfed.sim.engine import Engine
from p2pfed.sim.history import History, Progress
from p2pfed.sim.population import load, populate
from p2pfed.sim.scenario import Scenario


def simulate(
    scenario: Scenario, watch: Callable[[Progress], None] | None = None, *, transcript: bool = False
) -> History:
    """Load or generate the rows, found the consortium, run it in virtual time with stacked training.

    `watch` is told the progress now and then; `transcript` asks for readable lines. Ctrl-C ends the run and returns
    what there is. Raises UsageError and DataError for what cannot be run, before anything starts.
    """
    from p2pfed.learning.batched import StackedLearner  # imports TensorFlow

    population = populate(scenario, load(scenario))
    learner = StackedLearner(population.manifest.model, population.manifest.training, population.banks)
    return Engine(population, scenario, learner, watch, transcript=transcript).run()
