"""What Ctrl-C, SIGTERM and a closed terminal do to a simulation: no results before it, all there are after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from p2pfed.cluster.processes import handled
from p2pfed.experiment.progress import Screen
from p2pfed.sim.engine import Engine


class Stop:
    """The signals' handler. While a simulation is prepared the first one raises KeyboardInterrupt.

    While it runs the first stops it after what is being computed, for which the second does not wait. None stops the
    writing of results.
    """

    def __init__(self, screen: Screen) -> None:
        self.asked = 0
        """Signals so far."""
        self.engine: Engine | None = None
        """What runs, once it is prepared."""
        self.writing = False
        self._screen = screen

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.asked += 1
        if self.writing:
            self._screen.step("stopping, after the results are written")
        elif self.engine is None:
            raise KeyboardInterrupt
        elif self.asked == 1:
            self.engine.stop()
            self._screen.step("stopping, after what is being computed; Ctrl-C again does not wait for it")
        elif self.engine.computing:
            raise KeyboardInterrupt


@contextmanager
def stoppable(screen: Screen) -> Iterator[Stop]:
    """Within, signals do what a `Stop` does; under `nohup` a closed terminal does nothing."""
    stop = Stop(screen)
    with handled(stop):
        yield stop
