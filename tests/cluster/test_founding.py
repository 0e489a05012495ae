"""A founded consortium is one that real banks could have founded: its files are what the daemon reads."""

import stat
import sys
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from p2pfed import configfile
from p2pfed.cli import run
from p2pfed.cluster.founding import PORTS, claimed_ports, found
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.running import RunningCluster
from p2pfed.core.aggregation import code_allowed, registry
from p2pfed.core.consortium import parse_signed
from p2pfed.core.joining import open_join_request
from p2pfed.core.succession import verify_root
from p2pfed.core.types import Address
from p2pfed.data import synthetic
from p2pfed.data.features import load_bank
from p2pfed.errors import UsageError
from p2pfed.experiment import shards
from p2pfed.runtime import daemon
from p2pfed.runtime.daemon import Daemon
from p2pfed.store.credentials import load_member_key
from p2pfed.store.sqlite import SqliteStore

BANKS = 3


@pytest.fixture(scope="module")
def options():
    return ClusterOptions(nodes=BANKS, rounds=8, seed=5)


@pytest.fixture(scope="module")
def cluster(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "PAYMENTS_A_BANK", 4000)
        dealt = shards.deal(options, folder / "data")
    return found(options, dealt, folder)


def test_the_manifest_is_signed_and_lists_every_bank(cluster):
    for bank in cluster.banks:
        (stored,) = bank.state.manifests().values()
        signed = parse_signed(stored)
        assert verify_root(signed, signed.fingerprint) == cluster.manifest
    members = cluster.manifest.by_id
    assert {members[bank.id].name for bank in cluster.banks} == {"bank-1", "bank-2", "bank-3"}


def test_only_a_daemon_that_is_told_so_runs_a_rule_of_ones_own(tmp_path, options, refused, capsys, monkeypatch):
    monkeypatch.setattr(synthetic, "PAYMENTS_A_BANK", 4000)
    dealt = shards.deal(options, tmp_path / "data")
    with code_allowed():
        own = found(replace(options, rule="p2pfed.core.aggregation:Mean"), dealt, tmp_path)
    bank, started = own.banks[0], []
    running = RunningCluster(own)
    monkeypatch.setattr(running.processes, "start", lambda name, command, log: started.append(command))
    running.start(bank)
    running.start(replace(bank, attack="echo"))
    assert started[0] == ["-m", "p2pfed", "start", str(bank.config), "--allow-code"]
    assert started[1] == ["-m", "p2pfed.adversary", "echo", str(bank.config), "--allow-code"]
    ran, imported, load = [], [], registry.importlib.import_module
    store = SqliteStore(bank.state)
    monkeypatch.setattr(daemon, "run", lambda config, _: ran.append(Daemon(config, bank.state, store, None)) or 0)
    monkeypatch.setattr(registry.importlib, "import_module", lambda *name: imported.append(name[0]) or load(*name))
    code, said = refused("start", bank.config)
    assert code == 78 and "'p2pfed.core.aggregation:Mean' names code" in said and "--allow-code" in said
    for verb in (["check", "--no-data"], ["status"], ["init"]):
        run([*verb, "--json", "-c", str(bank.config)])
        captured = capsys.readouterr()
        assert "names code" not in captured.out + captured.err, "it runs no rule"
    assert not ran and "p2pfed.core.aggregation" not in imported
    assert run(["start", str(bank.config), "--allow-code"]) == 0
    assert ran and "p2pfed.core.aggregation" in imported
    store.close()


def test_keys_are_private_and_fit_the_manifest(cluster):
    for bank in cluster.banks:
        assert load_member_key(bank.state).node_id == bank.id
        for path in (bank.state.member_key, bank.state.tls, cluster.folder / "admin.key"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_configurations_are_read_back_as_written(cluster, options):
    ports = set()
    for i, bank in enumerate(cluster.banks):
        config = configfile.load(bank.config)
        assert config.node.name == bank.name
        assert config.data == bank.data
        assert config.learning.rounds == options.rounds
        assert config.learning.seed == options.seed + i
        assert config.learning.trainer_socket == cluster.spawner_socket
        (endpoint,) = cluster.manifest.by_id[bank.id].endpoints
        assert config.peers.listen == endpoint
        ports |= {Address.parse(endpoint).port, Address.parse(config.admin.listen).port}
    assert len(ports) == 2 * BANKS


def test_join_requests_are_kept(cluster):
    for bank in cluster.banks:
        request = open_join_request((bank.config.parent / "join-request.json").read_bytes())
        assert request.name == bank.name
        assert request.moments is not None
        rows, told = cluster.manifest.declared[bank.id].training_rows, request.training_rows
        assert rows == told and told <= len(load_bank(bank.data, cluster.manifest.contract, 2e9).rows.train) < 2 * told


def test_every_bank_loads_under_the_contract(cluster):
    loaded = [load_bank(b.data, cluster.manifest.contract, 2e9).rows for b in cluster.banks]
    assert all(rows.train.features.shape[1] == cluster.manifest.model.inputs for rows in loaded)
    assert len({len(rows.pooled_test) for rows in loaded}) == 1
    assert all(len(rows.own_test) and rows.pooled_test.frauds for rows in loaded)
    columns = {column.name for column in cluster.manifest.contract.columns}
    assert not columns & {"bank", "event_time", "fraud", "customer_id", "pattern"}


def test_a_directory_with_a_cluster_is_not_used_again(cluster, options):
    dealt = shards.Shards(
        tuple(b.name for b in cluster.banks), (), cluster.folder, cluster.folder, "fraud", None, "time", ()
    )
    with pytest.raises(UsageError, match="bank-1 exists"):
        found(options, dealt, cluster.folder)


def test_a_path_too_long_for_a_socket_is_refused(options, tmp_path):
    dealt = shards.Shards(("bank-1",), (), tmp_path, tmp_path, "fraud", None, "time", ())
    with pytest.raises(UsageError, match="--dir"):
        found(options, dealt, tmp_path / ("long" * 40))


def test_free_ports_differ_and_lie_below_the_system_s_own():
    with ExitStack() as claims:
        ports = claimed_ports(40, claims)
    assert len(set(ports)) == 40
    assert all(port in PORTS for port in ports)


@pytest.mark.skipif(sys.platform != "linux", reason="claims are names of Linux")
def test_two_clusters_founded_at_once_choose_other_ports(monkeypatch):
    monkeypatch.setattr("p2pfed.cluster.founding.PORTS", range(31_000, 31_060))
    with ExitStack() as claims:
        with ExitStack() as of_another:
            one, other = claimed_ports(20, of_another), claimed_ports(20, claims)
            assert not set(one) & set(other)
            with pytest.raises(UsageError, match="no 40 free ports"):
                claimed_ports(40, claims)
        assert set(one) & set(claimed_ports(15, claims)), "what ended claims nothing"


def test_rows_that_no_bank_learns_from_are_counted(options, tmp_path):
    (tmp_path / "c").mkdir()
    noise = np.random.default_rng(0).normal(size=(1500, 2))
    frame = pd.DataFrame(noise, columns=["a", "b"]).assign(is_fraud=(np.arange(1500.0) % 20 == 0), branch="west")
    frame["branch"] = np.where(np.arange(1500) % 3, "east", "west")
    frame["is_fraud"] = frame.is_fraud.astype(float)
    frame.loc[7:18, "branch"] = "north"
    frame.loc[30:41, "a"] = np.nan
    pd.concat([frame, frame[:5]]).to_csv(tmp_path / "rows.csv", index=False)
    asked = replace(options, nodes=2, data=tmp_path / "rows.csv", split="stratified", partition="by:branch")
    cluster = found(asked, shards.deal(asked, tmp_path / "d"), tmp_path / "c")
    assert cluster.left_out["exact duplicate"] == 5 and 0 < cluster.left_out["in no bank"] <= 12
    assert 0 < cluster.left_out["empty feature"] <= 12 and len(cluster.left_out) == 3
