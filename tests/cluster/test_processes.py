"""Child processes end with the run, whatever they think of it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from p2pfed.cluster.processes import Processes, interruptible
from p2pfed.errors import Interrupted

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("up", flush=True)
for _ in range(600):  # a signal that comes just before a sleep begins is heard when it ends
    time.sleep(0.1)
"""


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_polite_process_is_asked_and_its_words_are_kept(tmp_path):
    log = tmp_path / "log"
    processes = Processes()
    pid = processes.start("polite", ["-c", POLITE], log)
    wait_until(lambda: log.exists() and b"up" in log.read_bytes())
    assert processes.ended() == {}
    assert processes.stop() == {"polite": 0}
    assert not alive(pid)


def test_a_stubborn_process_is_killed_and_reaped(tmp_path):
    log = tmp_path / "log"
    with Processes() as processes:
        pid = processes.start("stubborn", ["-c", STUBBORN], log)
        wait_until(lambda: b"up" in log.read_bytes())
        assert processes.stop("stubborn", seconds=0.2) == {"stubborn": -signal.SIGKILL}
    assert not alive(pid)


def test_a_stopped_process_ends_too(tmp_path):
    log = tmp_path / "log"
    with Processes() as processes:
        processes.start("stopped", ["-c", POLITE], log)
        wait_until(lambda: b"up" in log.read_bytes())
        processes.signal("stopped", signal.SIGSTOP)
        assert processes.stop("stopped") == {"stopped": 0}


def test_processes_end_when_the_body_fails(tmp_path):
    with pytest.raises(RuntimeError), Processes() as processes:
        pid = processes.start("polite", ["-c", POLITE], tmp_path / "log")
        raise RuntimeError
    assert not alive(pid)


def test_exit_codes_of_those_that_ended(tmp_path):
    with Processes() as processes:
        processes.start("failing", ["-c", "raise SystemExit(78)"], tmp_path / "log")
        wait_until(processes.ended)
        assert processes.ended() == {"failing": 78}


def test_children_die_with_a_killed_launcher(tmp_path):
    script = f"""
import time
from pathlib import Path
from p2pfed.cluster.processes import Processes
print(Processes().start("child", ["-c", {POLITE!r}], Path({str(tmp_path / "log")!r})), flush=True)
time.sleep(60)
"""
    launcher = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(launcher.stdout.readline())
    wait_until(lambda: b"up" in (tmp_path / "log").read_bytes())
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    wait_until(lambda: not alive(child) or _zombie(child))


def _zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_was_ignored_from_the_beginning_stays_so(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_becomes_an_interruption(number):
    inherited = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may have had it ignored
    try:
        with pytest.raises(Interrupted), interruptible():
            os.kill(os.getpid(), number)
            time.sleep(1)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, inherited)
