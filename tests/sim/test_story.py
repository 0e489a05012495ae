"""How a transcript's lines are told shorter."""

from p2pfed.sim.story import story

START = [f"     0.00s bank-{i} starts with nothing saved" for i in (1, 2, 3, 4, 5)]
STARTED = "    0.00s             everybody: starts with nothing saved"


def test_those_who_do_the_same_one_after_the_other_are_one_line() -> None:
    assert story(START) == [STARTED]
    lines = ["     1.00s bank-2 is killed", "     3.00s bank-10 is killed", "     4.00s partition begins"]
    assert story([*START, *lines])[1:] == [
        "    1.00s -    3.00s  bank-2, bank-10 is killed",  # bank-10 never started: this is no node
        "    4.00s             partition begins",
    ]


def test_what_one_says_of_several_is_one_line() -> None:
    lines = [f"     {i}.00s bank-1 suspects bank-{i}" for i in (2, 3)]
    assert story([*START, *lines])[1:] == ["    2.00s -    3.00s  bank-1: suspects all but bank-4, bank-5"]
    lines = [f"     {i}.00s bank-{i} takes bank-5 for failed" for i in (2, 3, 4)]
    assert story([*START, *lines])[1:] == ["    2.00s -    4.00s  bank-2, bank-3, bank-4: takes bank-5 for failed"]


def test_a_round_tells_what_is_new_in_it_and_what_is_merged_again() -> None:
    lines = [
        "     1.00s bank-1 gets update 3 of bank-2",
        "     1.10s bank-1 gets update 7 of bank-3 through bank-2",
        "     1.20s bank-1 round 4 merged bank-2, bank-3",
        "     2.00s bank-1 gets update 8 of bank-3",
        "     2.20s bank-1 round 5 merged bank-2, bank-3",
        "     3.20s bank-1 round 6 merged nobody",
    ]
    assert [line[22:] for line in story([*START, *lines])[1:]] == [
        "bank-1: round 4: new from all but bank-4, bank-5 (through bank-2: bank-3)",
        "bank-1: round 5: new from bank-3; old from bank-2",
        "bank-1: round 6: new from nobody",
    ]


def test_what_a_killed_node_had_got_is_lost_with_it() -> None:
    lines = ["     1.00s bank-1 gets update 3 of bank-2", "     2.00s bank-1 is killed"]
    again = ["     3.00s bank-1 goes on from round 4", "     4.00s bank-1 round 5 merged nobody"]
    assert story([*START, *lines, *again])[-1].endswith("bank-1: round 5: new from nobody")


def test_what_is_said_again_after_a_pause_is_another_line() -> None:
    lines = [f"     {time}.00s bank-1 meets bank-{i}" for time, i in ((1, 2), (2, 3), (9, 4))]
    assert [line[22:] for line in story([*START, *lines])[1:]] == [
        "bank-1: meets all but bank-4, bank-5",
        "bank-1: meets bank-4",
    ]
