"""p2pfed as the first process of a container: a PID namespace of its own stands for one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

UNSHARE = ("unshare", "--user", "--map-root-user", "--fork", "--pid", "--mount-proc")
SECONDS = 60

ORPHAN = """
import os, sys, time, signal
from p2pfed.__main__ import leave_first
leave_first()
trainer = os.posix_spawn(sys.executable, [sys.executable, "-c", "raise SystemExit(7)"], os.environ)
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.2)  # until its parent has gone: now it is the first process's
    os._exit(0)
os.wait()
time.sleep(1)
left = [p for p in os.listdir("/proc") if p.isdigit() and " Z " in open(f"/proc/{p}/stat").read()]
print("left", [p for p in left if int(p) != trainer], "trainer", os.waitstatus_to_exitcode(os.waitpid(trainer, 0)[1]))
sys.stdout.flush()
os.kill(1, signal.SIGUSR1)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    try:
        allowed = subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=SECONDS).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("this machine lets nobody make a PID namespace")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def only_child(pid: int) -> int:
    deadline = time.monotonic() + SECONDS
    while not (found := children(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found[0]


def test_a_first_signal_is_not_lost(tmp_path: Path) -> None:
    """Not even one that comes while the command line is imported."""
    command = [*UNSHARE, sys.executable, "-m", "p2pfed", "start", str(tmp_path / "node.yaml")]
    os.mkfifo(tmp_path / "node.yaml")  # nobody writes to it: the command is still at its beginning
    outer = subprocess.Popen(command)
    first = only_child(outer.pid)
    only_child(first)
    os.kill(first, signal.SIGTERM)
    assert outer.wait(SECONDS) == 128 + signal.SIGTERM


def test_orphans_are_reaped_and_a_trainers_exit_code_stays_the_daemons() -> None:
    done = subprocess.run([*UNSHARE, sys.executable, "-c", ORPHAN], capture_output=True, text=True, timeout=SECONDS)
    assert done.stdout == "left [] trainer 7\n", done.stderr
    assert done.returncode == 128 + signal.SIGUSR1
