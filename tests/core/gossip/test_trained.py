"""Which rounds a node remembers to have trained."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.gossip.trained import KEPT, TrainedRounds

CALENDAR = Calendar(100, 3600, 20, 10.0)


@given(st.lists(st.integers(0, 60)))
def test_a_restart_goes_on_with_the_same_rounds(numbers: list[int]) -> None:
    before, after = TrainedRounds(CALENDAR), TrainedRounds(CALENDAR)
    for number in numbers:
        before.add(number)
    after.restore(before.state())
    assert all((number in after) == (number in numbers) for number in range(61))
    assert after.state() == before.state()


def test_only_the_newest_are_kept() -> None:
    trained = TrainedRounds(CALENDAR)
    for number in range(KEPT + 10):
        trained.add(number)
    assert 9 not in trained and 10 in trained
    assert len(trained.state()) < 50, "in runs"


def test_what_another_version_kept_says_nothing() -> None:
    trained = TrainedRounds(CALENDAR)
    trained.add(3)
    trained.restore(b"{}")
    trained.restore(b"no JSON")
    assert 3 in trained and 4 not in trained


def test_under_another_calendar_the_numbers_from_its_beginning_on_are_of_other_rounds() -> None:
    """Who is cut off trains on by the old one, and learns of the change late."""
    trained = TrainedRounds(CALENDAR)
    for number in range(1, 101):
        trained.add(number)
    changed = TrainedRounds(Calendar(1900, 3600, 4, 10.0, first=3, before=60))
    changed.restore(trained.state())
    assert 60 in changed and 61 not in changed
