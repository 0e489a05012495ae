"""What the benchmark of poisoned updates counts, and what it makes of its cells."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from p2pfed.results import Quarantine
from p2pfed.sim.history import Standing


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    return import_module("poisoning_cells")


@pytest.fixture
def kept(cells):
    return import_module("kept_cells")


@pytest.fixture
def tables(cells):
    return import_module("poisoning_tables")


def cell(attack="signflip", rule="reputation", seed=0, auprc=0.8, **changes):
    common = {"set": "ulb", "partition": "dirichlet:1.0", "nodes": 16, "share": 0.3, "rounds": 60}
    counted = {"worst": auprc / 2, "trigger": None, "pairs": None, "honest_pairs": 100, "wrongs": []}
    return common | {"attack": attack, "rule": rule, "seed": seed, "auprc": auprc} | counted | changes


def honest(seed=0, auprc=0.8):
    return cell("honest", "mean", seed, auprc)


def test_a_cell_is_named_by_all_that_makes_another_of_it(cells, kept):
    def key(one):
        return kept.key(one, cells.NAMES)

    others = [{"nodes": 8}, {"share": 0.2}, {"rounds": 10}, {"partition": "iid"}, {"seed": 1}, {"rule": "mean"}]
    assert len({key(cell())} | {key(cell() | other) for other in others}) == 7
    assert key(cell(auprc=0.1)) == key(cell())


def test_a_benchmark_that_was_killed_while_it_wrote_goes_on_after_its_last_whole_line(cells, kept, tmp_path):
    path = tmp_path / "cells.jsonl"
    assert kept.resume(path, cells.NAMES) == {}
    first = json.dumps(cell()) + "\n"
    path.write_text(first + first[:40])
    assert kept.resume(path, cells.NAMES) == {kept.key(cell(), cells.NAMES): cell()}
    assert path.read_text() == first
    path.write_text(first[:40])
    assert kept.resume(path, cells.NAMES) == {} and path.read_text() == ""


def test_only_what_is_not_there_yet_is_measured(kept, tmp_path, capsys):
    path, asked, measured = tmp_path / "cells.jsonl", [{"seed": 0}, {"seed": 1}], []

    def measure(one, folder):
        assert folder.is_dir()
        measured.append(one)
        return {"auprc": 0.5}

    for cells in (asked[:1], asked, asked):
        done = kept.complete(path, cells, ("seed",), measure, lambda one: f"seed {one['seed']}")
    assert measured == asked and done == {(0,): {"seed": 0, "auprc": 0.5}, (1,): {"seed": 1, "auprc": 0.5}}
    assert capsys.readouterr().err.count("of 1: seed") == 2


def told(observer, what, exchange, since):
    return Standing(1.0, observer, 9, what, exchange, exchange, since)


def test_catches_are_counted_since_the_attack_began(cells):
    standing = [
        told(0, "suspect", 31, 2),
        told(0, "quarantined", 33, 4),
        told(0, "suspect", 60, 31),
        told(0, "quarantined", 64, 35),
        # quarantined before the attack, and released before it
        told(1, "quarantined", 5, 0),
        told(1, "suspect", 15, 0),
        # in quarantine already when it began
        told(2, "quarantined", 20, 0),
    ]
    pairs = [(observer, 9) for observer in range(4)]
    since = {(0, 9): 40, (1, 9): 12, (2, 9): 3}
    assert cells.caught(standing, since, pairs) == [[4, 40], [None, 12], [0, 3], [None, 0]]


def test_who_met_too_seldom_has_neither_failed_nor_caught(cells):
    pairs = [[4, 40], [6, 6], [3, 4], [7, 40], [None, 6], [None, 5], [None, 0]]
    assert cells.in_time(pairs, 6) == (3, 5, 2)


def test_wrong_quarantines_are_those_of_honest_banks_by_honest_banks(cells):
    lasting = [
        Quarantine("a", "b", 10, 4, 25),
        Quarantine("a", "b", 40, 4, None),
        Quarantine("a", "x", 4, 4, None),
        Quarantine("x", "a", 4, 4, None),
    ]
    wrongs = cells.wronged(lasting, ["a", "b"])
    assert wrongs == [[10, 25], [40, None]]
    two = [cell(wrongs=wrongs), cell(seed=1, wrongs=[[1, 6]])]
    assert cells.releases(two) == ([5, 15], 1)
    assert cells.wrong_share(two) == pytest.approx(3 / (2 * 100 * 0.6))
    assert cells.wrong_share([cell(honest_pairs=0)]) == 0


def test_an_attack_counts_where_plain_gossip_falls_below_nine_tenths_of_its_own_seed(cells):
    found = [honest(0, 0.8), honest(1, 0.4), cell("stale", "mean", 0, 0.8), cell("stale", "mean", 1, 0.36)]
    found += [cell("ipm", "mean", 0, 0.64), cell("ipm", "mean", 1, 0.38), cell("alie", "krum", 0, 0.1)]
    assert cells.hurt(found, {0: 0.8, 1: 0.4}) == {"ipm"}


def rows(table):
    columns = [list(column.cells) for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_the_table_says_what_the_cells_do(tables):
    found = [honest(0, 0.8), honest(1, 0.4)]
    found += [cell("signflip", "mean", 0, 0.4), cell("signflip", "mean", 1, 0.3)]
    caught = {"pairs": [[4, 40], [None, 5]], "wrongs": [[10, 25], [40, None]]}
    found += [cell("signflip", "reputation", 0, 0.8, **caught)]
    found += [cell("signflip", "reputation", 1, 0.36, pairs=[[8, 50]], trigger=0.5)]
    found += [cell("backdoor", "reputation", 0, 0.8, pairs=[], trigger=0.25)]
    plain, ours, backdoor = rows(tables.table(found))
    # ratios 0.5 and 0.75: deviation 0.1768, t(1) = 12.706
    assert plain == ["signflip *", "mean", "0.625 ± 1.588", "0.312 (0.250)", *[""] * 6]
    assert ours[:4] == ["signflip *", "reputation", "0.950 ± 0.635", "0.475 (0.450)"]
    assert ours[4:] == [
        "2/3",
        "1/2 in 6, 1 met less",
        "6, at most 8",
        "1.67 % (2)",
        "15, at most 15 (1); at the end held: 1",
        "",
    ]
    assert backdoor[0] == "backdoor" and backdoor[4:] == ["", "", "", "0.00 % (0)", "", "25.0%"]


def test_where_nobody_is_judged_the_columns_of_standing_are_empty(tables):
    assert rows(tables.table([honest(), cell("none", "mean")])) == [
        ["none", "mean", "1.000 ± ?", "0.500 (0.500)", *[""] * 6]
    ]


def test_the_picture_has_a_panel_for_each_place(tables, tmp_path):
    here = [honest(), cell("ipm", "mean", auprc=0.3), cell("ipm")]
    there = [c | {"partition": "iid"} for c in here]
    tables.draw([here, there], tmp_path / "one.png")
    tables.draw([here], tmp_path / "other.png")
    heights = [int.from_bytes((tmp_path / f"{name}.png").read_bytes()[20:24]) for name in ("other", "one")]
    assert heights[0] > 500 and heights[1] > heights[0] + 500
