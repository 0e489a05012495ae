"""Verbs that ask or tell the running daemon. They import little: `status` is what scripts call every few seconds."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from p2pfed import yamltext
from p2pfed.api.client import AdminClient, NotRunning
from p2pfed.cli.terminal import DEFAULT_CONFIG, AsJson, ConfigPath, plural, read_config, show, span, table
from p2pfed.errors import LocalFault
from p2pfed.store.state_dir import StateDir

STOP_SECONDS = 60
POLL_SECONDS = 0.1
SERVED_SHOWN = 2
"""Days of matured payments that `status` tells; `--json` has a month of them."""
STATES = {
    "waiting": "waiting for the first cycle, the payments or a model",
    "training": "training",
    "listening": "listening: it trains and merges, and publishes nothing",
    "resting": "resting until the next cycle",
    "behind": "behind the others: it catches up, and publishes nothing",
    "clock_off": "not training: this machine's clock is off",
    "finished": "finished",
}
"""What `status` says of each state of LearningStatus."""


def stop(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Tell the daemon to say good-bye and stop, and wait until it has."""
    client = client_of(config)
    client.post("/api/v1/stop")
    deadline = time.monotonic() + STOP_SECONDS
    while client.answers() or _locked(client.path.parent):
        if time.monotonic() > deadline:
            raise LocalFault(f"the daemon on {client.path.parent} still runs after {STOP_SECONDS} seconds; see its log")
        time.sleep(POLL_SECONDS)
    show(as_json, {"stopped": True}, "stopped")


def status(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """How the node is, on one screen; exit code 0 is ok, 1 degraded, 69 not running: then what it has left is told."""
    try:
        reply = client_of(config).get("/api/v1/status")
    except NotRunning as error:
        state = StateDir(state_dir_of(config))
        if not state.database.exists():
            raise
        from p2pfed.cli.stored import show_left

        show_left(state, error, as_json)
        raise typer.Exit(error.exit_code) from None
    show(as_json, reply, _status_text(reply))
    if reply["health"] != "ok":
        raise typer.Exit(1)


def members(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """The members of the consortium as this node sees them."""
    rows = client_of(config).get("/api/v1/members")
    show(as_json, rows, _members_text(rows))


def client_of(config: Path) -> AdminClient:
    """The client of the daemon that `config` describes; raises ConfigError as reading the configuration does."""
    return AdminClient(state_dir_of(config))


def state_dir_of(config: Path) -> Path:
    """The state directory of the node that `config` describes; raises ConfigError as reading it does."""
    # checking the whole configuration takes ten times as long as the question; on any doubt it is checked after all
    try:
        node = yamltext.load(config.read_text(encoding="utf-8"))["node"]
        state_dir = os.environ.get("P2PFED_NODE__STATE_DIR", node["state_dir"])
    except (OSError, ValueError, KeyError, TypeError):
        state_dir = None
    if not isinstance(state_dir, str):
        return read_config(config, None).node.state_dir
    return config.resolve().parent / state_dir


def _locked(state_dir: Path) -> bool:
    """Whether a process holds the state directory: it does for a moment after it has stopped answering."""
    try:
        with StateDir(state_dir).lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _status_text(reply: dict[str, Any]) -> str:
    node, consortium, learning, own = reply["node"], reply["consortium"], reply["learning"], reply["self"]
    lines = [
        f"{node['name']} ({node['id'][:7]}) is {reply['health']}, up {span(node['uptime_seconds'])}, "
        f"p2pfed {reply['version']}",
        f"consortium  {consortium['name']}, manifest {consortium['manifest_version']}, expires in "
        f"{consortium['expires_in_days']:.0f} days",
        *_change_lines(consortium["coming"]),
        f"members     {consortium['members']}: {consortium['alive']} alive, {consortium['suspect']} suspect, "
        f"{consortium['failed']} failed, {consortium['quarantined']} quarantined",
        *_learning_lines(learning),
        *_metrics_lines(learning["metrics"]),
        *_served_lines(learning["served_days"]),
        f"payments    {payments_text(learning['data'], reply['problems'])}",
        f"trainer     {own['trainer']['state']}, {plural(own['trainer']['restarts'], 'restart')}",
        f"listening   peers {node['peer_address'] or 'none'}, admin {node['admin_address'] or 'socket only'}",
    ]
    for problem in reply["problems"]:
        subject = f" {problem['subject']}" if problem["subject"] else ""
        lines.append(f"{problem['severity']:<10}  {problem['code']}{subject}: {problem['message']}")
        lines += [f"            {problem['hint']}"] if problem["hint"] else []
    return "\n".join(lines)


def _change_lines(change: dict[str, Any] | None) -> list[str]:
    if change is None:
        return []
    return [
        f"change      manifest {change['version']} from cycle {change['cycle']} on, {moment(change['begins'])}: "
        + ", ".join(change["changes"])
    ]


def _learning_lines(learning: dict[str, Any]) -> list[str]:
    rounds = f"{learning['round']} of {learning['rounds']}" if learning["rounds"] else str(learning["round"])
    lines = [
        f"learning    {STATES[learning['state']]}, round {rounds}, update {learning['seq']}, "
        f"loss {_number(learning['loss'])}, {learning['merged_total']} merged, {learning['rejected_total']} rejected"
    ]
    if learning["round_of_cycle"]:
        lines.append(
            f"cycle       {learning['cycle']}, round {learning['round_of_cycle']} of {learning['rounds_of_cycle']}"
        )
    if (last := learning["last_cycle"]) is not None:
        lines.append(
            f"last cycle  {last['cycle']}, {plural(last['trained'], 'round')} trained, ended {moment(last['ended'])}"
        )
    for n, row in enumerate(learning["next_cycles"]):
        lines.append(f"{'' if n else 'next':<10}  cycle {row['cycle']} begins {moment(row['begins'])}")
    if (serves := learning["serves"]) is not None:
        lines.append(
            f"serves      the model of cycle {serves['cycle']}, round {serves['round']}, AUPRC "
            f"{_number(serves['auprc'])} on validation rows, since {moment(serves['since'])}"
        )
    if (gain := learning["gain"]) is not None:
        lines.append(
            f"gain        over training alone {gain['auprc']:+.3f} (AUPRC {_number(gain['serves'])} and "
            f"{_number(gain['alone'])} on own validation rows with {plural(gain['frauds'], 'fraud')}, cycle "
            f"{gain['cycle']})"
        )
    return lines


def _served_lines(days: Sequence[dict[str, Any]]) -> list[str]:
    """The newest days with frauds whose labels have matured, the last one first."""
    return [
        f"{'' if n else 'found':<10}  {day['day']}: {plural(day['frauds'], 'fraud')} in {day['rows']:,} payments, "
        f"AUPRC {_number(day['auprc'])}, recall {_number(day['recall'])}, precision {_number(day['precision'])}"
        for n, day in enumerate([day for day in reversed(days) if day["frauds"]][:SERVED_SHOWN])
    ]


def payments_text(data: dict[str, Any], problems: Sequence[dict[str, Any]]) -> str:
    """What was last taken of the payments, and when they are read next, as one line; `problems` as in the status."""
    if data["rows"] is None:
        refused = any(problem["code"] == "READING_REFUSED" for problem in problems)
        said = ["read and refused, none were taken yet" if refused else "not read since this start"]
    else:
        said = [plural(data["rows"], "row"), plural(data["frauds"], "fraud")]
    if data["immature"] is not None:
        said.append(f"{data['immature']:,} immature")
    if data["newest_payment"] is not None:
        newest = data["newest_payment"]
        said.append(f"newest {moment(newest)}, {span(time.time() - newest)} old")
    if data["read_at"] is not None:
        said.append(f"read {moment(data['read_at'])}")
    if data["read_seconds"] is not None:
        said[-1] += f" in {data['read_seconds']:.1f} s"
    if data["next_reading"] is not None:
        said.append(f"read next {moment(data['next_reading'])}")
    return ", ".join(said)


def moment(seconds: float) -> str:
    """A Unix time in UTC and, where that is another, in local time."""
    utc = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    local = time.localtime(seconds)
    return f"{utc} ({time.strftime('%H:%M:%S', local)} here)" if local.tm_gmtoff else utc


def _metrics_lines(metrics: dict[str, dict[str, Any]]) -> list[str]:
    shown = [f"{r} AUPRC {_number(m.get('auprc'))}, recall {_number(m.get('recall'))}" for r, m in metrics.items()]
    return [f"model       {'; '.join(shown)}"] if shown else []


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _members_text(rows: Sequence[dict[str, Any]]) -> str:
    first = ("NAME", "ID", "STATUS", "STANDING", "ADDRESS", "SEEN", "RTT")
    headings = (*first, "MANIFEST", "VERSION", "PROTO", "AGE", "NOTE")
    cells = [
        (
            row["name"],
            row["id"][:7],
            row["status"],
            row["standing"],
            row["address"],
            span(row["seen_seconds"]),
            None if row["rtt_ms"] is None else f"{row['rtt_ms']:.0f}ms",
            row["manifest"],
            row["version"],
            row["proto"],
            row["age"],
            row["note"],
        )
        for row in rows
    ]
    states = [row["status"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{table(headings, cells)}\n{plural(len(rows), 'member')}: {counts}"
