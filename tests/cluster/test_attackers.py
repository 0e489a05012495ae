"""Real daemons that attack: dropped by every honest one, and in their operators' hands."""

import json
from pathlib import Path

import pytest

from p2pfed import configfile
from p2pfed.adversary.__main__ import main
from p2pfed.api.client import AdminClient
from p2pfed.cli import run as p2pfed
from p2pfed.cluster import launcher
from p2pfed.cluster.founding import LocalCluster, found
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.progress import Screen
from p2pfed.cluster.running import RunningCluster
from p2pfed.errors import UsageError
from p2pfed.experiment.shards import deal

BANKS, ROUNDS = 4, 40
INTERVAL = 0.3
"""Seconds a round. Daemons whose trainers come up one after the other and that run as fast as they can are dozens of
rounds apart: then an honest bank of four looks far too. Twelve of 34 such runs missed what is asked below, none of 14
with this interval."""


def founded(folder: Path, *attacks: tuple[str, int], **changes: object) -> tuple[ClusterOptions, LocalCluster]:
    options = ClusterOptions(
        **({"nodes": BANKS, "rounds": ROUNDS, "round_interval": INTERVAL, "attacks": attacks} | changes)
    )
    return options, found(options, deal(options, folder / "data"), folder)


def test_attackers_are_drawn_and_those_on_rows_train_elsewhere(tmp_path):
    options, cluster = founded(tmp_path, ("signflip", 1), ("labelflip", 1))
    assert sorted(bank.attack for bank in cluster.banks) == ["", "", "labelflip", "signflip"]
    assert list(cluster.poisoners) == ["labelflip"]
    for bank in cluster.banks:
        where = cluster.poisoners["labelflip"] if bank.attack == "labelflip" else cluster.spawner_socket
        assert configfile.load(bank.config).learning.trainer_socket == where
    with pytest.raises(UsageError, match=r"frauds enough"):
        founded(tmp_path / "poor", ("signflip", 2), own_test_share=0.8499)


def test_an_attackers_daemon_needs_a_kind_that_there_is(tmp_path, capsys):
    assert main(["signflip"]) == 2
    assert main(["nonsense", str(tmp_path / "node.yaml")]) == 78
    assert "unknown attack 'nonsense'" in capsys.readouterr().err


@pytest.mark.e2e
@pytest.mark.tf
@pytest.mark.network
@pytest.mark.slow
def test_an_attacker_is_quarantined_by_every_honest_bank(tmp_path):
    options, cluster = founded(tmp_path, ("signflip", 1))
    (attacker,) = (bank.name for bank in cluster.banks if bank.attack)
    run = launcher.run(options, cluster, Screen())
    assert [node.name for node in run.nodes if node.role == "attacker"] == [attacker]
    honest = {node.name for node in run.nodes} - {attacker}
    assert {(q.observer, q.subject) for q in run.quarantines} == {(name, attacker) for name in honest}
    assert all(q.exchange <= 6 and q.released_round is None for q in run.quarantines)

    bank = next(bank for bank in cluster.banks if not bank.attack)
    at = ["--config", str(bank.config)]

    def seen(running: RunningCluster) -> tuple[str, str]:
        running.start(bank)
        running.wait(bank, 20)
        rows = AdminClient(bank.state.root).get("/api/v1/members")
        return next((row["standing"], row["status"]) for row in rows if row["name"] == attacker)

    running = RunningCluster(cluster)
    try:
        standing, _ = seen(running)
        assert standing == "quarantined", "a restart forgets nothing"
        assert p2pfed(["peer", "pardon", attacker, *at]) == p2pfed(["peer", "block", attacker, *at]) == 0
        running.processes.kill(bank.name)
        assert seen(running) == ("trusted", "blocked"), "nor does it forget the operator's word"
        assert p2pfed(["peer", "unblock", attacker, *at]) == 0
        reply = AdminClient(bank.state.root).get(f"/api/v1/members/{attacker}/reputation")
        assert (reply["blocked"], reply["standing"], reply["strikes"]) == (False, "trusted", 1)
        assert p2pfed(["peer", "block", bank.name, *at]) == 2
        assert json.loads(bank.state.blocklist.read_text()) == []
    finally:
        running.stop()


@pytest.mark.e2e
@pytest.mark.tf
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("signflip", "ipm"), ("labelflip", "equivocation")], ids="+".join)
def test_attackers_of_different_kinds_are_all_quarantined_and_the_run_ends(tmp_path, kinds):
    options, cluster = founded(tmp_path, *((kind, 1) for kind in kinds), nodes=6, rounds=40, round_interval=0.2)
    run = launcher.run(options, cluster, Screen())
    assert all(node.rounds == options.rounds for node in run.nodes)
    attackers = {bank.name: bank.attack for bank in cluster.banks if bank.attack}
    assert sorted(attackers.values()) == sorted(kinds)
    honest = {bank.name for bank in cluster.banks} - set(attackers)
    caught = {(q.observer, attackers.get(q.subject)) for q in run.quarantines if q.released_round is None}
    assert caught == {(name, kind) for name in honest for kind in kinds}
