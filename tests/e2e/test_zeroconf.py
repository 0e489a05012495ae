"""Two real daemons that know no address of each other meet by zeroconf alone and learn from each other."""

from __future__ import annotations

import time
from pathlib import Path

import yaml

from p2pfed.cluster.founding import found
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.running import RunningCluster
from p2pfed.experiment.shards import deal

SECONDS = 90.0


def test_two_daemons_without_a_seed_find_each_other(tmp_path: Path) -> None:
    options = ClusterOptions(nodes=2, rounds=100_000, round_interval=0.25, evaluate_every=50, partition="iid")
    names = ("bank-1", "bank-2")
    cluster = found(options, deal(options, tmp_path / "data"), tmp_path, dial_out=names)
    assert all(member.endpoints == () for member in cluster.manifest.members), "the manifest must name no address"
    for bank in cluster.banks:
        config = yaml.safe_load(bank.config.read_text())
        config["peers"] = {"listen": "127.0.0.1:0", "zeroconf": True}
        bank.config.write_text(yaml.safe_dump(config))
    with RunningCluster(cluster) as running:
        deadline = time.monotonic() + SECONDS
        for bank in cluster.banks:
            while running.wait(bank, SECONDS)["learning"]["merged_total"] == 0:
                assert time.monotonic() < deadline, "they did not find each other"
                time.sleep(0.2)
            status = running.status(bank)
            assert status["consortium"]["alive"] == 2
