"""Scenarios: every example is valid, and every mistake is said at its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from p2pfed.config import Section
from p2pfed.core.model import TrainingPolicy
from p2pfed.errors import ConfigError, UsageError
from p2pfed.sim import faults, sections
from p2pfed.sim.feasibility import edges_of
from p2pfed.sim.scenario import Scenario, load_scenario, scenario_from

EXAMPLES = Path(__file__).parents[2] / "node_config/scenarios"
LEAST: dict[str, Any] = {"version": 1, "nodes": 10, "rounds": 20}
SHORT: dict[str, Any] = {"rounds": 20, "round_seconds": 10, "cycles": 3}


def scenario(**changes: Any) -> Scenario:
    return scenario_from({**LEAST, **changes})


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "scenario.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_scenario(path)
    return [p.removeprefix(f"{path}:") for p in caught.value.problems]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_is_valid_and_says_what_it_is(path: Path) -> None:
    example = load_scenario(path)
    assert path.read_text().startswith("# ")
    assert example.name == path.stem.replace("_", "-")
    assert len(edges_of(example)) == (12 if path.stem == "regions" else 0)


def test_the_large_examples_are_as_large_as_they_say() -> None:
    thousand, swift = (load_scenario(EXAMPLES / f"{name}.yaml") for name in ("thousand_banks", "swift_11000"))
    assert (thousand.nodes, thousand.rounds, thousand.data.rows, thousand.graph) == (1000, 100, 200_000, ("random", 6))
    assert (swift.nodes, swift.rounds) == (11_000, 20)


def test_what_nobody_said() -> None:
    s = scenario()
    assert (s.dealing, s.split, s.graph, s.layers, s.evaluation_period) == (
        "by:bank",
        "time",
        ("random", 6),
        (64, 32),
        2,
    )
    assert s.policy == TrainingPolicy(30, 256, 2e-3, (15,), "class_weight", 10.0)
    assert (s.names[0], s.names[-1]) == ("bank-1", "bank-10")
    of_file = scenario(data={"file": "x.csv"}, model={"kind": "autoencoder"})
    assert (of_file.dealing, of_file.split, of_file.layers) == ("dirichlet:0.5", "stratified", (16, 8, 4, 8, 16))
    assert scenario(data={"file": "x.csv", "time": "paid_at"}).split == "time"


@pytest.mark.parametrize(
    ("topology", "graph"),
    [("random:3", ("random", 3)), ("random:60", ("random", 9)), ("full", ("full", 9)), ("ring", ("ring", 9))]
    + [("regular:4", ("regular:4", 4)), ("file:links", ("edges", 9))],
)
def test_topologies(topology: str, graph: tuple[str, int]) -> None:
    assert scenario(gossip={"topology": topology}).graph == graph


def test_settings_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("version: 1\nnodes: 10\nrounds: 20\n")
    changed = load_scenario(path, ["nodes=30", "attackers=[{kind: signflip, nodes: 3}]", "network.loss=0.1"])
    assert (changed.nodes, changed.attackers[0].nodes, changed.network.loss) == (30, 3, 0.1)
    with pytest.raises(UsageError, match="expected section.key=value"):
        load_scenario(path, ["nodes"])


def test_what_was_written_out_is_read_again() -> None:
    for path in EXAMPLES.glob("*.yaml"):
        example = load_scenario(path)
        assert scenario_from(example.model_dump(mode="json")) == example


def test_paths_start_at_the_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.parent)
    path = tmp_path / "s.yaml"
    path.write_text("version: 1\nnodes: 3\nrounds: 2\ndata: {file: x.csv}\ngossip: {topology: 'file:x.links'}\n")
    (tmp_path / "x.links").write_text("bank-1 bank-2 # near\n\nbank-2 bank-3\n")
    read = load_scenario(path)
    assert read.data.file == tmp_path / "x.csv"
    assert edges_of(read) == (("bank-1", "bank-2"), ("bank-2", "bank-3"))


def test_a_missing_file_says_where_examples_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such file; examples are in node_config/scenarios/"):
        load_scenario(tmp_path / "absent.yaml")


def test_mistakes_in_lists_have_their_place(tmp_path: Path) -> None:
    text = """\
version: 1
nodes: 10
rounds: 0
gossip: {encoding: int4, topolgy: ring}
attackers:
  - {kind: signflip, nodes: 2}
  - {kind: signflip, nodes: true, strat: 3}
  - {kind: signflip, nodes: 2, start: 5, stop: 5}
outages: [{nodes: [bank-1], start: 9, end: 3}]
partitions:
  - groups: [[bank-1]]
    start: 0
    end: 10
network:
  links: [{between: [bank-1], loss: 2}]
"""
    assert problems(tmp_path, text) == [
        "3:9: rounds: should be greater than or equal to 1, got 0",
        "4:20: gossip.encoding: should be 'float32', 'float16' or 'int8', got 'int4'",
        "4:26: unknown key 'gossip.topolgy'; did you mean 'topology'?",
        "7:29: attackers.1.nodes: should be how many nodes, or a list of names such as [bank-1, bank-2]",
        "7:35: unknown key 'attackers.1.strat'; did you mean 'start'?",
        "8:5: attackers.2: stop is 5, not after start, 5",
        "9:11: outages.0: end is 3, not after start, 9",
        "11:5: partitions.0.groups: Tuple should have at least 2 items after validation, not 1, got [['bank-1']]",
        "15:12: 'network.links.0.between.1' is missing",
        "15:37: network.links.0.loss: should be less than or equal to 1, got 2",
    ]


def test_contradictions_have_their_place_too(tmp_path: Path) -> None:
    text = """\
version: 1
nodes: 11
rounds: 5
partition: dirichlet
gossip: {topology: "regular:5"}
odd: {bank: bank-12, rows: 40}
dial_out: [bank-1, bank-1]
churn: {share: 0.01, mean_up: 3, mean_down: 3}
attackers:
  - {kind: signflip, nodes: 5}
  - {kind: signflip, nodes: [bank-2, bank-99]}
  - {kind: gaussian, nodes: 9}
"""
    assert problems(tmp_path, text) == [
        "4:12: partition: unknown partition 'dirichlet': expected iid, dirichlet:0.5, lognormal:0.8 or by:COLUMN",
        "5:20: gossip.topology: regular:5 of 11 nodes: the product of both must be even; 10 or 12 nodes fit, "
        "or regular:4",
        "6:13: odd.bank: there is no node 'bank-12'; they are bank-1 to bank-11",
        "7:1: dial_out: 'bank-1' stands there twice",
        "8:16: churn.share: 0.01 of 11 nodes is none; 0.091 is one",
        "11:22: attackers.1.nodes: there is no node 'bank-99'; they are bank-1 to bank-11",
        "12:29: attackers.2.nodes: 16 attackers of 11 nodes; at most 10 fit, for one must stay honest",
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"label": "is_fake"}, "label is for a file"),
        ({"time": "when"}, "time is for a file"),
        ({"file": "x.csv", "rows": 5}, "rows counts generated payments"),
        ({"file": "x.csv", "split": "time"}, "split: time needs time"),
    ],
)
def test_keys_of_files_and_of_generated_payments(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        scenario(data=data)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"rounds": 10**400}, "rounds"),
        ({"data": {"rows": 10**400}}, "data.rows"),
        ({"model": {"hidden": [10**400]}}, "model.hidden.0"),
        ({"model": {"hidden": [2] * 500}}, "model.hidden"),
        ({"training": {"local_steps": 10**400}}, "training.local_steps"),
        ({"training": {"batch": 10**10}}, "training.batch"),
        ({"compute": {"seconds_per_step": 1e308}}, "compute.seconds_per_step"),
        ({"clock_skew": {"offset_seconds": 1e300}}, "clock_skew.offset_seconds"),
        ({"network": {"megabits": 5e-324}}, "network.megabits"),
        ({"network": {"megabits": float("nan")}}, "network.megabits"),
        ({"churn": {"share": 1, "mean_up": 1e-9, "mean_down": 1}}, "churn.mean_up"),
        ({"outages": [{"nodes": 1, "start": 1, "end": 1e300}]}, "outages.0.end"),
    ],
)
def test_numbers_beyond_all_reason(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        scenario(**changes)
    assert str(caught.value).startswith(f"{place}: ")


def test_attackers_that_make_no_sense_have_their_place(tmp_path: Path) -> None:
    text = """\
version: 1
nodes: 10
rounds: 9
attackers:
  - {kind: labelflip, share: 0.3, start: 5}
  - {kind: mimic, share: 0.3, scale: 2}
  - {kind: alie}
  - {kind: alie, nodes: 2, share: 0.2}
  - {kind: alie, nodes: 1, share: 1.5}
  - {kind: "duty:2", nodes: 1}
  - {kind: drip, nodes: 1, stop: 20}
  - {kind: alie, nodes: 1, duty: [0, 2]}
"""
    who = "say who: either nodes (names, or how many) or share (of the banks that publish)"
    assert problems(tmp_path, text) == [
        "5:5: attackers.0: labelflip poisons the rows it trains on, in all rounds: start, stop and duty are not for it",
        "6:5: attackers.1: attack 'mimic' has no scale: leave it out",
        f"7:5: attackers.2: {who}",
        f"8:5: attackers.3: {who}",
        "9:35: attackers.4.share: should be less than 1, got 1.5",
        "10:12: attackers.5.kind: attack 'duty:2': write duty:POISONED:HONEST, whole numbers of rounds, such as "
        "duty:1:2",
        "11:5: attackers.6: stop is 20, not after start, 30",
        "12:35: attackers.7.duty.0: should be greater than or equal to 1, got 0",
    ]


def test_labels_are_not_poisoned_for_autoencoders(tmp_path: Path) -> None:
    text = """\
version: 1
nodes: 10
rounds: 9
model: {kind: autoencoder}
attackers: [{kind: alie, nodes: 2}, {kind: labelflip, nodes: 2}]
"""
    assert problems(tmp_path, text) == [
        "5:44: attackers.1.kind: labelflip poisons labels, from which an autoencoder learns nothing"
    ]


def test_an_unknown_attack() -> None:
    with pytest.raises(ConfigError, match=r"attackers\.0\.kind: unknown attack 'tickle': choose .*signflip"):
        scenario(attackers=[{"kind": "tickle", "nodes": 1}])


def test_every_key_is_documented() -> None:
    for name, model in [*vars(sections).items(), *vars(faults).items()]:
        if isinstance(model, type) and issubclass(model, Section):
            assert not [key for key, field in model.model_fields.items() if not field.description], name


def test_an_unknown_rule() -> None:
    with pytest.raises(ConfigError, match=r"gossip\.rule: unknown merge rule 'krumm': choose .*clip"):
        scenario(gossip={"rule": "krumm"})


@pytest.mark.parametrize("topology", ["star", "random:0", "random", "regular:x", "file:", "regular:-2"])
def test_unknown_topologies(topology: str) -> None:
    with pytest.raises(ConfigError, match=r"gossip\.topology: should be random:COUNT, full, ring, regular:K or file"):
        scenario(gossip={"topology": topology})


def test_a_calendar_says_how_many_rounds_there_are() -> None:
    made = scenario_from({"version": 1, "nodes": 3, "calendar": {"every_hours": 24} | SHORT})
    assert made.rounds == 60 and made.agreed_calendar.every == 86400
    assert made.agreed_calendar.begins(0) == 60 and made.policy.decay_rounds == (15,)
    assert scenario_from(made.model_dump()) == made


def test_calendars_that_make_no_sense_have_their_place(tmp_path: Path) -> None:
    begin = "version: 1\nnodes: 10\n"
    short = "rounds: 20, round_seconds: 10, cycles: 3"
    assert problems(tmp_path, f"{begin}rounds: 9\ncalendar: {{every_hours: 1, {short}}}\n") == [
        "3:9: rounds: 3 cycles of 20 rounds are 60, not 9; with a calendar leave it out"
    ]
    assert problems(tmp_path, f"{begin}calendar: {{{short}}}\n") == [
        "3:1: calendar: say how often: either every_hours or every_seconds"
    ]
    assert problems(tmp_path, f"{begin}calendar: {{every_seconds: 100, {short}}}\n") == [
        "3:1: calendar: a cycle of 20 rounds of 10 s takes 200 s, longer than the 100 s from one to the next; at most "
        "10 rounds fit"
    ]
    assert problems(tmp_path, f"{begin}calendar: {{every_hours: 1, {short}}}\ntraining: {{local_steps: 0}}\n") == [
        "4:25: training.local_steps: an epoch has no fixed length; with a calendar say how many steps"
    ]
