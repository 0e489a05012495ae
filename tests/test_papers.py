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
    regular, random, ring = (list(line.values()) for line in json.loads(capsys.readouterr().out).values())
    assert random < regular < ring
    assert all(nodes == pytest.approx(computed, rel=0.05) for nodes, computed, _ in (random, regular, ring))
    assert random[2] == pytest.approx((1 - 4 / 23) / 5, rel=0.1)


@pytest.mark.tf
@pytest.mark.slow
def test_gossip_and_federated_averaging_move_as_many_bytes(script, capsys):
    who = {"nodes": 4, "seed": 0, "min_rows": 100, "data": {"rows": 4000, "test_rows": 500}}
    found = script("gossip_learning").compare("dirichlet:0.5", 20, who)
    assert list(found) == [f"not uniform: {method}" for method in ("2 pulled", "1 pulled", "own merge", "federated")]
    federated = found["not uniform: federated"]
    for last, ratio, along, megabytes in found.values():
        assert ratio == pytest.approx(last / federated[0])
        assert megabytes == pytest.approx(federated[3], rel=0.25)
        assert 0 < last < 1 and 0 < along < 1
