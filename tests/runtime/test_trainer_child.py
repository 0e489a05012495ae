"""What a trainer says of the rows that it read."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from p2pfed.core import record
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.data import features
from p2pfed.runtime import trainer_child
from p2pfed.runtime.trainer_protocol import TrainerMessage, receive, send
from tests.data.banks import LOCAL, payments, section


@pytest.mark.parametrize(("frauds", "said"), [(4, True), (80, False)])
def test_too_few_validation_frauds_for_the_threshold_are_said(tmp_path: Path, frauds: int, said: bool) -> None:
    _, answer = trainer_child._load(_fields(tmp_path, frauds), None)
    notes = answer.fields["report"]["notes"]
    assert any("the threshold is percentile 98" in note for note in notes) == said


def test_an_error_of_a_library_while_reading_is_told_without_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cell = "sesame"

    def fails(*_: object) -> None:
        raise ValueError(f"could not convert string to float: {cell!r}")

    monkeypatch.setattr(features, "load_bank", fails)
    monkeypatch.setattr(trainer_child, "_beat", lambda *_: None)  # it would end this process
    daemon, child = socket.socketpair()
    with daemon, child:
        daemon.settimeout(30)
        send(daemon, TrainerMessage("load", _fields(tmp_path, 20)))
        trainer_child.serve(child)
        assert receive(daemon).kind == "hello"
        assert receive(daemon).fields == {"error": "ValueError", "message": "ValueError"}
    said = capfd.readouterr().err
    assert "in fails" in said and cell not in said


def _fields(folder: Path, frauds: int) -> dict[str, Any]:
    return {
        "model": record.plain(ModelSpec("mlp", LOCAL.width, (4,), 0.0)),
        "policy": record.plain(TrainingPolicy(10, 32, 1e-3, (), "none", 10.0)),
        "contract": record.plain(LOCAL),
        "data": section(folder, payments(400, frauds)).model_dump(mode="json"),
        "threshold": {},
        "seed": 0,
        "learner": "numpy",
        "last_reading": None,
        "counted_until": None,
        "accept": False,
    }
