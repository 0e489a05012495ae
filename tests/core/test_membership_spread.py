"""Many heartbeat tables together: what all of them come to believe."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from p2pfed.core.membership import PeerTable
from p2pfed.core.types import NodeId, PeerState
from tests.core.heartbeats import PERIOD, beat, rng, roster


def gossip(tables: Sequence[PeerTable], up: set[int], first: int, periods: int, loss: float, seed: int) -> list[str]:
    """Each table in `up` swaps rows with one partner a period, unless that is lost. Answers who marked whom."""
    draws, marked = rng(seed), []
    names = [NodeId(f"BANK{i:02}") for i in range(len(tables))]
    for period in range(first, first + periods):
        now = period * PERIOD
        for i in sorted(up):
            partner = tables[i].exchange_partner(now, draws, period)
            for change in tables[i].tick(now):
                marked.append(f"{period} {i} {change.member} {change.after.value}")
            j = names.index(partner) if partner else i
            if partner is None or j not in up or draws.random() < loss:
                if partner:
                    tables[i].failed(partner, now, draws)
                continue
            here, there = (tables[x].rows(beat(names[x], period), draws) for x in (i, j))
            tables[i].observe(there, now, direct_from=names[j])
            tables[j].observe(here, now, direct_from=names[i])
    return marked


def some_tables(n: int) -> list[PeerTable]:
    everybody = roster(**{f"BANK{i:02}": f"b{i}:1" for i in range(n)})
    return [PeerTable(me, everybody, PERIOD) for me in everybody.ids]


@pytest.mark.parametrize("n", [3, 20])
def test_no_live_member_is_suspected_though_three_in_ten_exchanges_are_lost(n: int) -> None:
    tables = some_tables(n)
    assert gossip(tables, set(range(n)), 1, 150, loss=0.3, seed=n) == []
    assert all(t.state(m) is PeerState.ALIVE for t in tables for m in t.members)


def test_a_dead_member_is_failed_by_all_and_welcomed_back_by_all() -> None:
    tables = some_tables(10)
    everybody = set(range(10))
    gossip(tables, everybody, 1, 20, 0.05, 1)
    marked = gossip(tables, everybody - {3}, 21, 45, 0.05, 2)
    assert {line.split(maxsplit=1)[1] for line in marked if line.endswith("failed")} == {
        f"{i} BANK03 failed" for i in everybody - {3}
    }
    assert all("BANK03" in line for line in marked)
    gossip(tables, everybody, 66, 40, 0.05, 3)
    assert all(t.state(m) is PeerState.ALIVE for t in tables for m in t.members)


def test_a_partition_heals_by_itself() -> None:
    tables = some_tables(8)
    gossip(tables, set(range(8)), 1, 20, 0.0, 1)
    for half, others in (({0, 1, 2, 3}, {4, 5, 6, 7}), ({4, 5, 6, 7}, {0, 1, 2, 3})):
        marked = gossip(tables, half, 21, 60, 0.0, 2)
        failed = {line.split(maxsplit=1)[1] for line in marked if line.endswith("failed")}
        assert failed == {f"{i} BANK{j:02} failed" for i in half for j in others}
    gossip(tables, set(range(8)), 81, 40, 0.0, 3)
    assert all(t.state(m) is PeerState.ALIVE for t in tables for m in t.members)
