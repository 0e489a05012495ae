"""The verbs that ask the running daemon, against the real admin API over a made-up node."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2pfed.api.progress import DataStatus, Gain, ServedRow
from p2pfed.api.schemas import Change
from p2pfed.cli import run
from p2pfed.core.events import NodeStarted, ProblemRaised, RunFinished
from p2pfed.errors import UsageError
from p2pfed.store.lock import StateLock
from p2pfed.store.state_dir import StateDir
from tests.api.conftest import Admin

CONFIG = "version: 1\nnode: {name: bank-a, state_dir: .}\ndata:\n  source: {kind: csv, path: p.csv}\n  label: fraud\n"


@pytest.fixture
async def admin(tmp_path):
    running = Admin(tmp_path)
    await running.start()
    (tmp_path / "node.yaml").write_text(CONFIG + "  split: stratified\n")
    yield running
    await running.stop()


@pytest.fixture
def p2pfed(tmp_path, capsys):
    async def call(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, [*arguments, "--config", str(tmp_path / "node.yaml")])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


async def test_status_on_one_screen(admin, p2pfed):
    code, out, _ = await p2pfed("status")
    assert code == 0
    assert out.startswith("bank-a (AAAAAAA) is ok, up 12s, p2pfed 1.2.3\n")
    assert "members     2: 1 alive, 0 suspect, 1 failed, 1 quarantined" in out


async def test_a_resting_node_is_well_and_says_what_comes(admin, p2pfed, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    code, out, _ = await p2pfed("status")
    monkeypatch.undo()
    time.tzset()
    assert code == 0
    assert "learning    resting until the next cycle, round 0, update 0," in out
    assert "last cycle  4, 39 rounds trained, ended 2027-01-14 08:06:40 UTC" in out
    assert (
        "next        cycle 5 begins 2027-01-15 08:00:00 UTC (17:00:00 here)\n"
        "            cycle 6 begins 2027-01-16 08:00:00 UTC (17:00:00 here)\n"
    ) in out
    assert "serves      the model of cycle 3, round 40, AUPRC 0.7500 on validation rows, since 2027-01-03" in out
    assert "payments    1,000 rows, 7 frauds, 50 immature, newest 2027-01-14 04:13:20 UTC" in out


async def test_a_change_that_is_coming_is_told(admin, p2pfed):
    assert "\nchange " not in (await p2pfed("status"))[1]
    what = ["the merge rule", "the calendar"]
    admin.node.coming = Change(version=4, cycle=12, begins=1_800_000_000.0, changes=what)
    said = "manifest 4 from cycle 12 on, 2027-01-15 08:00:00 UTC: the merge rule, the calendar"
    assert f"\nchange      {said}\n" in (await p2pfed("status"))[1]


async def test_the_gain_over_training_alone_is_told(admin, p2pfed):
    assert "gain " not in (await p2pfed("status"))[1]
    admin.node.gain = Gain(auprc=0.013, serves=0.613, alone=0.6, frauds=40, rounds=120, cycle=3, seconds=90.0)
    said = "over training alone +0.013 (AUPRC 0.6130 and 0.6000 on own validation rows with 40 frauds, cycle 3)"
    assert f"\ngain        {said}\n" in (await p2pfed("status"))[1]


async def test_the_last_days_of_matured_labels_are_told_and_a_month_of_them_with_json(admin, p2pfed):
    assert "found " not in (await p2pfed("status"))[1]
    days = [("2026-03-01", 3, 0.5), ("2026-03-02", 8, 0.75), ("2026-03-03", 5, 0.625), ("2026-03-04", 0, None)]
    admin.node.served_days = [
        ServedRow(day=d, rows=1200, frauds=n, alerts=9, auprc=a, recall=a, precision=0.5, model="ab")
        for d, n, a in days
    ]
    assert (
        "found       2026-03-03: 5 frauds in 1,200 payments, AUPRC 0.6250, recall 0.6250, precision 0.5000\n"
        "            2026-03-02: 8 frauds in 1,200 payments, AUPRC 0.7500, recall 0.7500, precision 0.5000\n"
    ) in (await p2pfed("status"))[1]
    told = json.loads((await p2pfed("status", "--json"))[1])["learning"]["served_days"]
    assert [(row["day"], row["auprc"]) for row in told] == [(d, a) for d, _, a in days]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": "training", "round_of_cycle": 7}, "learning    training, round 0,"),
        ({"state": "training", "round_of_cycle": 7}, "\ncycle       4, round 7 of 40\n"),
        ({"state": "behind"}, "behind the others: it catches up"),
        ({"state": "clock_off"}, "not training: this machine's clock is off"),
        ({"state": "finished", "next_cycles": [], "serves": None}, "learning    finished"),
    ],
)
async def test_what_a_node_is_at_changes_the_words(admin, p2pfed, changes, said):
    admin.node.calendar |= changes
    assert said in (await p2pfed("status"))[1]


async def test_what_was_read_of_the_payments(admin, p2pfed):
    code, out, _ = await p2pfed("data", "status")
    assert code == 0 and out.startswith("1,000 rows, 7 frauds, 50 immature, newest 2027-01-14 04:13:20 UTC")
    assert "in 12.2 s" in out
    why = "400 rows were read, the last time 1,000"
    admin.log.emit(ProblemRaised("READING_REFUSED", "error", why, "mend the source"))
    admin.log.emit(ProblemRaised("DISK_LOW", "warning", "12 MB are free", "delete something"))
    code, out, _ = await p2pfed("data", "status")
    assert code == 1 and f"{why}\nmend the source" in out and "DISK" not in out
    code, out, _ = await p2pfed("data", "status", "--json")
    assert json.loads(out)["rows"] == 1000 and json.loads(out)["problems"][0]["code"] == "READING_REFUSED"


async def test_before_anything_was_read_that_is_said(admin, p2pfed):
    nothing = dict.fromkeys(DataStatus.model_fields)
    admin.node.data = DataStatus(**nothing | {"next_reading": 1_800_000_000.0})
    said = "not read since this start, read next 2027-01-15 08:00:00 UTC"
    assert (await p2pfed("data", "status"))[1].startswith(said)
    admin.log.emit(ProblemRaised("READING_REFUSED", "error", "half of them are fraud", "mend the source"))
    said = "read and refused, none were taken yet, read next 2027-01-15 08:00:00 UTC"
    assert (await p2pfed("data", "status"))[1].startswith(said)
    assert f"payments    {said}" in (await p2pfed("status"))[1]


@pytest.mark.parametrize(("options", "accept"), [((), "False"), (("--accept",), "True")])
async def test_the_payments_are_read_anew_by_command(admin, p2pfed, options, accept):
    code, out, _ = await p2pfed("data", "refresh", *options)
    assert (code, out) == (0, "the payments are being read anew\n")
    assert admin.node.told == [("refresh", accept)]


async def test_what_the_daemon_refuses_is_said_in_words_and_not_by_its_path(admin, p2pfed, monkeypatch):
    async def refresh(accept: bool) -> str:
        raise UsageError("without a calendar the payments are read once, at the start: restart the daemon")

    monkeypatch.setattr(admin.node, "refresh", refresh)
    code, _, error = await p2pfed("data", "refresh")
    assert code == 1 and "/" not in error and "read once, at the start: restart the daemon" in error


async def test_a_degraded_node_ends_status_with_1_and_its_problems(admin, p2pfed):
    admin.log.emit(ProblemRaised("DISK_LOW", "warning", "12 MB are free", "delete something"))
    code, out, _ = await p2pfed("status")
    assert code == 1
    assert "is degraded" in out
    assert "warning     DISK_LOW: 12 MB are free\n            delete something" in out


async def test_status_as_json_is_the_reply_of_the_api(admin, p2pfed):
    code, out, _ = await p2pfed("status", "--json")
    assert code == 0
    assert json.loads(out) == json.loads(admin.node.status().model_dump_json())


async def test_members_as_a_table(admin, p2pfed):
    code, out, _ = await p2pfed("members")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == [
        *("NAME", "ID", "STATUS", "STANDING", "ADDRESS", "SEEN", "RTT", "MANIFEST", "VERSION", "PROTO", "AGE", "NOTE")
    ]
    assert lines[1].split() == ["bank-a", "AAAAAAA", "alive", "-", "-", "2s", "-", "3", "1.2.3", "1", "4"]
    assert lines[2].split()[:4] == ["bank-b", "BBBBBBB", "alive", "quarantined"]
    assert lines[-1] == "2 members: 2 alive"
    code, out, _ = await p2pfed("members", "--json")
    assert [row["name"] for row in json.loads(out)] == ["bank-a", "bank-b"]


async def test_a_peer_is_explained_in_plain_words(admin, p2pfed):
    code, out, _ = await p2pfed("peer", "show", "bank-b")
    assert code == 0
    assert out.splitlines() == [
        "bank-b (BBBBBBB) is quarantined: its models are looked at, and weigh nothing.",
        "score         4.50; suspect at 2, quarantined at 4. It is the worst of: its models 4.50, "
        "gross ones now and then 2.00, broken rules 0.25",
        "newest model  is as bad as counts: +1.00 to the score, from -0.5 to +1 a model",
        "distance      40 times what a round of own training moves the model; up to 8 is fine: too much",
        "disagreement  2 times what a round of own training changes on own held-out payments; up to 5 is fine: fine",
        "frauds        own ones, with imagined ones where they are few, are given 0.125 on average, "
        "less than usual: its models weigh 0.25 for that; fine",
        "all together  2.50 doublings beyond what is fine for anybody; up to 3 is fine: fine",
        "seen          14 models judged, quarantined 1 time",
        "what next     3 of 10 clean models in a row release it; `p2pfed peer pardon bank-b` does so now",
    ]
    code, out, _ = await p2pfed("peer", "show", "bank-b", "--json")
    assert json.loads(out) == json.loads(admin.node.reputation("bank-b").model_dump_json())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"standing": "trusted", "score": 0.0, "looks": 0}, "No model of it has been judged yet."),
        ({"standing": "trusted", "score": 0.0, "trust": 1.0, "evidence": -0.5}, "nothing speaks against it"),
        (
            {"standing": "suspect", "score": 2.5, "clean_takes": 0.1, "clean_needed": 6},
            "a clean model takes up to 0.10 off the score; at least 6 clean models until it is trusted again",
        ),
        ({"standing": "trusted", "score": 1.5, "clean_needed": 0}, "a clean model takes up to 0.50 off the score\n"),
        ({"doubtful": True}, "This is doubtful: with its models since then its score is below 2"),
        ({"standing": "trusted", "idle": 4, "score": 0.0}, "but its models bring nothing new, and weigh nothing"),
        ({"judging": False}, "The manifest turns reputation off"),
        ({"blocked": True}, "blocked by the operator"),
        ({"recognition": 0.05}, "its models weigh 0.25 for that; too little"),
    ],
)
async def test_what_a_peer_is_like_changes_the_words(admin, p2pfed, monkeypatch, changes, said):
    reply = admin.node.reputation("bank-b").model_copy(update=changes)
    monkeypatch.setattr(admin.node, "reputation", lambda _: reply)
    assert said in (await p2pfed("peer", "show", "bank-b"))[1]


@pytest.mark.parametrize("verb", ["block", "unblock", "pardon"])
async def test_the_operators_word_on_a_peer(admin, p2pfed, verb):
    code, out, _ = await p2pfed("peer", verb, "bank-b")
    assert (code, out.startswith("bank-b "), admin.node.told) == (0, True, [(verb, "bank-b")])
    code, out, _ = await p2pfed("peer", verb, "bank-b", "--json")
    assert json.loads(out)["detail"].startswith("bank-b ")
    code, _, err = await p2pfed("peer", verb, "bank x/../status")
    assert code == 2
    # whatever else the daemon logs in this process
    assert err.splitlines()[-1] == "p2pfed: 'bank x/../status' is not a member; `p2pfed members` lists the members"


async def test_events_since_an_id(admin, p2pfed):
    for event in (NodeStarted(0, 2), RunFinished(1), RunFinished(2)):
        admin.log.emit(event)
    await admin.log.flush()
    code, out, _ = await p2pfed("events")
    assert code == 0
    assert [line.split()[3] for line in out.splitlines()] == ["node_started", "run_finished", "run_finished"]
    code, out, _ = await p2pfed("events", "--since", "2", "--json")
    assert [json.loads(line)["fields"] for line in out.splitlines()] == [{"round": 2}]
    code, out, err = await p2pfed("events", "--kind", "run_finished", "--tail", "1", "--since", "1h", "--json")
    assert [json.loads(line)["fields"] for line in out.splitlines()] == [{"round": 2}] and not err
    assert (await p2pfed("events", "--kind", "format_changed")) == (0, "", ""), "a kind that a history may hold"


@pytest.mark.parametrize(("options", "first"), [((), "node_started"), (("--tail", "1"), "run_finished")])
async def test_following_events_ends_with_130_on_ctrl_c(admin, tmp_path, options, first):
    admin.log.emit(NodeStarted(0, 2))
    admin.log.emit(RunFinished(1))
    await admin.log.flush()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "p2pfed", "events", "--follow", *options, "--json", "-c", str(tmp_path / "node.yaml"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert json.loads(await process.stdout.readline())["kind"] == first
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130


async def test_what_a_script_runs_in_the_background_does_not_hear_its_ctrl_c(admin, tmp_path):
    admin.log.emit(NodeStarted(0, 2))
    await admin.log.flush()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "p2pfed", "events", "--follow", "--tail", "1", "--json", "-c", tmp_path / "node.yaml",
        stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert json.loads(await process.stdout.readline())["kind"] == "node_started"
    process.send_signal(signal.SIGINT)
    admin.log.emit(RunFinished(1))
    assert json.loads(await process.stdout.readline())["kind"] == "run_finished"
    process.terminate()
    await asyncio.wait_for(process.communicate(), 30)


@pytest.mark.parametrize("option", ["--json", "--follow"])
async def test_a_reader_that_has_gone_ends_events_quietly(admin, tmp_path, option):
    for _ in range(2000):  # more than a pipe holds
        admin.log.emit(NodeStarted(0, 2))
    await admin.log.flush()
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", '{ "$@"; echo $? >&2; } | head -n 1', "sh",
        sys.executable, "-m", "p2pfed", "events", option, "-c", str(tmp_path / "node.yaml"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert out.count(b"\n") == 1
    assert err == b"141\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["data", "describe", "rows.csv", "--label", "y"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_standard_output_is_one_sentence(tmp_path, arguments, unbuffered):
    (tmp_path / "rows.csv").write_text("x,y\n1.5,0\n2.5,1\n")
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(
            [sys.executable, "-m", "p2pfed", *arguments], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert told.returncode == 74
    assert told.stderr == b"p2pfed: what the command says cannot be written: No space left on device\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_gone_before_the_first_word_is_no_noise_either(arguments, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        told = subprocess.run(
            [sys.executable, "-m", "p2pfed", *arguments], stdout=writer, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (told.returncode, told.stderr) == (141, b"")


async def test_stop_waits_until_the_daemon_answers_no_more(admin, p2pfed, monkeypatch):
    monkeypatch.setattr(admin.node, "stop", lambda: asyncio.get_running_loop().create_task(admin.server.stop()))
    code, out, _ = await p2pfed("stop")
    assert (code, out) == (0, "stopped\n")


async def test_stop_says_so_if_the_daemon_keeps_the_state_directory(admin, p2pfed, monkeypatch, tmp_path):
    monkeypatch.setattr("p2pfed.cli.daemon.STOP_SECONDS", 0.3)
    monkeypatch.setattr(admin.node, "stop", lambda: asyncio.get_running_loop().create_task(admin.server.stop()))
    with StateLock(StateDir(tmp_path), "1.2.3", 0.0):
        code, _, err = await p2pfed("stop")
    assert code == 1
    assert "still runs" in err


@pytest.mark.parametrize("verb", ["status", "members", "events", "stop"])
def test_without_a_daemon_the_exit_code_is_69(tmp_path, capsys, verb):
    (tmp_path / "node.yaml").write_text(CONFIG)
    assert run([verb, "-c", str(tmp_path / "node.yaml")]) == 69
    assert "no daemon is running" in capsys.readouterr().err


def test_a_socket_left_by_a_killed_daemon_is_no_daemon(tmp_path, capsys):
    (tmp_path / "node.yaml").write_text(CONFIG)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(tmp_path / "admin.sock"))
    assert run(["status", "-c", str(tmp_path / "node.yaml")]) == 69
    assert "no daemon is running" in capsys.readouterr().err


def test_the_state_directory_may_come_from_the_environment(tmp_path, capsys, monkeypatch):
    (tmp_path / "node.yaml").write_text(CONFIG)
    monkeypatch.setenv("P2PFED_NODE__STATE_DIR", str(tmp_path / "elsewhere"))
    assert run(["status", "-c", str(tmp_path / "node.yaml")]) == 69
    assert str(tmp_path / "elsewhere") in capsys.readouterr().err


def test_a_wrong_configuration_is_explained_even_by_the_quick_verbs(tmp_path, capsys):
    (tmp_path / "node.yaml").write_text("version: 1\nnode:\n  nam: bank-a\n")
    assert run(["status", "-c", str(tmp_path / "node.yaml")]) == 78
    assert "unknown key 'node.nam'; did you mean 'name'?" in capsys.readouterr().err
