"""The run file keeps everything and refuses what is not one."""

import json
from dataclasses import replace

import pytest

from p2pfed import results
from p2pfed.errors import DataError, DiskFault
from p2pfed.results import Alone, Baselines, HistoryPoint, NodeRun, Quarantine, RunFile, Simulated

MEASURES = {
    "auprc": 0.8,
    "auroc": 0.9,
    "precision": 0.5,
    "recall": 0.6,
    "f1": 0.55,
    "recall_at_fpr_0.001": 0.4,
    "confusion": [[90, 1], [2, 7]],
}
NODE = NodeRun("bank-1", "A" * 56, "honest", 1000, 9, 20, MEASURES, None, Alone(MEASURES, None), 10, 20, 30)
RUN = RunFile(
    kind="cluster",
    seed=3,
    rounds=20,
    wall_seconds=12.5,
    versions={"p2pfed": "0.1"},
    options={"nodes": 4},
    nodes=(NODE, replace(NODE, name="bank-2", alone=None, role="attacker")),
    baselines=Baselines(fedavg=MEASURES),
    quarantines=(Quarantine("bank-1", "bank-2", 4, 3, None),),
    history=(HistoryPoint(1, "bank-1", None, 0.7, 100, 0.5),),
)


SIMULATED = replace(RUN, kind="simulate", simulated=Simulated(90.5, 2551, "ab" * 32, "stopped", True))


@pytest.mark.parametrize("run", [RUN, SIMULATED, replace(RUN, nodes=(), quarantines=(), history=())])
def test_written_and_read_again(tmp_path, run):
    path = tmp_path / "run.json"
    results.write(run, path)
    assert results.read(path) == run
    assert json.loads(path.read_text()) == json.loads(json.dumps(results.to_json(run)))
    assert len(path.read_text().splitlines()) < 30


def test_a_file_of_an_older_version_is_read(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({k: v for k, v in results.to_json(RUN).items() if k != "simulated"}))
    assert results.read(path) == RUN


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DiskFault, match=r"absent/run\.json cannot be written: No such file"):
        results.write(RUN, tmp_path / "absent" / "run.json")


def test_a_failure_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "run.json"
    results.write(RUN, path)
    with pytest.raises(ValueError):
        results.write(replace(RUN, wall_seconds=float("nan")), path)
    assert results.read(path) == RUN
    assert list(tmp_path.iterdir()) == [path]


def test_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run.json.part").symlink_to(tmp_path / "precious")
    results.write(RUN, tmp_path / "run.json")
    assert (tmp_path / "precious").read_text() == "precious"
    assert results.read(tmp_path / "run.json") == RUN


def test_the_shape_that_others_script_against():
    value = json.loads(json.dumps(results.to_json(RUN)))
    assert value["schema"] == "p2pfed.run/1"
    assert set(value) == {
        "schema", "kind", "seed", "rounds", "wall_seconds", "versions", "options", "nodes", "baselines",
        "quarantines", "history", "simulated",
    }  # fmt: skip
    assert set(value["nodes"][0]) == {
        "name", "id", "role", "train_rows", "train_frauds", "rounds", "test", "own_test", "alone", "bytes_sent",
        "bytes_received", "peak_rss_bytes",
    }  # fmt: skip
    assert set(value["baselines"]) == {"centralised", "fedavg"}
    assert set(value["quarantines"][0]) == {"observer", "subject", "round", "exchange", "released_round"}
    assert set(value["history"][0]) == {"round", "node", "auprc", "loss", "bytes", "seconds"}


def test_only_honest_nodes_count():
    assert RUN.auprc() == (0.8,)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "p2pfed.run/2"}', '{"schema": "p2pfed.run/1"}', '{"nodes": 1}'])
def test_another_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"run\.json"):
        results.read(path)
