"""Delay, loss, bandwidth and partitions between numbered nodes."""

import numpy as np
import pytest

from p2pfed.sim.network import Link, Network, Partition


def network(default: Link, links: dict[tuple[int, int], Link] | None = None) -> Network:
    return Network(4, default, links or {}, np.random.default_rng(0))


def test_a_message_takes_the_delay_and_its_bytes():
    net = network(Link(delay_seconds=0.2, megabits=8.0))
    assert net.send(0, 1, 0) == pytest.approx(0.2)
    assert net.send(0, 1, 500_000) == pytest.approx(0.2 + 0.5)


def test_delays_vary_to_both_sides():
    net = network(Link(delay_seconds=1.0, jitter=0.25))
    took = [net.send(0, 1, 0) for _ in range(2000)]
    assert 0.75 <= min(took) < 0.76 and 1.24 < max(took) <= 1.25
    assert np.mean(took) == pytest.approx(1.0, abs=0.01)


def test_so_many_exchanges_fail_as_the_link_says():
    net = network(Link(loss=0.3))
    failed = sum(net.send(0, 1, 0) is None or net.send(1, 0, 0) is None for _ in range(20_000))
    assert failed / 20_000 == pytest.approx(0.3, abs=0.01)


def test_a_link_of_its_own_counts_in_both_directions():
    net = network(Link(delay_seconds=0.1), {(1, 3): Link(delay_seconds=2.0), (0, 2): Link(loss=1.0)})
    assert net.send(1, 3, 0) == net.send(3, 1, 0) == 2.0
    assert net.send(2, 0, 0) is None and net.send(0, 2, 0) is None
    assert net.send(1, 2, 0) == 0.1


def test_partitions_cut_between_groups_and_overlap():
    net = network(Link())
    first, second = Partition((0, 0, 1, -1)), Partition((0, 1, -1, -1))
    assert net.turn(first) and net.send(0, 2, 0) is None
    assert net.send(0, 1, 0) == net.send(0, 3, 0) == net.send(2, 3, 0) == 0.0
    assert net.turn(second) and net.apart(0, 1) and net.apart(0, 2) and not net.apart(0, 3)
    assert not net.turn(first) and net.apart(0, 1) and not net.apart(0, 2)
    assert not net.turn(second) and not net.apart(0, 1)


def test_bytes_are_counted_on_both_sides():
    net = network(Link())
    net.count(0, 2, 100)
    net.count(2, 1, 7)
    assert net.sent == [100, 0, 7, 0] and net.received == [0, 7, 100, 0]
