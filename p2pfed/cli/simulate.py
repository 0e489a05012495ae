"""Simulations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from p2pfed.cli.terminal import AllowCode, Force, Settings, check_free


def simulate(
    scenario: Annotated[Path, typer.Argument(help="A scenario, such as those in node_config/scenarios/.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for results and pictures; default NAME-SEED of the scenario, here.")
    ] = None,
    settings: Settings = None,
    json: Annotated[Path | None, typer.Option(help="Write the run file here, too.")] = None,
    allow_code: AllowCode = False,
    no_plots: Annotated[bool, typer.Option("--no-plots", help="Draw no pictures.")] = False,
    force: Force = False,
) -> None:
    """Run a scenario in virtual time: thousands of nodes, each as the daemon has it, in one process."""
    from p2pfed.runtime.process import ONE_THREAD, signals_wait

    os.environ.update(ONE_THREAD)  # before numpy and TensorFlow are imported
    with signals_wait():
        from p2pfed import results
        from p2pfed.core.aggregation import code_allowed
        from p2pfed.experiment import simulation
        from p2pfed.experiment.progress import Screen
        from p2pfed.sim.scenario import load_scenario

    if json is not None:
        results.check_writable(json)
        check_free(json, force)
    with code_allowed(allow_code):
        asked = load_scenario(scenario, settings or ())
        folder = out or Path(f"{asked.name}-{asked.seed}")
        history = simulation.run(asked, folder, Screen(), pictures=not no_plots, json=json)
    print(simulation.closing_table(history))
    simulation.check_ended(history)
