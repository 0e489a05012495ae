"""Gossip as papers write it, by the daemon's nodes: plain means of what a round brought, without momentum, in step.

What the scripts beside share, with how they print their figures.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any
from unittest import mock

import typer
from rich.console import Console
from rich.table import Column, Table

from p2pfed.core.aggregation import Candidate, Mean, Merged, code_allowed
from p2pfed.core.momentum import Momentum
from p2pfed.core.weights import Vector
from p2pfed.errors import P2PFedError
from p2pfed.sim.scenario import Scenario, scenario_from

PLAIN = f"{__name__}:FreshMean"
Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


class FreshMean(Mean):
    """The own model and those that have come since the last merge, each counted once."""

    name = "fresh-mean"

    def merge(self, own: Vector, rows: int, candidates: list[Candidate]) -> Merged:
        return super().merge(own, rows, [c for c in candidates if c.waited == 0])


def scenario(topology: str, rule: str = PLAIN, **sections: Any) -> Scenario:
    """Nodes that all begin at once and train for equally long; every bank publishes, however few its frauds."""
    gossip = {"rule": rule, "topology": topology, "adoption_seconds": 0, "publish_min_frauds": 0}
    gossip["reputation"] = rule != PLAIN
    usual = {"version": 1, "gossip": gossip, "compute": {"load_seconds": 0, "jitter": 0}, "min_rows": 20}
    with code_allowed():
        return scenario_from(usual | sections)


@contextmanager
def merging(rule: str) -> Iterator[None]:
    """While in it, simulated nodes have the momentum that belongs to `rule`: none with plain means."""
    with code_allowed(), mock.patch.multiple(Momentum, PUSH=0.0, MOST=0.0) if rule == PLAIN else nullcontext():
        yield


def start(main: Callable[..., None]) -> None:
    """Run `main` with the command line's options; what cannot be run is said in a sentence."""
    try:
        typer.run(main)
    except P2PFedError as error:
        sys.exit(str(error))


def tell(title: str, kinds: Sequence[str], found: Mapping[str, Sequence[float]], said: str, as_json: bool) -> None:
    """Print figures, a line of them for each name, and what they say."""
    if as_json:
        print(json.dumps({name: dict(zip(kinds, line, strict=True)) for name, line in found.items()}, indent=2))
        return
    table = Table(Column(no_wrap=True), *kinds, title=title)
    for name, line in found.items():
        table.add_row(name, *(f"{figure:.4g}" for figure in line))
    Console().print(table, said, highlight=False)
