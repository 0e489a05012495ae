"""The model files of a state directory: what serves, its versions, and what a start makes of them."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from p2pfed import logs
from p2pfed.core.contract import Scaler
from p2pfed.core.effects import KeepModel, KeptModel
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.types import DAY
from p2pfed.learning.bundle import ModelBundle
from p2pfed.runtime.lineage import kept as kept_of
from p2pfed.runtime.lineage import lineage, name_of, place
from p2pfed.runtime.versions import Versions, served_between
from p2pfed.store.state_dir import StateDir, write_atomically
from tests.consortia import consortium

BANKS = consortium(3)
MANIFEST = replace(BANKS.manifest, calendar=Calendar(1_800_000_000, DAY, 40, 10.0))
ME = BANKS.members[0].node_id
WEIGHTS = MANIFEST.initial.vector
BEGIN = 1_800_000_000.0


def model(cycle: int, number: int = 40) -> KeptModel:
    """The model of a round of a cycle; cycles are days."""
    metrics = {"validation": {"auprc": 0.5 + cycle / 1000, "loss": None}}
    vector = WEIGHTS + np.float32(cycle)
    return KeptModel(MANIFEST.calendar.number(cycle, number), vector, 0.25, metrics, BEGIN + cycle * DAY, cycle)


def bundle(kept: KeptModel) -> ModelBundle:
    inputs = len(MANIFEST.contract.columns)
    scaler = Scaler((0.0,) * inputs, (1.0,) * inputs, (0.0,) * inputs)
    return ModelBundle(
        MANIFEST.model, MANIFEST.contract, scaler, kept.threshold, kept.vector, lineage(kept, MANIFEST, ME)
    )


def versions(folder: Path, days: float = 0.0) -> Versions:
    return Versions(StateDir(folder), logs.for_node("bank-0"), days)


def file_name(cycle: int, number: int = 40) -> str:
    return f"{cycle:06d}-{model(cycle, number).round:06d}.p2pfed"


def keep(
    folder: Path, cycle: int, led: tuple[int, ...] = (), days: float = 0.0, number: int = 40, ahead: float = 0.0
) -> None:
    """Keep the model of a cycle on its day, by a clock that is so many days ahead; those of `led` are better."""
    kept = replace(model(cycle, number), since=BEGIN + (cycle + ahead) * DAY)
    versions(folder, days).keep(bundle(kept), KeepModel(kept, tuple(map(model, led))))
    os.utime(folder / "models" / file_name(cycle, number), (kept.since, kept.since))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "models").glob("*.p2pfed"))


def same(one: KeptModel | None, other: KeptModel) -> bool:
    assert one is not None
    return (one.round, one.cycle, one.threshold, one.metrics, one.since) == (
        other.round, other.cycle, other.threshold, other.metrics, other.since,
    ) and np.array_equal(one.vector, other.vector)  # fmt: skip


def test_what_serves_names_its_cycle_round_and_hash(tmp_path: Path) -> None:
    keep(tmp_path, 12, number=7)
    found = ModelBundle.from_bytes((tmp_path / "model.p2pfed").read_bytes())
    assert place(found) == (12, 7) and found.lineage["number"] == 12 * 40 + 7
    assert name_of(found) == f"12.7-{found.weights_sha256[:8]}"
    assert names(tmp_path) == ["000012-000487.p2pfed"]


def test_a_start_goes_on_with_what_serves_and_what_led_it(tmp_path: Path) -> None:
    assert versions(tmp_path).recall() == (None, ())
    keep(tmp_path, 1)
    champion, bests = versions(tmp_path).recall()
    assert same(champion, model(1)) and not bests
    keep(tmp_path, 2, led=(1,))
    keep(tmp_path, 3, led=(1, 2))
    champion, bests = versions(tmp_path).recall()
    assert same(champion, model(3)) and all(map(same, bests, map(model, (1, 2)))) and len(bests) == 2


def test_damaged_files_are_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    keep(tmp_path, 1)
    keep(tmp_path, 2, led=(1,))
    keep(tmp_path, 3, led=(1, 2))
    (tmp_path / "models" / file_name(1)).write_bytes(b"P2FB....")
    champion, bests = versions(tmp_path).recall()
    assert same(champion, model(3)) and [kept.cycle for kept in bests] == [2]
    assert file_name(1) in caplog.text
    for junk in (b"{", b"[]", b'{"bests": 3}', b'{"bests": ["../../etc/passwd"]}', b"\xff"):
        (tmp_path / "models" / "index.json").write_bytes(junk)
        assert versions(tmp_path).recall()[1] == ()
    (tmp_path / "model.p2pfed").write_bytes(bundle(model(2)).to_bytes()[:-4])
    assert versions(tmp_path).recall() == (None, ())


def test_if_the_file_of_what_serves_is_damaged_or_gone_its_version_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    keep(tmp_path, 1)
    keep(tmp_path, 2, led=(1,))
    (tmp_path / "model.p2pfed").write_bytes(b"P2FB....")
    assert same(versions(tmp_path).recall()[0], model(2)) and "model.p2pfed" in caplog.text
    (tmp_path / "model.p2pfed").unlink()
    assert same(versions(tmp_path).recall()[0], model(2))
    (tmp_path / "models" / file_name(1)).unlink()
    champion, bests = versions(tmp_path).recall()
    assert same(champion, model(2)) and not bests and file_name(1) in caplog.text


def test_what_served_is_a_version_even_if_only_its_file_was_brought_here(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    (tmp_path / "models" / file_name(1)).rename(tmp_path / "models" / "000001-0040.p2pfed")  # as it was named once
    keep(tmp_path, 2, led=(1,))
    champion, (best,) = versions(tmp_path).recall()
    assert same(champion, model(2)) and same(best, model(1))


def test_killed_while_a_version_is_kept_the_one_before_serves_and_is_no_version_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, 1)

    def killed(path: Path, data: bytes) -> None:
        if path.name == "model.p2pfed":
            raise KeyboardInterrupt
        write_atomically(path, data)

    monkeypatch.setattr("p2pfed.runtime.versions.write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, 2, led=(1,))
    champion, (best,) = versions(tmp_path).recall()
    assert same(champion, model(1)) and same(best, model(1))


def test_a_bundle_of_before_the_calendar_is_no_champion(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = replace(bundle(model(1)), lineage={"round": 3, "metrics": {}, "model": MANIFEST.model_digest})
    (tmp_path / "model.p2pfed").write_bytes(old.to_bytes())
    assert versions(tmp_path).recall() == (None, ())
    assert "does not say of which round" in caplog.text
    assert place(old) == (None, None) and name_of(old) == old.weights_sha256[:8]


def test_old_versions_go_but_for_those_that_are_used(tmp_path: Path) -> None:
    for cycle in (0, 1, 2, 50, 99, 100):
        keep(tmp_path, cycle, led=(0,) if cycle else ())
    assert names(tmp_path) == [file_name(cycle) for cycle in (0, 2, 50, 99, 100)], "90 days after it served"
    keep(tmp_path, 300, led=(0,))
    keep(tmp_path, 301, led=(0,))
    assert names(tmp_path) == [file_name(cycle) for cycle in (0, 100, 300, 301)], "it served until day 300"


def test_a_clock_that_is_ahead_once_removes_nothing(tmp_path: Path) -> None:
    for cycle in (1, 2, 3):
        keep(tmp_path, cycle)
    keep(tmp_path, 4, ahead=200.0)
    assert len(names(tmp_path)) == 4
    keep(tmp_path, 5)
    assert len(names(tmp_path)) == 5, "the clock is right again, and only that file's time is not"


def test_versions_are_kept_for_label_maturity_and_window(tmp_path: Path) -> None:
    for cycle in (0, 1, 120):
        keep(tmp_path, cycle, days=150.0)
    assert len(names(tmp_path)) == 3
    (tmp_path / "models" / "notes.txt").write_text("an operator's")
    os.utime(tmp_path / "models" / "notes.txt", (0, 0))
    for cycle in (199, 200):
        keep(tmp_path, cycle, days=150.0)
    assert names(tmp_path) == [file_name(cycle) for cycle in (1, 120, 199, 200)], "1 served until day 120"
    assert (tmp_path / "models" / "notes.txt").exists()


def test_the_versions_of_a_time_are_those_that_served_in_it(tmp_path: Path) -> None:
    assert served_between(tmp_path / "models", BEGIN, BEGIN + DAY) == ([], [])
    for cycle in (1, 2, 4, 7, 9):
        keep(tmp_path, cycle)
    found, damaged = served_between(tmp_path / "models", BEGIN + 5 * DAY, BEGIN + 8 * DAY)
    assert [since for since, _ in found] == [BEGIN + 4 * DAY, BEGIN + 7 * DAY] and not damaged
    assert [place(of)[0] for _, of in found] == [4, 7]
    found, _ = served_between(tmp_path / "models", BEGIN, BEGIN + 2 * DAY)
    assert [place(of)[0] for _, of in found] == [1, 2], "before the first version nothing served"


def test_a_damaged_version_is_named_and_the_others_are_found(tmp_path: Path) -> None:
    for cycle in (1, 2, 3):
        keep(tmp_path, cycle)
    (tmp_path / "models" / file_name(2)).write_bytes(b"P2FB....")
    found, (damaged,) = served_between(tmp_path / "models", BEGIN, BEGIN + 5 * DAY)
    assert [place(of)[0] for _, of in found] == [1, 3]
    assert damaged.startswith(f"{file_name(2)} (") and "cut short" in damaged


def test_a_bundle_says_how_many_banks_models_are_in_it_and_one_from_before_that_none() -> None:
    kept = replace(model(3), sources=2)
    made = bundle(kept)
    assert kept_of(made).sources == 2
    before = {name: said for name, said in made.lineage.items() if name != "sources"}
    assert kept_of(replace(made, lineage=before)).sources == 0
