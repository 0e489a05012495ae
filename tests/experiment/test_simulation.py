"""A simulation's results as files and a table, what is refused beforehand, and Ctrl-C."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

import p2pfed
from p2pfed import results
from p2pfed.errors import ConfigError, DiskFault, Interrupted, LocalFault, UsageError
from p2pfed.experiment import plots, simulation
from p2pfed.experiment.progress import Screen
from p2pfed.sim.engine import Engine
from p2pfed.sim.history import Progress
from tests.sim.consortium import QUICK, learner, population, scenario, simulated

FILES = {"results.json", "history.parquet", "spread.parquet", "auprc.png", "worst.png", "consensus.png", "bytes.png",
         "quarantine.png", "topology.png"}  # fmt: skip


@pytest.fixture(scope="module")
def history():
    return simulated(attackers=[{"kind": "signflip", "nodes": ["bank-2"]}], evaluate={"every": 2})


def names(folder):
    return {path.name for path in folder.iterdir()}


def quiet(terminal=False):
    return Screen(Console(file=io.StringIO(), force_terminal=terminal, width=120))


def test_everything_is_written(history, tmp_path):
    simulation.write(history, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert names(folder) == FILES
    run = results.read(folder / "results.json")
    assert run.kind == "simulate" and run.simulated.digest == history.digest and not run.simulated.interrupted
    assert run.nodes == history.run.nodes and run.history == history.run.history


def test_the_tables_are_tidy(history, tmp_path):
    simulation.write(history, tmp_path, pictures=False)
    rounds = pd.read_parquet(tmp_path / "history.parquet")
    assert list(rounds.columns) == ["node", "role", "round", "time", "loss", "auprc", "bytes_in", "seconds",
                                    "displacement", "merged"]  # fmt: skip
    assert len(rounds) == len(history.points) == 6 * 5
    assert set(rounds.loc[rounds["role"] == "attacker", "node"]) == {"bank-2"}
    first = history.points[0]
    assert tuple(rounds.iloc[0])[2:5] == (first.round, first.time, first.loss)
    assert rounds["auprc"].notna().sum() == sum(point.auprc is not None for point in history.points)
    spread = pd.read_parquet(tmp_path / "spread.parquet")
    assert list(spread["consensus_distance"]) == [row.consensus_distance for row in history.spread]


def test_without_optional_packages_the_run_file_is_written_and_what_lacks_is_said(history, tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "_installed", lambda module: False)
    simulation.write(history, tmp_path / "results")
    assert names(tmp_path / "results") == {"results.json"}
    out = io.StringIO()
    monkeypatch.setattr(simulation.sim, "prepare", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        simulation.run(scenario(), tmp_path / "other", Screen(Console(file=out, width=200)))
    assert "pip install 'p2pfed[research]'" in out.getvalue() and "pip install 'p2pfed[parquet]'" in out.getvalue()


def test_a_folder_with_results_of_the_same_scenario_is_taken_again(history, tmp_path):
    same = scenario(attackers=[{"kind": "signflip", "nodes": ["bank-2"]}], evaluate={"every": 2})
    simulation.write(history, tmp_path, pictures=False)
    simulation.claim(tmp_path, same)


def test_a_folder_with_results_of_another_scenario_is_left_alone(history, tmp_path):
    simulation.write(history, tmp_path, pictures=False)
    with pytest.raises(UsageError, match="another scenario, which differs in seed, attackers, evaluate.every;"):
        simulation.claim(tmp_path, scenario(seed=9))


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "p2pfed.run/1"}'])
def test_a_folder_with_other_files_is_left_alone(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UsageError, match="holds other files"):
        simulation.claim(tmp_path, scenario())


def test_a_place_that_cannot_be_written_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written to"):
        simulation.claim(tmp_path / "file" / "results", scenario())
    with pytest.raises(DiskFault, match="cannot be made"):
        simulation.write(simulated(rounds=1), tmp_path / "file" / "results")


def test_the_closing_table(history):
    rows = {line[:13].strip(): line[13:].split() for line in simulation.closing_table(history).splitlines()}
    honest = [n for n in history.run.nodes if n.role == "honest"]
    worst = min(honest, key=lambda n: n.test["auprc"])
    assert rows["banks"] == ["6", "1", "of", "them", "attackers"]
    assert rows["rounds"] == ["5", "of", "5"]
    assert rows["AUPRC worst"] == [f"{worst.test['auprc']:.3f}", worst.name]
    assert float(rows["AUPRC mean"][0]) == pytest.approx(sum(n.test["auprc"] for n in honest) / 5, abs=6e-4)
    assert rows["inputs"][0] == f"{history.inputs_handled:,}"
    assert rows["result hash"] == [history.digest[:16]]


def test_a_run_that_was_stopped_or_given_up_says_so(history):
    stopped = replace(history, ended="stopped")
    assert simulation.run_file(stopped).simulated.ended == "stopped by the operator after rounds 5 of 5"
    with pytest.raises(Interrupted):
        simulation.check_ended(stopped)
    with pytest.raises(LocalFault, match="given up") as given_up:
        simulation.check_ended(replace(history, ended="given up after 9 virtual seconds"))
    assert given_up.value.exit_code == 1
    simulation.check_ended(history)


def numpy_engine(s, watch, say=lambda step: None, *, transcript=False):
    made = population(s)
    return Engine(made, s, learner(made), watch, transcript=transcript)


class Pressed(Screen):
    """Sends this process a signal the first time that there is progress."""

    def __init__(self, number):
        super().__init__(Console(file=io.StringIO()))
        self.left = [number]

    def show(self, progress):
        if self.left:
            os.kill(os.getpid(), self.left.pop())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_what_there_is(tmp_path, monkeypatch, number):
    monkeypatch.setattr(simulation.sim, "prepare", numpy_engine)
    before = signal.getsignal(number)
    asked = scenario(rounds=500, evaluate={"every": 2})
    history = simulation.run(asked, tmp_path / "out", Pressed(number))
    assert signal.getsignal(number) is before
    run = results.read(tmp_path / "out" / "results.json")
    assert run.simulated.interrupted and names(tmp_path / "out") >= {"history.parquet", "auprc.png"}
    reached = [node.rounds for node in run.nodes]
    assert 0 < max(reached) < 500
    assert f"{min(reached)} to {max(reached)} of 500" in run.simulated.ended or min(reached) == max(reached)
    with pytest.raises(Interrupted):
        simulation.check_ended(history)


def test_a_second_ctrl_c_does_not_wait_for_what_is_being_computed(tmp_path, monkeypatch):
    computed = []

    def slow(engine):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        computed.append(engine)

    monkeypatch.setattr(simulation.sim, "prepare", numpy_engine)
    monkeypatch.setattr(Engine, "_measure_the_rest", slow)
    history = simulation.run(scenario(), tmp_path / "out", quiet(), pictures=False)
    assert not computed
    assert history.ended == "stopped" and (tmp_path / "out" / "results.json").is_file()


def test_ctrl_c_while_it_is_prepared_leaves_nothing_whatever_becomes_of_it(tmp_path, monkeypatch):
    def swallows(*_, **__):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)

    def converts(*_, **__):
        swallows()
        raise ImportError("half a module")

    for prepare in (swallows, converts):
        monkeypatch.setattr(simulation.sim, "prepare", prepare)
        with pytest.raises(Interrupted, match="before the simulation began: there are no results"):
            simulation.run(scenario(), tmp_path / "out", quiet())
        assert not (tmp_path / "out").exists()


def test_ctrl_c_while_results_are_written_waits_for_them(tmp_path, monkeypatch):
    write = results.write

    def pressed(*arguments):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        write(*arguments)

    monkeypatch.setattr(simulation.sim, "prepare", numpy_engine)
    monkeypatch.setattr(results, "write", pressed)
    with pytest.raises(Interrupted, match="after all rounds: the results in .* are complete"):
        simulation.run(scenario(), tmp_path / "out", quiet(), json=tmp_path / "run.json")
    assert names(tmp_path / "out") >= {"results.json", "history.parquet", "auprc.png"}
    assert results.read(tmp_path / "run.json").simulated.interrupted is False


def test_under_nohup_a_closed_terminal_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(simulation.sim, "prepare", numpy_engine)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        history = simulation.run(scenario(), tmp_path / "out", Pressed(signal.SIGHUP), pictures=False)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert history.ended.startswith("every node")


def test_a_broken_package_costs_only_what_needs_it(tmp_path, monkeypatch, history):
    def broken(*_):
        raise ImportError("numpy.core.multiarray\nfailed to import")

    said = []
    monkeypatch.setattr(plots, "draw", broken)
    simulation.write(history, tmp_path, say=said.append)
    assert names(tmp_path) == {"results.json", "history.parquet", "spread.parquet"}
    assert said == [
        "the pictures could not be drawn (ImportError: numpy.core.multiarray failed to import); the other results are "
        "whole, so look whether matplotlib is installed well"
    ]
    monkeypatch.setattr(plots, "draw", lambda *_: (_ for _ in ()).throw(DiskFault("full")))
    with pytest.raises(DiskFault):
        simulation.write(history, tmp_path)


def test_a_run_stopped_before_its_first_round_can_be_written(tmp_path):
    s = scenario()
    made = population(s)
    engine = Engine(made, s, learner(made))
    engine.stop()
    history = engine.run()
    simulation.write(history, tmp_path)
    assert names(tmp_path) == {"results.json", "history.parquet", "spread.parquet"}
    assert "no model was measured" in simulation.closing_table(history)


@pytest.fixture
def asked(monkeypatch, history):
    """The scenarios that were simulated."""
    seen = []
    monkeypatch.setattr(simulation.sim, "simulate", lambda s, watch, transcript: seen.append(s) or history)
    return seen


def test_from_python_a_path_a_mapping_or_a_scenario(asked, tmp_path, history):
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(QUICK))
    assert p2pfed.simulate(path) is history
    p2pfed.simulate(str(path), settings=["rounds=7"])
    p2pfed.simulate(QUICK)
    p2pfed.simulate(scenario())
    assert asked == [scenario(), scenario(rounds=7), scenario(), scenario()]


def test_from_python_results_are_written_on_demand(asked, tmp_path):
    p2pfed.simulate(QUICK, tmp_path / "out")
    assert names(tmp_path / "out") == FILES
    with pytest.raises(UsageError, match="another scenario"):
        p2pfed.simulate({**QUICK, "seed": 4}, tmp_path / "out")
    assert len(asked) == 1


def test_from_python_mistakes_are_named(asked):
    with pytest.raises(ConfigError, match="unknown key 'round'; did you mean 'rounds'"):
        p2pfed.simulate({**QUICK, "round": 4})
    with pytest.raises(UsageError, match="settings lie over a file"):
        p2pfed.simulate(QUICK, settings=["rounds=7"])
    with pytest.raises(AttributeError, match="no attribute 'simulates'"):
        _ = p2pfed.simulates
    assert not asked


def test_importing_the_package_imports_none_of_it():
    code = (
        "import sys, p2pfed; a = set(sys.modules); p2pfed.simulate; print('pandas' in a, 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"


def progress(share, rounds=20):
    return Progress(3600.0, int(rounds * share) // 2, rounds * share, rounds, 1000, 0.5, share)


def test_plain_lines_where_there_is_no_terminal():
    now, out = [0.0], io.StringIO()
    screen = Screen(Console(file=out, width=120), lambda: now[0])
    with screen:
        for moment, share in ((0.0, 0.0), (1.0, 0.1), (6.0, 0.25), (11.0, 0.5)):
            now[0] = moment
            screen.show(progress(share))
    assert out.getvalue().splitlines() == [
        "round 0 of 20 · mean AUPRC 0.500 · 1,000 nodes up · 3,600 s virtual · time left unknown",
        "round 5 of 20 (slowest 2) · mean AUPRC 0.500 · 1,000 nodes up · 3,600 s virtual · time left 0:25",
        "round 10 of 20 (slowest 5) · mean AUPRC 0.500 · 1,000 nodes up · 3,600 s virtual · time left 0:12",
    ]


def test_a_bar_on_a_terminal():
    screen = quiet(terminal=True)
    with screen:
        screen.step("importing TensorFlow")
        screen.show(progress(0.5))
        screen._bar.refresh()
        said = screen._console.file.getvalue()
    assert "importing TensorFlow" in said and "round 10 of 20" in said and "time left" in said
