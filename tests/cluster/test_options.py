"""What cannot be run is refused before anything is started."""

from pathlib import Path

import pytest

from p2pfed.cluster.options import ClusterOptions
from p2pfed.errors import UsageError


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"nodes": 1}, "--nodes"),
        ({"rounds": 0}, "--rounds"),
        ({"cycles": -1}, "--cycles"),
        ({"cycles": 2, "local_steps": 0}, "--local-steps 0, an epoch, has no fixed length"),
        ({"cycles": 2, "round_interval": 1.0}, "--round-seconds"),
        ({"cycles": 2, "round_seconds": 0.01}, "of 0.1 s to a day"),
        ({"baselines": ("alone", "oracle")}, "'oracle'"),
        ({"topology": "star"}, "'star'"),
        ({"rule": "nearest"}, "--rule: unknown merge rule 'nearest'"),
        ({"rule": "os:abort"}, "--rule: .* names code, .* say --allow-code"),
        ({"topology": "random:none"}, "random:COUNT"),
        ({"data": Path("nowhere.csv")}, "nowhere.csv"),
        ({"data": Path(__file__), "split": "time"}, "--time"),
        ({"test_share": 1.0}, "--test-share"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"partition": "foo"}, "--partition: unknown partition 'foo'"),
        ({"partition": "dirichlet:-1"}, "positive number"),
        ({"partition": "by:"}, "'by:'"),
        ({"json": Path(__file__).parent / "nope" / "run.json"}, "there is no directory .*nope"),
        ({"json": Path(__file__).parent}, "cannot be written"),
    ],
)
def test_a_wrong_option_is_named(wrong, said):
    with pytest.raises(UsageError, match=said):
        ClusterOptions(**wrong)


@pytest.mark.parametrize(
    ("topology", "graph"),
    [("random:6", ("random", 3)), ("random:2", ("random", 2)), ("full", ("full", 3)), ("regular:2", ("regular:2", 2))],
)
def test_topologies(topology, graph):
    assert ClusterOptions(nodes=4, topology=topology).graph == graph


def test_the_rate_steps_down_after_three_quarters_unless_told():
    assert ClusterOptions(rounds=40).policy().decay_rounds == (30,)
    assert ClusterOptions(rounds=40, decay_rounds=()).policy().decay_rounds == ()


def test_about_ten_evaluations_a_run():
    assert [ClusterOptions(rounds=n).evaluation_period for n in (5, 20, 80)] == [1, 2, 8]
    assert ClusterOptions(rounds=80, evaluate_every=10).evaluation_period == 10


@pytest.mark.parametrize(
    ("attacks", "said"),
    [
        ((("nonsense", 1),), "unknown attack 'nonsense'"),
        ((("", 1),), "unknown attack"),
        ((("signflip", 0),), "COUNT of at least 1"),
        ((("signflip", 2), ("zero", 1)), "fewer than two honest banks"),
    ],
)
def test_attackers_that_cannot_be_are_refused(attacks, said):
    with pytest.raises(UsageError, match=said):
        ClusterOptions(nodes=4, attacks=attacks)
    ClusterOptions(nodes=4, attacks=(("duty:1:2", 2),))


def test_cycles_follow_each_other_by_the_clock():
    options = ClusterOptions(nodes=4, rounds=20, cycles=3, round_seconds=2.5)
    calendar = options.calendar(1000.0)
    assert options.total_rounds == 60 and options.policy().decay_rounds == (15,)
    assert [calendar.begins(cycle) - calendar.begins(0) for cycle in range(3)] == [0, 50, 100]
    assert 1030 <= calendar.begins(0) <= 1040
    assert ClusterOptions(rounds=20).calendar(1000.0).free and ClusterOptions(rounds=20).total_rounds == 20
