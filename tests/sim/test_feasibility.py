"""What cannot be run is said before anything starts, with the number that would fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from p2pfed.errors import ConfigError, DataError, UsageError
from p2pfed.sim.feasibility import available_memory, check, edges_of
from p2pfed.sim.scenario import Scenario, contradictions, scenario_from

GIGABYTE = 2**30
PLENTY = 1000 * GIGABYTE


def scenario(nodes: int = 10, **changes: Any) -> Scenario:
    return scenario_from({"version": 1, "nodes": nodes, "rounds": 20, **changes})


def said(nodes: int = 10, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        scenario(nodes, **changes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("topology", "nodes", "expected"),
    [
        ("regular:5", 1001, "regular:5 of 1001 nodes: the product of both must be even; 1000 or 1002 nodes fit"),
        ("regular:12", 9, "regular:12 of 9 nodes: a node has 8 others; regular:8 fits"),
        ("regular:2", 2, "a node has 1 others; full fits"),
        ("regular:1", 10, "regular:1 of 10 nodes is not possible; regular:2 is"),
        ("regular:1", 2, "regular:1 of 2 nodes is not possible; full is"),
    ],
)
def test_impossible_graphs(topology: str, nodes: int, expected: str) -> None:
    assert expected in said(nodes, gossip={"topology": topology})


@pytest.mark.parametrize(("topology", "nodes"), [("regular:5", 1000), ("regular:8", 9), ("regular:2", 10)])
def test_what_is_said_to_fit_does(topology: str, nodes: int) -> None:
    assert not list(contradictions(scenario(nodes, gossip={"topology": topology})))


def attackers(*nodes: Any) -> list[dict[str, Any]]:
    return [{"kind": "signflip", "nodes": chosen} for chosen in nodes]


def test_more_attackers_than_nodes() -> None:
    assert "attackers.0.nodes: 12 attackers of 10 nodes; at most 9 fit, for one must stay honest" in said(
        attackers=attackers(12)
    )
    assert "attackers.1.nodes: 10 attackers of 10 nodes" in said(attackers=attackers(8, ["bank-1", "bank-2"]))
    assert scenario(attackers=attackers(7, ["bank-1", "bank-2"]))


def test_who_is_chosen_twice() -> None:
    odd = {"bank": "bank-3", "rows": 50}
    assert "'bank-3' is the odd bank, which is honest" in said(attackers=attackers(["bank-3"]), odd=odd)
    assert "attackers.1.nodes: 'bank-1' is chosen before already" in said(attackers=attackers(["bank-1"], ["bank-1"]))
    both = {"joiners": [{"nodes": ["bank-1"], "at": 9}], "leavers": [{"nodes": ["bank-1"], "at": 20}]}
    assert "leavers.0.nodes: 'bank-1' is chosen before already" in said(**both)
    groups = [{"groups": [["bank-1"], ["bank-2", "bank-1"]], "start": 0, "end": 5}]
    assert "partitions.0.groups.1: 'bank-1' is chosen before already" in said(partitions=groups)
    # a node may be down twice, and slow besides
    twice = [{"nodes": ["bank-1"], "start": 0, "end": 5}, {"nodes": ["bank-1"], "start": 9, "end": 15}]
    assert scenario(outages=twice, stragglers=[{"nodes": ["bank-1"], "slower": 3}])


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        ("stragglers.0.nodes", {"stragglers": [{"nodes": ["bank-11"], "slower": 2}]}),
        ("dial_out", {"dial_out": ["bank-0"]}),
        ("outages.0.nodes", {"outages": [{"nodes": ["x"], "start": 1, "end": 2}]}),
        ("partitions.0.groups.1", {"partitions": [{"groups": [2, ["bank-11"]], "start": 1, "end": 2}]}),
        ("network.links.0.between", {"network": {"links": [{"between": ["bank-1", "bank-11"]}]}}),
        ("odd.bank", {"odd": {"bank": "bank-11", "rows": 50}}),
    ],
)
def test_unknown_nodes(place: str, changes: dict[str, Any]) -> None:
    assert re.search(rf"^{place}: there is no node '.*'; they are bank-1 to bank-10$", said(**changes), re.MULTILINE)


def test_more_nodes_than_there_are() -> None:
    assert "partitions.0.groups.1: 14 nodes of 10 nodes; at most 10 fit" in said(
        partitions=[{"groups": [7, 7], "start": 1, "end": 2}]
    )


def test_too_few_rows_for_so_many_banks() -> None:
    few = (
        r"nodes: 12,345 rows \(of 17,636, .*\) give 41 banks of at least 300 rows, not 50; nodes: 41 or min_rows: 246 "
    )
    with pytest.raises(DataError, match=few):
        check(scenario(50, data={"file": "x.csv"}), 17_636, PLENTY)
    check(scenario(41, data={"file": "x.csv"}), 17_636, PLENTY)
    with pytest.raises(DataError, match="give 23 banks of at least 300 rows, not 50; .* data.rows: 21429 would do"):
        check(scenario(50, data={"rows": 10_000}), None, PLENTY)
    check(scenario(23, data={"rows": 10_000}), None, PLENTY)
    check(scenario(50, data={"rows": 10_000}, min_rows=140), None, PLENTY)
    check(scenario(50, data={"rows": 21_429}), None, PLENTY)
    with pytest.raises(DataError, match="not 50; more rows would do"):
        check(scenario(50, data={"file": "x.csv"}), 300, PLENTY)
    check(scenario(50, data={"file": "x.csv"}), None, PLENTY)  # not read yet


@pytest.mark.parametrize("changes", [{"data": {"rows": 2_000_000}}, {}, {"data": {"file": "x.csv"}}])
def test_too_little_memory(changes: dict[str, Any]) -> None:
    rows = 2_000_000 if "file" in changes.get("data", {}) else None
    memory = 3 * GIGABYTE
    with pytest.raises(UsageError) as caught:
        check(scenario(11_000, min_rows=10, **changes), rows, memory)
    found = re.fullmatch(
        r"nodes: needs about [\d.]+ GB, 3\.0 GB are free: about ([\d,]+) nodes would fit", str(caught.value)
    )
    assert found is not None
    fitting = int(found[1].replace(",", ""))
    check(scenario(fitting, min_rows=10, **changes), rows, memory)
    with pytest.raises(UsageError, match="would fit"):
        check(scenario(fitting * 11 // 10 + 1, min_rows=10, **changes), rows, memory)


def test_memory_that_no_number_of_nodes_would_fit() -> None:
    with pytest.raises(UsageError, match="take fewer rows or a smaller model"):
        check(scenario(10, data={"rows": 100_000_000}), None, GIGABYTE)


def test_an_unchecked_copy_is_checked_again() -> None:
    copy = scenario(10, attackers=attackers(8)).model_copy(update={"nodes": 8})
    with pytest.raises(UsageError, match=r"attackers\.0\.nodes: 8 attackers of 8 nodes"):
        check(copy, None, PLENTY)


def memory_files(root: Path, version: int, limit: str) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    8000 kB\n")
    group = root / "sys/fs/cgroup" / ("" if version == 2 else "memory")
    group.mkdir(parents=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (group / names[0]).write_text(limit + "\n")
    (group / names[1]).write_text("3000000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 500000\ntotal_inactive_file 500000\n")
    return root


@pytest.mark.parametrize("version", [1, 2])
def test_memory_at_hand_is_that_of_the_control_group(tmp_path: Path, version: int) -> None:
    assert available_memory(memory_files(tmp_path / "limited", version, "4000000")) == 1_500_000
    assert available_memory(memory_files(tmp_path / "large", version, str(2**62))) == 8000 * 1024
    assert available_memory(memory_files(tmp_path / "none", version, "max")) == 8000 * 1024
    assert available_memory() > 0


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ("bank-1 bank-2\nbank-2 bank-33\n", r":2: there is no node 'bank-33'; they are bank-1 to bank-3"),
        ("bank-1 bank-2\n\n# x\nbank-3\n", r":4: expected two names, such as bank-1 bank-2"),
        ("bank-1 bank-2\n", r"gives 'bank-3' no neighbour"),
        ("bank-1 bank-1\nbank-2 bank-3\n", r"makes 'bank-1' its own neighbour"),
    ],
)
def test_files_of_links(tmp_path: Path, links: str, expected: str) -> None:
    (tmp_path / "links").write_text(links)
    linked = scenario(3, min_rows=10, gossip={"topology": f"file:{tmp_path / 'links'}"})
    with pytest.raises(UsageError, match=rf"links.*{expected}"):
        edges_of(linked)
    with pytest.raises(UsageError, match=expected):
        check(linked, None, PLENTY)


def test_a_graph_in_parts_or_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "links").write_text("bank-1 bank-2\nbank-3 bank-4\n")
    with pytest.raises(UsageError, match="is in parts: no way leads from 'bank-1' to 'bank-3'"):
        edges_of(scenario(4, gossip={"topology": f"file:{tmp_path / 'links'}"}))
    with pytest.raises(UsageError, match=r"gossip\.topology: .*absent cannot be read"):
        edges_of(scenario(4, gossip={"topology": f"file:{tmp_path / 'absent'}"}))
