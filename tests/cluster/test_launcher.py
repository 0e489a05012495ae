"""When waiting for the rounds ends, by what the daemons tell."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from p2pfed.cluster import launcher
from p2pfed.cluster.running import NodeProgress, trainer_trouble
from p2pfed.errors import LocalFault, Unavailable
from p2pfed.results import Quarantine

TRAINING = NodeProgress("bank-1", "training", 4, None, 0, None)
SAID = "the trainer stopped: no memory"


class Told:
    """A cluster whose daemons tell one thing after the other, the last for ever."""

    def __init__(self, *steps: NodeProgress) -> None:
        self.cluster = SimpleNamespace(folder="cluster")
        self.steps = list(steps)

    def progress(self) -> list[NodeProgress]:
        return [self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(launcher, "POLL_SECONDS", 0.0)


def wait(*steps: NodeProgress) -> None:
    launcher._wait(Told(*steps), 20, SimpleNamespace(nodes=lambda progress, rounds, per_cycle: None), 0)


def test_it_ends_when_every_node_has_finished():
    wait(TRAINING, replace(TRAINING, state="finished"))


def test_a_trainer_that_fails_again_and_again_ends_it_with_its_words():
    with pytest.raises(LocalFault, match="bank-1 cannot train.*: the trainer stopped: no memory"):
        wait(TRAINING, replace(TRAINING, trouble=SAID))


def test_no_news_for_long_ends_it(monkeypatch):
    monkeypatch.setattr(launcher, "STALL_SECONDS", 0.05)
    with pytest.raises(Unavailable, match="no node completed a round"):
        wait(TRAINING)


@pytest.mark.parametrize(
    ("restarts", "code", "trouble"),
    [(3, "TRAINER_LOST", SAID), (2, "TRAINER_LOST", ""), (7, "ALONE", ""), (3, "", "")],
)
def test_a_trainer_is_given_up_after_three_losses_if_it_is_not_back(restarts, code, trouble):
    status = {
        "self": {"trainer": {"restarts": restarts}},
        "problems": [{"code": code, "message": SAID}] if code else [],
    }
    assert trainer_trouble(status) == trouble


def changed(member: str, after: str, **numbers: float) -> dict:
    return {"kind": "standing_changed", "fields": {"member": member, "after": after, "numbers": numbers}}


def test_quarantines_are_read_from_a_banks_events():
    def completed(number: int) -> dict:
        return {"kind": "round_completed", "fields": {"round": number}}

    events = [
        completed(1),
        changed("B", "suspect", looks=2.0),
        completed(2),
        changed("B", "quarantined", looks=4.0),
        changed("C", "quarantined", looks=3.0),
        completed(3),
        changed("B", "suspect", looks=14.0),
        changed("B", "quarantined", looks=15.0),
        changed("C", "trusted"),  # pardoned
    ]
    names = {"B": "bank-2", "C": "bank-3"}
    told = launcher.quarantines(SimpleNamespace(name="bank-1", attack=""), names, events)
    assert told == [
        Quarantine("bank-1", "bank-2", 3, 4, 4),
        Quarantine("bank-1", "bank-3", 3, 3, 4),
        Quarantine("bank-1", "bank-2", 4, 15, None),
    ]
    assert launcher.quarantines(SimpleNamespace(name="bank-1", attack="signflip"), names, events) == []
