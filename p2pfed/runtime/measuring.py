"""How long a round takes on a bank's machine: some steps of the default model on its rows, in a process of their own.

`python -m p2pfed.runtime.measuring` reads what `measure` writes to it and answers the seconds: the commands themselves
never import TensorFlow.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from typing import Any

from p2pfed.config import NodeConfig
from p2pfed.core import record
from p2pfed.core.contract import FeatureContract
from p2pfed.core.model import DEFAULT_DROPOUT, DEFAULT_HIDDEN, DEFAULT_TRAINING, ModelSpec
from p2pfed.errors import P2PFedError, Unavailable
from p2pfed.runtime.process import die_with_parent, training_environment
from p2pfed.store.state_dir import StateDir

PATIENCE_SECONDS = 600.0
"""For importing TensorFlow, reading the rows and two rounds."""


def measure(config: NodeConfig, contract: FeatureContract, *, learner: str = "keras") -> float:
    """Seconds that a round of the default model takes on the bank's rows; raises Unavailable that says why not.

    `learner` is `keras` or, for tests, `numpy`.
    """
    if learner == "keras" and importlib.util.find_spec("tensorflow") is None:
        raise Unavailable("TensorFlow is not installed here")
    asked = {
        "data": config.data.model_dump(mode="json"),
        "threshold": config.learning.threshold.model_dump(mode="json"),
        "contract": record.plain(contract),
        "learner": learner,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "p2pfed.runtime.measuring"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            env=training_environment(StateDir(config.node.state_dir).temporary),
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else {"error": _last_line(done.stderr)}
    except subprocess.TimeoutExpired:
        raise Unavailable(f"it was not done in {PATIENCE_SECONDS:.0f} s") from None
    except (OSError, ValueError) as error:
        raise Unavailable(str(error)) from None
    if "error" in answer:
        raise Unavailable(str(answer["error"]))
    return float(answer["seconds"])


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["the process that measures ended without a word"])[-1]


def _measured(asked: dict[str, Any]) -> float:
    """The seconds of the second of two rounds: the first one also makes the graph."""
    from p2pfed.config import DataSection, ThresholdSection
    from p2pfed.data.features import load_bank
    from p2pfed.data.imbalance import learning_rows
    from p2pfed.runtime.trainer_child import learner_class

    contract = record.build(FeatureContract, asked["contract"])
    spec = ModelSpec("mlp", contract.width, DEFAULT_HIDDEN["mlp"], DEFAULT_DROPOUT)
    bank = load_bank(DataSection.model_validate(asked["data"]), contract, time.time())
    rows, weight = learning_rows(bank.rows, spec, DEFAULT_TRAINING, 0)
    section = ThresholdSection.model_validate(asked["threshold"])
    learner = learner_class(asked["learner"])(spec, DEFAULT_TRAINING, rows, section, positive_weight=weight, seed=0)
    warm = learner.train(spec.initial_weights(0).vector, b"", 1)
    begin = time.perf_counter()
    learner.train(warm.vector, warm.optimiser, 2)
    return time.perf_counter() - begin


def main() -> None:
    """Answer the one question on standard input."""
    from p2pfed.runtime.trainer_child import step_back

    die_with_parent(os.getppid())
    step_back()  # as the trainer that it stands for
    try:
        print(json.dumps({"seconds": _measured(json.load(sys.stdin))}))
    except P2PFedError as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main()
