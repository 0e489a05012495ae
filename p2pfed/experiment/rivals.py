"""The baselines of one local cluster, in a process of their own: TensorFlow must not be in the launcher's.

`python -m p2pfed.experiment.rivals REQUEST` reads the banks' files as their trainers do and appends one JSON object a
line to the answer file: progress, then one result a baseline.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pfed.cluster.founding import LocalCluster
from p2pfed.cluster.processes import Processes
from p2pfed.core.events import Metrics
from p2pfed.errors import LocalFault
from p2pfed.runtime.process import ONE_THREAD
from p2pfed.runtime.trainer_child import learner_class
from p2pfed.store.state_dir import write_atomically

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Rivals:
    """Metrics by row set of every baseline that was asked for."""

    alone: dict[str, dict[str, Metrics]]
    """By bank."""
    centralised: dict[str, Metrics] | None
    fedavg: dict[str, Metrics] | None


def run(cluster: LocalCluster, kinds: Sequence[str], rounds: int, progress: Callable[[str, int], None]) -> Rivals:
    """Train the baselines in a child process; `progress` is told what trains and its round.

    Raises LocalFault with the end of the child's log if it fails.
    """
    answers = cluster.folder / "rivals.jsonl"
    write_atomically(answers, b"")
    request = cluster.folder / "rivals.json"
    asked = {
        "configurations": [str(bank.config) for bank in cluster.banks],
        "manifest": str(cluster.banks[0].state.manifest(cluster.manifest.version)),
        "kinds": list(kinds),
        "rounds": rounds,
        "answers": str(answers),
    }
    write_atomically(request, json.dumps(asked).encode())
    log = cluster.log("rivals")
    found: dict[str, Any] = {}
    with Processes() as processes, answers.open() as lines:
        processes.start("rivals", ["-m", "p2pfed.experiment.rivals", str(request)], log)
        while True:
            ended = processes.ended()
            for line in lines:
                answer = json.loads(line)
                if "round" in answer:
                    progress(answer["what"], answer["round"])
                else:
                    found[answer["what"]] = answer["metrics"]
            if ended:
                break
            time.sleep(POLL_SECONDS)
    if code := ended["rivals"]:
        raise LocalFault(f"the baselines stopped with exit code {code}:\n{log.read_text()[-2000:]}")
    alone = {bank.name: found[f"alone {bank.name}"] for bank in cluster.banks} if "alone" in kinds else {}
    return Rivals(alone, found.get("centralised"), found.get("fedavg"))


def main(request_path: str) -> None:
    """Train what the request file asks for."""
    os.environ.update(ONE_THREAD)
    request = json.loads(Path(request_path).read_text())
    with Path(request["answers"]).open("a") as answers:

        def say(**answer: Any) -> None:
            print(json.dumps(answer), file=answers, flush=True)

        _train(request, say)


def _train(request: dict[str, Any], say: Callable[..., None]) -> None:
    from p2pfed import configfile
    from p2pfed.core.consortium import parse_signed
    from p2pfed.data.features import load_bank
    from p2pfed.experiment import baselines

    manifest = parse_signed(Path(request["manifest"]).read_bytes()).manifest
    banks = {}
    for path in map(Path, request["configurations"]):
        config = configfile.load(path)
        rows = load_bank(config.data, manifest.contract, time.time()).rows
        banks[config.node.name] = baselines.learning_bank(
            rows, manifest.model, manifest.training, config.learning.threshold, config.learning.seed
        )
    make = learner_class("keras")
    budget = baselines.Budget(
        manifest.model,
        manifest.training,
        request["rounds"],
        manifest.model.initial_weights(manifest.seed).vector,
        lambda spec, policy, bank: make(
            spec, policy, bank.learning_rows, bank.threshold, positive_weight=bank.positive_weight, seed=bank.seed
        ),
    )

    def tell(what: str) -> Callable[[int], None]:
        return lambda number: say(what=what, round=number)

    together = {"centralised": baselines.train_centralised, "fedavg": baselines.train_fedavg}
    for kind in request["kinds"]:
        if kind in together:
            say(what=kind, metrics=together[kind](budget, list(banks.values()), tell(kind)))
            continue
        for name, bank in banks.items():
            what = f"{kind} {name}"
            say(what=what, metrics=baselines.train_alone(budget, bank, tell(what)))


if __name__ == "__main__":
    main(sys.argv[1])
