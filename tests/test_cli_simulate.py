"""`simulate`: what it hands on, what it refuses before anything starts, and one whole run."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from p2pfed import results
from p2pfed.cli import run
from p2pfed.errors import ConfigError
from p2pfed.experiment import simulation
from p2pfed.runtime.process import ONE_THREAD
from tests.sim.consortium import QUICK, simulated

SMALL = QUICK | {"name": "small", "nodes": 4, "rounds": 3, "data": {"rows": 4000, "test_rows": 500}}


@pytest.fixture
def path(tmp_path, monkeypatch):
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)  # which the command does too, and for good
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(json.dumps(SMALL))
    (tmp_path / "many.yaml").write_text("version: 1\nrounds: 3\nnodes: 10000\ndata: {rows: 4000}\n")
    return tmp_path / "small.yaml"


@pytest.fixture(scope="module")
def history():
    return simulated()


@pytest.fixture
def asked(monkeypatch, history):
    """What `simulation.run` is asked for; it answers with a history."""
    seen = []

    def answer(scenario, folder, screen, *, pictures, json):
        seen.append((scenario.seed, folder, pictures, json))
        return answer.history

    answer.history = history
    monkeypatch.setattr(simulation, "run", answer)
    return seen, answer


def test_results_go_to_a_folder_named_after_the_scenario(path, asked, capsys):
    assert run(["simulate", str(path), "--set", "seed=7"]) == 0
    assert asked[0] == [(7, Path("small-7"), True, None)]
    captured = capsys.readouterr()
    assert "AUPRC mean" in captured.out and captured.err == ""


def test_a_scenario_names_code_only_where_that_is_allowed(path, asked, refused, said):
    rule = ("--set", "gossip.rule=p2pfed.core.aggregation:Mean")
    code, error = refused("simulate", path, *rule)
    assert code == 78 and "gossip.rule: merge rule 'p2pfed.core.aggregation:Mean' names code" in error
    assert "--allow-code" in error and asked[0] == []
    said("simulate", path, *rule, "--allow-code")
    assert len(asked[0]) == 1
    with pytest.raises(ConfigError, match="names code"):
        simulation.simulate(SMALL | {"gossip": {"rule": "os:abort"}})


def test_every_option_is_handed_on(path, asked):
    assert run(["simulate", str(path), "--out", "here", "--no-plots", "--json", "run.json"]) == 0
    assert asked[0] == [(0, Path("here"), False, Path("run.json"))]


def test_a_run_file_is_written_over_only_with_force(path, asked, capsys, tmp_path):
    (file := tmp_path / "run.json").write_text("an hour's work")
    arguments = ["simulate", str(path), "--json", str(file)]
    assert run(arguments) == 2
    assert f"{file} exists" in capsys.readouterr().err
    assert asked[0] == []
    assert run([*arguments, "--force"]) == 0
    assert asked[0][0][3] == file


@pytest.mark.parametrize(
    ("ended", "code", "said"),
    [("stopped", 130, "stopped by the operator after rounds 5 of 5"), ("given up", 1, "given up")],
)
def test_a_run_that_did_not_end_well_shows_what_there_is(path, asked, history, capsys, ended, code, said):
    asked[1].history = replace(history, ended=ended)
    assert run(["simulate", str(path)]) == code
    captured = capsys.readouterr()
    assert "AUPRC mean" in captured.out and captured.err == f"p2pfed: {said}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["absent.yaml"], 78, "absent.yaml: no such file; examples are in node_config/scenarios/"),
        (["small.yaml", "--set", "rounds=many"], 78, "--set rounds: rounds: should be a valid integer"),
        (["small.yaml", "--set", "nodes"], 2, "expected section.key=value"),
        (["small.yaml", "--set", "gossip.topology=regular:9"], 78, "regular:3 fits"),
        (["small.yaml", "--set", "attackers=[{kind: signflip, nodes: 4}]"], 78, "at most 3 fit"),
        (["small.yaml", "--set", "nodes=40"], 78, "p2pfed: --set nodes: nodes: 2,800 rows (of 4,000, without the"),
        (
            ["many.yaml"],
            78,
            "p2pfed: many.yaml:3:8: nodes: 2,800 rows (of 4,000, without the pooled test) give 9 banks of",
        ),
        (["many.yaml", "--set", "data.rows=0", "--set", "nodes=11000"], 2, "--set nodes: nodes: needs about"),
        (["many.yaml", "--set", "data.rows=0"], 2, "many.yaml:3:8: nodes: needs about"),
        (["small.yaml", "--json", "absent/run.json"], 2, "there is no directory"),
        (["small.yaml", "--out", "."], 2, "holds other files than a simulation's results"),
        (["small.yaml", "--out", "small.yaml/here"], 2, "cannot be written to"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_starts(path, capsys, monkeypatch, arguments, code, said):
    monkeypatch.setattr("p2pfed.sim.population.generated_payments", lambda *_: 1 / 0)
    monkeypatch.setattr("p2pfed.sim.feasibility.available_memory", lambda: 8 * 2**30)
    before = {place.name for place in path.parent.iterdir()}
    assert run(["simulate", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error and "generating" not in error
    assert {place.name for place in path.parent.iterdir()} == before


@pytest.mark.tf
@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "said", "whole"),
    [
        ("importing TensorFlow", "stopped by the operator before the simulation began: there are no results", False),
        ("writing results", "stopped by the operator, after all rounds: the results in small-0 are complete", True),
    ],
)
def test_ctrl_c_ends_cleanly(path, step, said, whole):
    command = [sys.executable, "-m", "p2pfed", "simulate", "small.yaml"]
    with subprocess.Popen(command, cwd=path.parent, stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if step in line)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert error.splitlines()[-1] == f"p2pfed: {said}" and "Traceback" not in error
    assert (path.parent / "small-0" / "topology.png").is_file() is (path.parent / "small-0").exists() is whole


@pytest.mark.tf
@pytest.mark.slow
def test_a_whole_run(path):
    command = [sys.executable, "-m", "p2pfed", "simulate", "small.yaml"]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small, seed 0\n") and "rounds" in done.stdout
    steps = done.stderr.splitlines()
    assert steps[0] == "generating payments and dealing them to 4 banks" and steps[-1] == "writing results to small-0"
    assert not [line for line in steps if line.startswith(("WARNING", "I0000"))], "TensorFlow keeps to itself"
    found = results.read(path.parent / "small-0" / "results.json")
    assert [node.rounds for node in found.nodes] == [3] * 4 and all(node.test for node in found.nodes)
    command = [sys.executable, "-c", "import p2pfed; print(p2pfed.simulate('small.yaml').digest)"]
    again = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=300)
    assert again.stdout == f"{found.simulated.digest}\n", again.stderr
