"""The scripts that repeat papers' findings, on few nodes."""

import json
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts" / "papers"))
    return import_module


def test_simulated_nodes_mix_like_averages_of_models_a_round_old(script, capsys):
    script("epidemic_learning").main(nodes=24, degree=4, rounds=16, as_json=True)
    random, regular, ring = (list(line.values()) for line in json.loads(capsys.readouterr().out).values())
    assert random < regular < ring
    assert all(nodes == pytest.approx(computed, rel=0.05) for nodes, computed, _ in (random, regular, ring))
    assert random[2] == pytest.approx((1 - 4 / 23) / 5, rel=0.1)


@pytest.mark.tf
def test_gossip_and_federated_averaging_move_as_many_bytes(script, capsys):
    script("gossip_learning").main(nodes=6, rounds=20, as_json=True)
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert len(found) == 8 and "not uniform: own merge" in printed.err
    for name, line in found.items():
        federated = found[f"{name.split(':')[0]}: federated"]
        assert line["by federated's"] == pytest.approx(line["at the end"] / federated["at the end"])
        assert line["MB of models"] == pytest.approx(federated["MB of models"], rel=0.25)
        assert 0 < line["at the end"] < line["along the run"] < 1
