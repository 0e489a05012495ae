"""Real daemons on this machine, from one command: they learn, are compared, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2pfed import results
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.progress import Screen
from p2pfed.data import files, synthetic
from p2pfed.experiment import comparison

pytestmark = [pytest.mark.e2e, pytest.mark.tf, pytest.mark.network, pytest.mark.slow]

BANKS = 3
ROUNDS = 6


def processes_of(folder):
    """Command lines of running processes that name `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def payments(tmp_path_factory):
    path = tmp_path_factory.mktemp("payments") / "payments.parquet"
    files.write(synthetic.generate(12_000, BANKS, 1), path)
    return path


def test_banks_learn_together_and_leave_nothing_behind(payments, tmp_path):
    folder = tmp_path / "c"
    run = comparison.run(
        ClusterOptions(
            nodes=BANKS,
            rounds=ROUNDS,
            data=payments,
            label=synthetic.LABEL,
            time=synthetic.EVENT_TIME,
            split="time",
            partition=f"by:{synthetic.BANK}",
            drop=synthetic.IDENTIFIERS,
            baselines=("alone", "centralised", "fedavg"),
            directory=folder,
            json=tmp_path / "run.json",
        ),
        Screen(),
    )
    assert results.read(tmp_path / "run.json") == run
    assert [node.rounds for node in run.nodes] == [ROUNDS] * BANKS
    assert len({node.id for node in run.nodes}) == BANKS
    for node in run.nodes:
        assert 0 < node.test["auprc"] <= 1
        assert 0 < node.alone.test["auprc"] <= 1
        assert node.train_rows > 0
        assert node.bytes_received > 0
        assert node.peak_rss_bytes > 10_000_000
        rounds = [point for point in run.history if point.node == node.name]
        assert [point.round for point in rounds] == list(range(1, ROUNDS + 1))
        assert sum(point.bytes for point in rounds) > 0, "nothing was learned from others"
    assert run.baselines.centralised["auprc"] > 0
    assert run.baselines.fedavg["auprc"] > 0
    assert not folder.exists()
    assert processes_of(folder) == []


def test_ctrl_c_ends_every_process_and_removes_the_directory(payments, tmp_path):
    folder = tmp_path / "c"
    command = [
        *(sys.executable, "-m", "p2pfed", "cluster", "run", "--data", str(payments), "--label", synthetic.LABEL),
        *("--drop", ",".join((*synthetic.IDENTIFIERS, synthetic.EVENT_TIME)), "--nodes", "2", "--partition", "iid"),
        *("--rounds", "100000", "--dir", str(folder)),
    ]
    with (tmp_path / "log").open("wb") as log:
        cluster = subprocess.Popen(command, stderr=log, stdout=log, env={**os.environ, "NO_COLOR": "1"})
    try:
        deadline = time.monotonic() + 60
        while len(processes_of(folder / "bank-")) < 2:
            assert cluster.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)
        cluster.send_signal(signal.SIGINT)
        assert cluster.wait(60) == 130
    finally:
        cluster.kill()
        cluster.wait()
    assert processes_of(folder) == []
    assert not folder.exists()
