"""What is shown while a cluster runs, and what is gathered from its nodes' events."""

import io

import pytest
from rich.console import Console

from p2pfed.cluster.launcher import history
from p2pfed.cluster.progress import Screen
from p2pfed.cluster.running import NodeProgress

NODES = [
    NodeProgress("bank-1", "training", 4, 0.5, 12, "127.0.0.1:7480"),
    NodeProgress("bank-2", "starting", 2, None, 0, None),
]


def screen(terminal, clock=lambda: 0.0):
    out = io.StringIO()
    return Screen(Console(file=out, force_terminal=terminal, width=120), clock), out


def test_plain_lines_where_there_is_no_terminal():
    now = [0.0]
    shown, out = screen(terminal=False, clock=lambda: now[0])
    with shown:
        shown.nodes(NODES, 20)
        shown.nodes(NODES, 20)  # too soon for another line
        now[0] = 10.0
        shown.nodes([NodeProgress("bank-1", "training", 8, 0.5, 12, None), NODES[1]], 20)
    lines = out.getvalue().splitlines()
    assert lines == [
        "round 2 to 4 of 20 · mean AUPRC 0.500 · 12 exchanges · time left unknown",
        "round 2 to 8 of 20 · mean AUPRC 0.500 · 12 exchanges · time left 1:15",
    ]


def test_a_live_table_on_a_terminal():
    shown, out = screen(terminal=True)
    with shown:
        shown.nodes(NODES, 20)
    said = out.getvalue()
    assert "bank-1" in said
    assert "4/20" in said


def test_addresses_are_told_once_and_the_wait_explained():
    shown, out = screen(terminal=False)
    waiting = [NodeProgress(f"bank-{i}", "waiting", 0, None, 0, f"127.0.0.1:{7480 + i}") for i in (1, 2)]
    with shown:
        shown.nodes([waiting[0], NODES[1]], 20)
        shown.nodes(waiting, 20)
        shown.nodes(waiting, 20)
    assert out.getvalue().count("http://127.0.0.1:7482/api/v1/status") == 1


def test_waiting_for_trainers_is_said():
    shown, out = screen(terminal=False)
    with shown:
        shown.nodes(
            [NodeProgress("bank-1", "waiting", 0, None, 0, None), NodeProgress("b", "starting", 0, None, 0, None)], 20
        )
    assert out.getvalue().startswith("1 of 2 daemons are up")


@pytest.mark.parametrize("terminal", [False, True])
def test_whom_a_run_waits_for_is_said_once_nothing_came_of_it_for_half_a_minute(terminal):
    now = [0.0]
    shown, out = screen(terminal, clock=lambda: now[0])
    with shown:
        for now[0] in (0.0, 20.0, 29.0, 36.0, 50.0):
            ahead = NodeProgress("bank-1", "training", 4 + int(now[0]), 0.5, 12, None)
            shown.nodes([ahead, NODES[1], NodeProgress("bank-3", "finished", 20, 0.5, 9, None)], 20)
            assert ("waits for" in out.getvalue()) is (now[0] >= 36)
    assert "waits for bank-2" in out.getvalue() and "waits for bank-1" not in out.getvalue()
    assert "bank-2, " not in out.getvalue()


def test_of_many_banks_that_stand_still_a_few_are_named():
    now = [0.0]
    shown, out = screen(terminal=False, clock=lambda: now[0])
    still = [NodeProgress(f"bank-{i}", "waiting", 0, None, 0, None) for i in range(9)]
    with shown:
        for now[0] in (0.0, 31.0):
            shown.nodes(still, 20)
    assert "waits for bank-0, bank-1, bank-2, bank-3, bank-4, 4 more\n" in out.getvalue()


def event(kind, **fields):
    return {"id": 0, "time": 0.0, "kind": kind, "text": "", "fields": fields}


def test_history_counts_bytes_for_the_round_in_which_they_came():
    events = [
        event("update_accepted", bytes=10),
        event("round_completed", round=1, loss=0.7, seconds=2.0),
        event("update_accepted", bytes=20),
        event("update_accepted", bytes=30),
        event("round_completed", round=2, loss=0.6, seconds=1.0),
        event("model_evaluated", round=2, metrics={"test": {"auprc": 0.4}}),
        event("update_accepted", bytes=5),
        event("run_finished", round=2),
    ]
    first, second = history("bank-1", events)
    assert (first.round, first.node, first.auprc, first.loss, first.bytes, first.seconds) == (
        1,
        "bank-1",
        None,
        0.7,
        10,
        2.0,
    )
    assert (second.auprc, second.bytes) == (0.4, 55), "what is merged after the last round counts for it"


def test_with_a_calendar_cycle_and_round_are_shown():
    shown, out = screen(terminal=False)
    ahead = NodeProgress("bank-1", "training", 11, 0.5, 12, None)
    with shown:
        shown.nodes([ahead, NodeProgress("bank-2", "training", 10, None, 0, None)], 30, 10)
    assert out.getvalue().startswith("cycle 1 round 10 to cycle 2 round 1 of 3 cycles")
    shown, out = screen(terminal=True)
    with shown:
        shown.nodes([ahead], 30, 10)
    assert "cycle 2 round 1" in out.getvalue()
