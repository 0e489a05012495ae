"""Forks that wait for each other, and for nobody who has died."""

import os
import time
from collections.abc import Callable

import pytest

from p2pfed.runtime.process import StartLine

SECONDS = 60.0


def forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_who_waits_goes_on_once_the_others_have_come_or_died(dies: bool) -> None:
    line = StartLine()
    begin = time.monotonic()
    early = forked(lambda: line.wait(SECONDS))
    late = forked(lambda: time.sleep(1) if dies else (time.sleep(1), line.wait(SECONDS)))
    line.leave()
    assert os.waitpid(early, 0)[1] == 0
    assert 0.9 < time.monotonic() - begin < SECONDS / 2
    os.waitpid(late, 0)


@pytest.mark.slow
def test_nobody_waits_for_ever() -> None:
    line = StartLine()
    begin = time.monotonic()
    early = forked(lambda: line.wait(0.5))
    os.waitpid(early, 0)
    assert 0.4 < time.monotonic() - begin < SECONDS / 2
    line.leave()
