"""`start` and `cluster run`: what they hand on, without starting anything."""

from pathlib import Path

import pytest

from p2pfed.cli import run
from p2pfed.cluster.options import ClusterOptions
from p2pfed.config import NodeConfig
from p2pfed.errors import StateLocked

CONFIG = (
    "version: 1\nnode: {name: bank-a, state_dir: state}\n"
    "data:\n  source: {kind: csv, path: p.csv}\n  label: fraud\n  split: stratified\n"
)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "node.yaml"
    path.write_text(CONFIG)
    return path


def test_start_hands_the_daemon_its_configuration_and_a_way_to_read_it_again(config, monkeypatch):
    seen = []

    def daemon(node: NodeConfig, reread) -> int:
        config.write_text(CONFIG + "log: {level: debug}\n")
        seen.extend([node, reread()])
        return 7

    monkeypatch.setattr("p2pfed.runtime.daemon.run", daemon)
    assert run(["start", str(config), "--set", "learning.rounds=3"]) == 7
    node, again = seen
    assert (node.learning.rounds, again.learning.rounds) == (3, 3)
    assert (node.log.level, again.log.level) == ("info", "debug")


def test_start_ends_with_the_exit_code_of_what_stopped_it(config, monkeypatch, capsys):
    def daemon(*_: object) -> int:
        raise StateLocked("state is in use by p2pfed 0.1.0, process 7")

    monkeypatch.setattr("p2pfed.runtime.daemon.run", daemon)
    assert run(["start", str(config)]) == 73
    assert capsys.readouterr().err == "p2pfed: state is in use by p2pfed 0.1.0, process 7\n"


def test_ctrl_c_ends_with_130(config, monkeypatch):
    def daemon(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("p2pfed.runtime.daemon.run", daemon)
    assert run(["start", str(config)]) == 130


@pytest.fixture
def options(monkeypatch):
    seen: list[ClusterOptions] = []
    monkeypatch.setattr("p2pfed.cli.cluster._compare", seen.append)
    return seen


def test_cluster_run_without_options_takes_the_defaults(options):
    assert run(["cluster", "run"]) == 0
    assert options == [ClusterOptions()]


def test_cluster_run_hands_every_option_on(options, tmp_path):
    data = tmp_path / "payments.csv"
    data.touch()
    line = (
        f"cluster run --nodes 5 --rounds 7 --data {data} --label Class --drop a,b --time t --split time"
        " --test-share 0.2 --gap-days 7 --own-test-share 0.2 --partition by:bank --topology regular:3"
        " --model autoencoder --hidden 8,4,8 --dropout 0.1 --local-steps 9 --batch 64 --learning-rate 0.01"
        " --decay-rounds 3,5 --imbalance smote --rule mean --round-interval 2 --evaluate-every 3 --seed 11"
        f" --baselines alone,fedavg --keep --dir {tmp_path} --json out.json"
    )
    assert run(line.split()) == 0
    assert options == [
        ClusterOptions(
            nodes=5, rounds=7, data=data, label="Class", drop=("a,b",), time="t", split="time", test_share=0.2,
            gap_days=7, own_test_share=0.2, partition="by:bank", topology="regular:3", model="autoencoder",
            hidden=(8, 4, 8), dropout=0.1, local_steps=9, batch=64, learning_rate=0.01, decay_rounds=(3, 5),
            imbalance="smote", rule="mean", round_interval=2, evaluate_every=3, seed=11,
            baselines=("alone", "fedavg"), keep=True, directory=tmp_path, json=Path("out.json"),
        )
    ]  # fmt: skip


def test_the_command_line_offers_every_option_of_a_cluster(options):
    import dataclasses
    import inspect

    from p2pfed.cli import cluster

    offered = inspect.signature(cluster.run).parameters.keys()
    called = {"attacks": "attack", "reputation": "no_reputation"}
    assert {called.get(f.name, f.name) for f in dataclasses.fields(ClusterOptions)} | {"force", "allow_code"} == set(
        offered
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--nodes", "1"], "--nodes of at least 2"),
        (["--baselines", "magic"], "--baselines knows"),
        (["--hidden", "64,many"], "expected whole numbers"),
        (["--data", "absent.csv"], "there is no such file"),
        (["--json", "absent/run.json"], "there is no directory"),
        (["--partition", "foo"], "unknown partition"),
    ],
)
def test_cluster_options_that_make_no_sense_end_with_2(options, capsys, arguments, expected):
    assert run(["cluster", "run", *arguments]) == 2
    assert expected in capsys.readouterr().err
    assert options == []


def test_a_run_file_is_written_over_only_with_force(options, refused, said, tmp_path):
    file = tmp_path / "run.json"
    file.write_text("an hour's work")
    code, error = refused("cluster", "run", "--json", file)
    assert code == 2 and f"{file} exists" in error and "--force" in error
    assert options == [] and file.read_text() == "an hour's work"
    said("cluster", "run", "--json", file, "--force")
    assert [o.json for o in options] == [file]
