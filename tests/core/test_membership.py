"""The heartbeat table: who wins, who is suspected, who is left alone, and when a node doubts itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.events import PeerChanged
from p2pfed.core.membership import MAX_ENDPOINTS, ZEROCONF_ENDPOINTS, PeerTable
from p2pfed.core.messages import HeartbeatTable, SignedHeartbeat
from p2pfed.core.types import NodeId, PeerState
from p2pfed.core.wire import MAX_TABLE_ROWS
from tests.core.heartbeats import PERIOD, beat, endpoint, rng, roster

ME, A, B, C = NodeId("ME"), NodeId("A"), NodeId("B"), NodeId("C")
STRANGER = NodeId("STRANGER")


def told(*rows: SignedHeartbeat) -> HeartbeatTable:
    return HeartbeatTable(rows)


def peers(*members: NodeId) -> PeerTable:
    return PeerTable(ME, roster(ME, *members), PERIOD)


def pass_time(table: PeerTable, start: float, periods: int) -> list[tuple[int, PeerChanged]]:
    """Tick once a period; the changes and the period each came in."""
    return [(i, change) for i in range(1, periods + 1) for change in table.tick(start + i * PERIOD)]


# --- who wins ---------------------------------------------------------------------------------------------------------


def test_a_member_is_unknown_until_heard_of() -> None:
    table = peers(A, B)
    assert table.members == (A, B)
    assert table.alone
    assert (table.state(A), table.last_heard(A), table.heartbeat(A)) == (PeerState.UNKNOWN, None, None)
    assert pass_time(table, 0, 100) == []
    changes = table.observe(told(beat(A, 3)), 1000, direct_from=None)
    assert changes == [PeerChanged(A, PeerState.UNKNOWN, PeerState.ALIVE)]
    assert not table.alone
    assert (table.state(A), table.last_heard(A), table.state(B)) == (PeerState.ALIVE, 1000, PeerState.UNKNOWN)


def test_the_highest_epoch_and_counter_win_and_old_news_is_no_news() -> None:
    table = peers(A)
    table.observe(told(beat(A, 7, epoch=2)), 10, None)
    for older in (beat(A, 7, epoch=2), beat(A, 6, epoch=2), beat(A, 900, epoch=1)):
        assert table.observe(told(older), 50, None) == []
    assert (table.last_heard(A), table.known()) == (10, {A: beat(A, 7, epoch=2).signed})
    table.observe(told(beat(A, 1, epoch=3)), 60, None)  # restarted: its counter begins again
    heartbeat = table.heartbeat(A)
    assert heartbeat is not None
    assert (heartbeat.epoch, heartbeat.counter, table.last_heard(A)) == (3, 1, 60)


def test_rows_of_strangers_and_of_this_node_are_skipped() -> None:
    table = peers(A)
    assert table.observe(told(beat(STRANGER, 1), beat(ME, 99)), 0, None) == []
    assert table.alone
    assert table.known() == {}


def test_a_good_bye_is_leaving_and_a_new_epoch_is_coming_back() -> None:
    table = peers(A)
    table.observe(told(beat(A, 1)), 0, None)
    assert table.observe(told(beat(A, 2, leaving=True)), 5, A) == [PeerChanged(A, PeerState.ALIVE, PeerState.LEFT)]
    assert pass_time(table, 5, 40) == []  # who left is not failed
    assert table.observe(told(beat(A, 1)), 500, None) == []
    assert table.observe(told(beat(A, 1, epoch=2)), 501, None) == [PeerChanged(A, PeerState.LEFT, PeerState.ALIVE)]


@given(
    counters=st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 2), st.integers(0, 5)), max_size=25),
    order=st.randoms(use_true_random=False),
)
def test_tables_agree_whatever_the_order_and_repetition_of_what_they_heard(
    counters: list[tuple[NodeId, int, int]], order: object
) -> None:
    rows = [beat(member, counter, epoch) for member, epoch, counter in counters]
    shuffled = rows * 2
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = peers(A, B, C), peers(A, B, C)
    one.observe(told(*rows), 0, None)
    for row in shuffled:
        other.observe(told(row), 0, None)
    assert one.known() == other.known()
    for member in (A, B, C):
        best = max(((e, c) for m, e, c in counters if m == member), default=None)
        heartbeat = one.heartbeat(member)
        assert best == (None if heartbeat is None else (heartbeat.epoch, heartbeat.counter))


# --- silence ----------------------------------------------------------------------------------------------------------


def test_silence_makes_a_suspect_after_15_periods_and_a_failure_after_30() -> None:
    table = peers(A)
    table.observe(told(beat(A, 1)), 0, None)
    assert pass_time(table, 0, 50) == [
        (15, PeerChanged(A, PeerState.ALIVE, PeerState.SUSPECT)),
        (30, PeerChanged(A, PeerState.SUSPECT, PeerState.FAILED)),
    ]
    assert table.observe(told(beat(A, 2)), 600, None) == [PeerChanged(A, PeerState.FAILED, PeerState.ALIVE)]
    assert pass_time(table, 600, 14) == []


def test_a_process_that_slept_accuses_nobody_when_it_wakes() -> None:
    table = peers(A, B)
    table.observe(told(beat(A, 1), beat(B, 1)), 0, None)
    table.tick(PERIOD)
    assert table.tick(1000 * PERIOD) == []
    assert pass_time(table, 1000 * PERIOD, 10) == []
    assert [i for i, _ in pass_time(table, 1010 * PERIOD, 5)] == [1, 1]  # 4 of 15 periods had passed before the others


def test_a_late_event_loop_doubts_itself_and_not_the_others() -> None:
    table = peers(A)
    table.observe(told(beat(A, 1)), 0, None)
    table.lagged(0.9, 5)
    assert not table.self_doubt(5)
    for i in range(1, 60):
        table.lagged(1.5, i * PERIOD)
        assert table.self_doubt(i * PERIOD)
        assert table.tick(i * PERIOD) == []
    # the time in doubt did not count: 15 healthy periods must follow (the first three are still in doubt)
    assert [i for i, _ in pass_time(table, 59 * PERIOD, 18)] == [18]


def test_failing_with_everybody_is_our_own_fault_but_with_one_of_one_it_may_not_be() -> None:
    two, one = peers(A, B), peers(A)
    for table in (two, one):
        table.observe(told(beat(A, 1)), 0, None)
        for _ in range(5):
            assert not table.self_doubt(0)
            table.failed(A, 0, rng())
    assert two.self_doubt(0)
    assert not one.self_doubt(0)
    assert pass_time(two, 0, 100) == []
    assert len(pass_time(one, 0, 100)) == 2
    for _ in range(2):
        two.observe(told(), 1000, direct_from=B)  # somebody reached us
    assert not two.self_doubt(1000)
    assert len(pass_time(two, 1000, 31)) == 2


def test_a_few_lost_exchanges_with_a_few_members_are_no_doubt_and_a_row_of_them_is() -> None:
    table = peers(A, B)
    table.observe(told(beat(A, 1), beat(B, 1)), 0, None)
    for _ in range(50):  # every exchange but one in five is lost, and each time both are found to have failed last
        for peer in (A, B, A, B):
            table.failed(peer, 0, rng())
            assert not table.self_doubt(0)
        table.succeeded(B, 0)
    for peer in (A, A, A, A):  # one of the two is down
        table.failed(peer, 0, rng())
        assert not table.self_doubt(0)
    table.failed(B, 0, rng())
    assert table.self_doubt(0)


def test_failing_with_as_many_members_once_is_enough_of_a_doubt() -> None:
    members = [NodeId(f"BANK{i}") for i in range(6)]
    table = peers(*members)
    for peer in members[:4]:
        table.failed(peer, 0, rng())
    assert not table.self_doubt(0)
    table.succeeded(members[4], 0)  # one of five
    assert not table.self_doubt(0)
    table.failed(members[5], 0, rng())  # one of six
    assert table.self_doubt(0)


# --- back-off ---------------------------------------------------------------------------------------------------------


def test_back_off_doubles_with_full_jitter_up_to_five_minutes() -> None:
    limits = [min(2.0**i, 300.0) for i in range(14)]
    longest, shortest = [0.0] * len(limits), list(limits)
    for seed in range(200):
        table, draws, now = peers(A), rng(seed), 0.0
        for i, limit in enumerate(limits):
            until = table.failed(A, now, draws)
            assert now <= until <= now + limit
            longest[i], shortest[i] = max(longest[i], until - now), min(shortest[i], until - now)
            assert not table.benched(A, until)
            now = until + 1
    assert all(seen > 0.9 * limit for seen, limit in zip(longest, limits, strict=True))
    assert all(seen < 0.1 * limit for seen, limit in zip(shortest, limits, strict=True))


def test_back_off_scales_with_the_heartbeat_period() -> None:
    table = PeerTable(ME, roster(A), period=1.0)
    until = [table.failed(A, 1e6 * i, rng()) - 1e6 * i for i in range(30)]
    assert max(until) <= 30
    assert until[0] <= 0.1


def test_several_exchanges_that_fail_at_once_are_one_failure() -> None:
    table = peers(A)
    until = table.failed(A, 0, rng(1))
    assert until is not None and until > 0
    assert [table.failed(A, until / 2, rng(2)) for _ in range(5)] == [None] * 5
    assert table.benched(A, until - 1e-9) and not table.benched(A, until)


@pytest.mark.parametrize("inbound", [True, False])
def test_any_success_ends_the_back_off(inbound: bool) -> None:
    table = peers(A)
    now = 0.0
    for _ in range(12):
        now = table.failed(A, now, rng(4))
    until = table.failed(A, now, rng(4))
    assert table.benched(A, (now + until) / 2)
    if inbound:
        table.observe(told(), now, direct_from=A)
    else:
        table.succeeded(A, now)
    assert not table.benched(A, now)
    assert table.failed(A, now, rng()) <= now + 1  # and it starts from the bottom again


# --- endpoints --------------------------------------------------------------------------------------------------------


def hosts(table: PeerTable, member: NodeId) -> list[str]:
    return [a.host for a in table.endpoints(member)]


def test_endpoints_are_tried_configured_then_signed_then_agreed_then_heard_of() -> None:
    table = PeerTable(ME, roster(A="manifest:1"), PERIOD)
    for source in ("zeroconf", "config"):
        table.add_endpoint(A, endpoint(f"{source}:1", source))
    table.add_endpoint(A, endpoint("second:1", "config"))
    table.add_endpoint(A, endpoint("config:1", "zeroconf"))  # known already: not tried twice
    table.observe(told(beat(A, 1, endpoints=("signed:1",))), 0, None)
    assert hosts(table, A) == ["config", "second", "signed", "manifest", "zeroconf"]
    table.observe(told(beat(A, 2, endpoints=("moved:1",))), 0, None)
    assert hosts(table, A) == ["config", "second", "moved", "manifest", "zeroconf"]


def test_an_endpoint_told_again_neither_moves_down_nor_pushes_others_out() -> None:
    table = peers(A)
    for host in ("first", "second", "first"):
        table.add_endpoint(A, endpoint(f"{host}:1", "config"))
    for host in ("x", *["y"] * 10):
        table.add_endpoint(A, endpoint(f"{host}:1", "zeroconf"))
    assert hosts(table, A) == ["first", "second", "y", "x"]


def test_no_source_can_fill_the_memory() -> None:
    table = peers(A)
    for i in range(100):
        table.add_endpoint(A, endpoint(f"z{i}:1", "zeroconf"))
    assert hosts(table, A) == [f"z{i}" for i in range(99, 99 - ZEROCONF_ENDPOINTS, -1)]
    for i in range(100):
        table.add_endpoint(A, endpoint(f"c{i}:1", "config"))
    table.observe(told(beat(A, 1, endpoints=tuple(f"h{i}:1" for i in range(100)))), 0, None)
    assert hosts(table, A) == [f"c{i}" for i in range(MAX_ENDPOINTS)]


@pytest.mark.parametrize("text", ["0.0.0.0:7443", "[::]:7443", "224.0.0.251:7443", "bank:0", "[ff02::fb]:5353"])
def test_addresses_that_are_nobodys_are_not_dialled(text: str) -> None:
    table = peers(A)
    table.add_endpoint(A, endpoint(text, "config"))
    table.observe(told(beat(A, 1, endpoints=(text, "no address", "10.0.0.1:1"))), 0, None)
    assert hosts(table, A) == ["10.0.0.1"]


def test_whom_to_dial() -> None:
    table = peers(A, B)
    assert not table.dialable(A, 0)  # nowhere to dial
    table.add_endpoint(A, endpoint("a:1", "config"))
    assert table.dialable(A, 0)
    table.block({A})
    assert not table.dialable(A, 0)
    table.block(())
    until = table.failed(A, 0, rng())
    assert not table.dialable(A, until / 2)
    assert table.dialable(A, until)


def test_partners_are_uniform_and_every_fourth_is_the_one_heard_least_lately() -> None:
    members = [NodeId(f"BANK{i}") for i in range(6)]
    table, draws = peers(*members), rng(7)
    assert table.exchange_partner(0, draws, 1) is None
    for i, member in enumerate(members[:5]):
        table.add_endpoint(member, endpoint(f"b{i}:1", "config"))
    for i in (4, 0, 2, 3, 1):
        table.observe(told(beat(members[i], 1)), 100 + len(table.known()), None)
    assert table.exchange_partner(200, draws, 4) == members[4]
    table.add_endpoint(members[5], endpoint("b5:1", "config"))
    assert table.exchange_partner(200, draws, 8) == members[5]  # never heard at all
    counts = dict.fromkeys(members, 0)
    for _ in range(3000):
        partner = table.exchange_partner(200, draws, 1)
        assert partner is not None
        counts[partner] += 1
    assert all(410 < c < 590 for c in counts.values()), counts  # 500 expected, standard deviation 20
    until = table.failed(members[4], 200, draws)
    assert {table.exchange_partner(until - 1e-9, draws, 1) for _ in range(100)} == {*members} - {members[4]}


# --- the table as it travels, and new manifests -----------------------------------------------------------------------


def test_the_table_is_whole_up_to_its_limit_and_a_random_part_above() -> None:
    members = [NodeId(f"BANK{i:04}") for i in range(500)]
    table = peers(*members)
    own = beat(ME, 5)
    assert table.rows(own, rng()) == told(own)
    table.observe(told(*(beat(m, 1) for m in members[: MAX_TABLE_ROWS - 1])), 0, None)
    assert table.rows(own, rng()).rows == (own, *(beat(m, 1) for m in members[: MAX_TABLE_ROWS - 1]))
    table.observe(told(*(beat(m, 1) for m in members[:MAX_TABLE_ROWS])), 0, None)
    assert len(table.rows(own, rng()).rows) == MAX_TABLE_ROWS
    table.observe(told(*(beat(m, 1) for m in members)), 0, None)
    sent: set[NodeId] = set()
    draws = rng()
    for _ in range(30):
        rows = table.rows(own, draws).rows
        assert (len(rows), rows[0]) == (MAX_TABLE_ROWS, own)
        assert len({r.heartbeat.member for r in rows}) == MAX_TABLE_ROWS
        sent |= {r.heartbeat.member for r in rows}
    assert sent == {ME, *members}


def test_a_new_manifest_keeps_who_stays_and_forgets_who_went() -> None:
    table = PeerTable(ME, roster(ME, A="old:1", B="old:1"), PERIOD)
    for member in (A, B):
        table.add_endpoint(member, endpoint("mine:1", "config"))
        table.observe(told(beat(member, 3)), 7, None)
    table.follow(roster(ME, A, C))
    assert table.members == (A, C)
    assert (table.state(A), table.last_heard(A), hosts(table, A)) == (PeerState.ALIVE, 7, ["mine"])
    assert table.state(C) is PeerState.UNKNOWN
    assert set(table.known()) == {A}


def test_late_news_of_a_removed_member_is_forgotten() -> None:
    table = peers(A)
    table.succeeded(B, 0)
    assert table.failed(B, 5, rng()) is None
    table.add_endpoint(B, endpoint("b:1", "config"))
    assert table.observe(told(beat(B, 1)), 0, direct_from=B) == []
    assert (table.state(B), table.endpoints(B), table.dialable(B, 100)) == (PeerState.UNKNOWN, (), False)
    assert table.members == (A,)
