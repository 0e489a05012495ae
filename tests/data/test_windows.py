"""Sliding windows against the loop they replace."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.data.windows import History

rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=40)


@given(rows, st.integers(1, 20), st.integers(0, 10))
def test_windows_are_those_of_a_loop(rows: list[tuple[int, int, int]], window: int, delay: int) -> None:
    # one order of payments of the same second: as given
    keys, seconds, values = (np.array(c) for c in zip(*sorted(rows, key=lambda r: r[1]), strict=True))
    history = History(keys, seconds)
    count, recent = history.count(window), history.mean(values.astype(float), window)
    known = history.mean(values.astype(float), window, delay=delay, prior=5.0, weight=2.0) if delay else None
    since = history.since_previous(never=999.0)
    for i, (key, now) in enumerate(zip(keys, seconds, strict=True)):
        before = [j for j in range(i + 1) if keys[j] == key]
        inside = [j for j in before if seconds[j] >= now - window]
        assert count[i] == len(inside)
        assert np.isclose(recent[i], np.mean(values[inside]))
        assert since[i] == (now - seconds[before[-2]] if len(before) > 1 else 999.0)
        if known is not None:
            old = [j for j in before if now - window - delay <= seconds[j] < now - delay]
            assert np.isclose(known[i], (values[old].sum() + 10.0) / (len(old) + 2))


def test_answers_come_in_the_order_of_the_question() -> None:
    history = History(np.array([1, 0, 1, 0]), np.array([30, 20, 10, 0]))
    assert history.count(100).tolist() == [2, 2, 1, 1]
    assert history.since_previous(never=-1).tolist() == [20, 20, -1, -1]
