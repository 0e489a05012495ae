#!/usr/bin/env python3
"""What the simulator costs, and whether it tells the truth, measured on this machine.

    scripts/bench_simulator.py [--only rounds,thousand,swift,scale,protocol,fidelity] [--quick] [--json OUT]

rounds    100 nodes of 2,000 rows, an epoch a round, random-6: seconds a round, beside a loop of Keras `fit` and one in
          numpy over the same nodes; without reputation and with
thousand  node_config/scenarios/thousand_banks.yaml as it is: time and peak memory
swift     node_config/scenarios/swift_11000.yaml to the end: time and peak memory
scale     seconds a round from 10 to 10,000 nodes, and by parameters, with the exponent of growth (linear is 1)
protocol  handled inputs a second, with a learner that returns at once
fidelity  ten banks as a real cluster and as a simulation on the same rows: difference of the mean AUPRC over seeds

Says for each bar whether it is reached; the exit code is 1 if one is missed. `--quick` takes sizes that only show that
everything runs, and are held against no bar. What concerns a whole process is measured in a fresh one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench_fidelity import ULB, fidelity
from bench_instruments import Bar, Measured, Teller, Timed, clock, fresh, memory, since, stacked
from bench_pace import protocol, rounds, scale

from p2pfed.sim.engine import Engine
from p2pfed.sim.population import load, populate
from p2pfed.sim.scenario import load_scenario

SCENARIOS = Path(__file__).resolve().parent.parent / "node_config" / "scenarios"


def main() -> int:
    """Run the chosen parts; exit code 1 if a bar is missed."""
    asked = _arguments()
    parts: dict[str, Callable[[], Measured]] = {
        "rounds": lambda: rounds(asked.quick),
        "thousand": lambda: thousand(asked.quick),
        "swift": lambda: swift(asked.quick),
        "scale": lambda: scale(asked.quick, asked.png),
        "protocol": lambda: protocol(asked.quick),
        "fidelity": lambda: fidelity(asked.data, asked.seeds, asked.rounds, asked.out),
    }
    found: dict[str, Measured] = {}
    for name in asked.only.split(",") if asked.only else parts:
        print(f"--- {name}", flush=True)
        found[name] = parts[name]()
        if asked.quick:
            found[name].bars.clear()
        for what, value in found[name].figures.items():
            print(f"{what:<75} {value:,.4g}" if isinstance(value, float) else f"{what:<75} {value}", flush=True)
        for bar in found[name].bars:
            print(bar, flush=True)
    if asked.json:
        asked.json.write_text(json.dumps({name: asdict(part) for name, part in found.items()}, indent=1) + "\n")
    return 0 if all(bar.reached for part in found.values() for bar in part.bars) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="parts, separated by commas")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path, help="draw the curves of scale")
    parser.add_argument("--data", type=Path, default=ULB, help="of fidelity: ULB's file; generated if it is not there")
    parser.add_argument("--seeds", type=int, default=5, help="of fidelity")
    parser.add_argument("--rounds", type=int, default=80, help="of fidelity")
    parser.add_argument("--out", type=Path, help="of fidelity: keeps run files, and uses those already there")
    return parser.parse_args()


def thousand(quick: bool) -> Measured:
    """A thousand banks for a hundred rounds."""
    settings = ("nodes=50", "rounds=4", "data.rows=12000") if quick else ()
    figures = fresh(scenario_run, "thousand_banks", settings)
    seconds = figures["s in all, imports included"]
    bars = [Bar("1,000 nodes x 100 rounds, s", seconds, 300), Bar("peak GB", figures["peak GB"], 3)]
    return Measured(figures, bars)


def swift(quick: bool) -> Measured:
    """Eleven thousand banks: no bar but to come to the end."""
    figures = fresh(scenario_run, "swift_11000", ("nodes=100", "rounds=3", "data.rows=12000") if quick else ())
    return Measured(figures, [Bar("rounds that are missing at the end", figures["rounds missing"], 0)])


def scenario_run(name: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """An example scenario from its file to its history."""
    start = clock()
    scenario = load_scenario(SCENARIOS / f"{name}.yaml", settings)
    population = populate(scenario, load(scenario))
    prepared = since(start)
    watched = Timed(stacked(population))
    begun = since(start)
    history = Engine(population, scenario, watched, Teller(name)).run()
    wall, cpu = since(start)
    training = sum(call.training[0] for call in watched.calls)
    return {
        "s in all, imports included": wall,
        "CPU s in all": cpu,
        "s to deal rows and make keys": prepared[0],
        "s to import TensorFlow and trace": begun[0] - prepared[0],
        "s of the run": wall - begun[0],
        "of which training": training,
        "of which evaluation": watched.evaluating,
        "of which handling": wall - begun[0] - training - watched.evaluating,
        "handled inputs": history.inputs_handled,
        "jobs in a call of the learner, mean": sum(call.jobs for call in watched.calls) / len(watched.calls),
        "rounds missing": scenario.nodes * scenario.rounds - sum(node.rounds for node in history.run.nodes),
        "peak GB": memory() / 1e9,
        "mean AUPRC at the end": sum(history.run.auprc()) / scenario.nodes,
        "ended": history.ended,
        "digest": history.digest[:16],
    }


if __name__ == "__main__":
    raise SystemExit(main())
