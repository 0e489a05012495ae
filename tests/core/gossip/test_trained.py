"""Which rounds a node remembers to have trained."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.gossip.trained import KEPT, TrainedRounds


@given(st.lists(st.integers(0, 60)))
def test_a_restart_goes_on_with_the_same_rounds(numbers: list[int]) -> None:
    before, after = TrainedRounds(), TrainedRounds()
    for number in numbers:
        before.add(number)
    after.restore(before.state())
    assert all((number in after) == (number in numbers) for number in range(61))
    assert after.state() == before.state()


def test_only_the_newest_are_kept() -> None:
    trained = TrainedRounds()
    for number in range(KEPT + 10):
        trained.add(number)
    assert 9 not in trained and 10 in trained
    assert len(trained.state()) < 40, "in runs"


def test_what_another_version_kept_says_nothing() -> None:
    trained = TrainedRounds()
    trained.add(3)
    trained.restore(b"{}")
    trained.restore(b"no JSON")
    assert 3 in trained and 4 not in trained
