"""A scenario from its rows to its history."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from p2pfed.learning.by_model import ByModel
from p2pfed.runtime.process import signals_wait
from p2pfed.sim.engine import Engine
from p2pfed.sim.history import History, Progress
from p2pfed.sim.population import load, notes, populate
from p2pfed.sim.scenario import Scenario


def simulate(
    scenario: Scenario, watch: Callable[[Progress], None] | None = None, *, transcript: bool = False
) -> History:
    """Load or generate the rows, found the consortium, run it in virtual time with stacked training.

    `watch` is told the progress now and then; `transcript` asks for readable lines. Ctrl-C ends the run and returns
    what there is. Raises UsageError and DataError for what cannot be run, before anything starts.
    """
    return prepare(scenario, watch, transcript=transcript).run()


def prepare(
    scenario: Scenario,
    watch: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda step: None,
    *,
    transcript: bool = False,
) -> Engine:
    """What `simulate` does before the first virtual second; `say` is told each step, which may take a while."""
    file, banks = scenario.data.file, f"{scenario.nodes:,} banks"
    say(f"{'generating payments' if file is None else f'reading {file}'} and dealing them to {banks}")
    loaded = load(scenario)
    for note in notes(loaded):
        say(note)
    say(f"making keys and a manifest for {banks}")
    population = populate(scenario, loaded)
    say("importing TensorFlow")
    with signals_wait(), _chatter_kept():
        from p2pfed.learning.batched import StackedLearner

    learners = {
        version.model.schema().size: StackedLearner(version.model, version.training, population.banks)
        for version in population.versions
    }
    learner = ByModel(learners) if population.successor else learners[population.manifest.model.schema().size]
    return Engine(population, scenario, learner, watch, transcript=transcript)


@contextmanager
def _chatter_kept() -> Iterator[None]:
    """Show what is written to standard error meanwhile only if the block fails.

    TensorFlow says at its import, whatever its log level, that it has found no GPU.
    """
    with tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(before, kept.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
