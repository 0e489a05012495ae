"""The training process: loads the bank's rows, then trains and evaluates for one daemon until the connection closes.

`python -m p2pfed.runtime.trainer_child --fd N` serves the inherited socket N; the spawner calls `serve` in a fork.
The process has no keys and opens no network connection of its own but to the bank's database.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pfed.errors import P2PFedError
from p2pfed.runtime.process import ONE_THREAD, StartLine, die_with_parent, for_life
from p2pfed.runtime.trainer_protocol import BrokenMessage, TrainerMessage, receive, send

if TYPE_CHECKING:
    from p2pfed.core.rows import Rows
    from p2pfed.core.served import Served
    from p2pfed.data.features import LoadedBank
    from p2pfed.data.reading import Reading
    from p2pfed.learning.learner import Learner

NICENESS = 5
ALIVE_SECONDS = 1.0
TOGETHER_SECONDS = 30.0
"""Who shall start together waits no longer for the others."""


def serve(
    connection: socket.socket, change: Callable[[Rows], Rows] | None = None, start: StartLine | None = None
) -> None:
    """Answer the daemon's messages until it closes `connection`; what goes wrong is its last message, `failed`.

    `change` makes of the bank's training rows those that are trained on: so an experiment's attackers poison them.
    Ready is said when all that hold `start` are: on few cores the first one would be done before the last begins.
    """
    lock = threading.Lock()
    _say(connection, lock, TrainerMessage("hello", {"pid": os.getpid()}))
    threading.Thread(target=_beat, args=(connection, lock), daemon=True).start()
    learner = None
    try:
        while (message := receive(connection)) is not None:
            if message.kind == "load":
                learner, answer = _load(message.fields, change)
                if start is not None:
                    start.wait(TOGETHER_SECONDS)
                    start = None
            elif learner is not None:
                answer = _work(learner, message)
            else:
                raise ValueError(f"asked to {message.kind} before the rows were loaded")
            _say(connection, lock, answer)
    except (ConnectionError, BrokenMessage):
        return  # the daemon is gone; nobody is left to tell
    except Exception as error:  # whatever it is, the daemon must hear of it; this process ends either way
        _fail(connection, lock, error, reading=learner is None)


def _load(fields: dict[str, Any], change: Callable[[Rows], Rows] | None) -> tuple[Learner | None, TrainerMessage]:
    """Read the bank's rows as the daemon's `load` says and build the learner; none of rows that look wrong."""
    from p2pfed.config import DataSection, ThresholdSection
    from p2pfed.core import record
    from p2pfed.core.contract import FeatureContract
    from p2pfed.core.model import ModelSpec, TrainingPolicy
    from p2pfed.core.probe import Probe
    from p2pfed.data.features import load_bank
    from p2pfed.data.imbalance import learning_rows
    from p2pfed.data.reading import reading_problems
    from p2pfed.learning.threshold import note, settle

    spec = record.build(ModelSpec, fields["model"])
    policy = record.build(TrainingPolicy, fields["policy"])
    contract = record.build(FeatureContract, fields["contract"])
    section, seed = ThresholdSection.model_validate(fields["threshold"]), fields["seed"]
    last = _last_reading(fields["last_reading"])
    bank = load_bank(DataSection.model_validate(fields["data"]), contract, time.time(), fields["counted_until"])
    if not fields["accept"] and (problems := reading_problems(bank.reading, last)):
        return None, TrainerMessage("refused", {"why": "; ".join(problems)})
    settled = settle(section, spec.kind, bank.rows.legitimate_per_day)
    if settled.kind is not None and (said := note(settled.kind, bank.rows.validation.frauds)):
        bank.report["notes"].append(said)
    rows, weight = learning_rows(bank.rows, spec, policy, seed)
    if change is not None:
        rows = replace(rows, train=change(rows.train))
    learner = learner_class(fields["learner"])(spec, policy, rows, section, positive_weight=weight, seed=seed)
    answer = {
        "train_rows": len(bank.rows.train),
        "train_frauds": bank.rows.train.frauds,
        "scaler": record.plain(bank.scaler),
        "report": bank.report,
        "reading": (bank.reading if fields["accept"] else bank.reading.after(last)).plain(),
        "served": record.plain(_served(bank, fields)),
    }
    probe = Probe.of(bank.rows)
    shown = (probe.held_out, probe.frauds, probe.labels)
    return learner, TrainerMessage("ready", answer, tuple(part.tobytes() for part in shown))


def _served(bank: LoadedBank, fields: dict[str, Any]) -> Served | None:
    """How what served has fared on the newly matured payments; whatever goes wrong there does not stop the training."""
    from p2pfed.core.served import Served
    from p2pfed.learning.prequential import prequential
    from p2pfed.runtime.versions import served_between

    since, until = fields["counted_until"], bank.reading.mature_until
    if since is None or until is None or not len(bank.matured):
        return None
    try:
        versions, damaged = served_between(Path(fields["models"]), since, until)
        days = prequential(bank.matured, versions)
    except Exception as error:
        traceback.print_exc()
        return Served(since, until, (), f"{type(error).__name__}: {error}")
    said = f"the payments of {', '.join(damaged)} count as the version's before" if damaged else ""
    return Served(since, until, tuple(days), said)


def _last_reading(plain: dict[str, Any] | None) -> Reading | None:
    """The reading to compare with; None if there is none, or another version of p2pfed wrote it."""
    from p2pfed.data.reading import Reading

    try:
        return None if plain is None else Reading.from_plain(plain)
    except ValueError:
        return None


def learner_class(name: str) -> Any:
    """The learner called `keras` or `numpy`; importing the first one imports TensorFlow."""
    if name == "numpy":
        from p2pfed.learning.numpy_learner import NumpyLearner

        return NumpyLearner
    with quiet_stderr(), for_life():
        from p2pfed.learning.keras_learner import KerasLearner
    return KerasLearner


def _work(learner: Learner, message: TrainerMessage) -> TrainerMessage:
    import numpy as np

    vector = np.frombuffer(message.blobs[0], np.float32)
    if message.kind == "train":
        trained = learner.train(vector, bytes(message.blobs[1]), message.fields["round"])
        fields = {
            "round": message.fields["round"],
            "loss": trained.loss,
            "steps": trained.steps,
            "seconds": trained.seconds,
        }
        return TrainerMessage("trained", fields, (trained.vector.tobytes(), trained.optimiser))
    if message.kind == "evaluate":
        evaluation = learner.evaluate(vector)
        fields = {
            "purpose": message.fields["purpose"],
            "metrics": evaluation.metrics,
            "threshold": evaluation.threshold,
        }
        return TrainerMessage("evaluated", fields)
    raise ValueError(f"unknown message {message.kind!r}")


def _beat(connection: socket.socket, lock: threading.Lock) -> None:
    """Say every second that the process lives; end it when nobody listens, even in the middle of a round."""
    while True:
        time.sleep(ALIVE_SECONDS)
        try:
            _say(connection, lock, TrainerMessage("alive", {}))
        except OSError:
            os._exit(0)


def _say(connection: socket.socket, lock: threading.Lock, message: TrainerMessage) -> None:
    with lock:
        send(connection, message)


def _fail(connection: socket.socket, lock: threading.Lock, error: Exception, *, reading: bool) -> None:
    """Say what went wrong, and on standard error where; what a library says while `reading` may quote a payment."""
    name = type(error).__name__
    said = str(error) if isinstance(error, P2PFedError) else name if reading else f"{name}: {error}"
    if not isinstance(error, P2PFedError):
        print(f"{''.join(traceback.format_tb(error.__traceback__))}{said}", file=sys.stderr, flush=True)
    fields = {"error": name, "message": said}
    # a daemon that is gone cannot be told
    with contextlib.suppress(OSError):
        _say(connection, lock, TrainerMessage("failed", fields))


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere meanwhile: TensorFlow's import writes lines that no setting silences."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def step_back() -> None:
    """Lower this process's priority, so that the daemon answers while it trains."""
    os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to handle


def main(arguments: list[str]) -> None:
    """Serve the socket that `--fd N` names."""
    if len(arguments) != 2 or arguments[0] != "--fd" or not arguments[1].isdigit():
        raise SystemExit("usage: python -m p2pfed.runtime.trainer_child --fd N")
    os.environ.update(ONE_THREAD)
    faulthandler.enable()
    die_with_parent(os.getppid())
    step_back()
    with socket.socket(fileno=int(arguments[1])) as connection:
        serve(connection)


if __name__ == "__main__":
    main(sys.argv[1:])
