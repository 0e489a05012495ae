"""Banks whose training does not fit into a round, always or once."""

from __future__ import annotations

from typing import Any

from tests.core.gossip.test_cycles import ANCHOR, FIRST_REST, network, problems, quarantined, rounds


def test_a_bank_slower_than_three_rounds_listens_and_says_so() -> None:
    net = network(4, until=ANCHOR - 1)
    train = net.carry_out

    def slow(me: Any, effect: Any) -> None:
        net.training_seconds = 35.0 if me == net.ids[0] else 3.0
        train(me, effect)

    net.carry_out = slow  # type: ignore[method-assign]
    net.run(FIRST_REST)
    assert "TOO_SLOW" in problems(net, 0) and net.nodes[net.ids[0]].rounds.listener
    assert not quarantined(net)
    assert rounds(net, 1) == list(range(1, 121)), "nobody waits"


def test_a_bank_that_stood_still_for_a_minute_is_no_slow_one() -> None:
    net = network(4, until=ANCHOR + 333)
    net.training_seconds = 63.0
    net.run(ANCHOR + 341)
    net.training_seconds = 3.0
    net.run(ANCHOR + 500)
    assert "TOO_SLOW" not in problems(net, 0)
    assert set(range(45, 50)) <= set(rounds(net, 0))


def test_a_bank_whose_training_outlasts_the_cycle_is_told_so() -> None:
    net = network(4, until=ANCHOR - 1)
    net.training_seconds = 250.0
    net.run(ANCHOR + 450)
    assert "TOO_SLOW" in problems(net, 0)
