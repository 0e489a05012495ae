"""The pictures of a simulation: what they show, and that they can be read."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from p2pfed.experiment import plots, tables
from p2pfed.sim.history import Point, Standing
from tests.sim.consortium import simulated


@pytest.fixture(scope="module")
def history():
    return simulated(
        rounds=6, attackers=[{"kind": "signflip", "nodes": ["bank-2"], "scale": 30.0}], evaluate={"every": 2}
    )


def story(history):
    table = tables.rounds(history)
    return plots.Story(history, table[table["role"] == "honest"])


def many(history, nodes):
    """As if so many nodes had taken part, of which ten were measured all along."""
    rng = np.random.default_rng(0)
    points = [
        Point(r * 3.0, n, r, 0.5, 0.01 * r if n < 10 or r == 6 else None, 900 * r, 3.0, 0.1, 6)
        for n in range(nodes)
        for r in range(1, 7)
    ]
    run = replace(history.run, nodes=tuple(replace(history.run.nodes[0], name=f"bank-{i + 1}") for i in range(nodes)))
    pulls = {(i, int(j)): 2 for i in range(nodes) for j in rng.choice(nodes, 6, replace=False) if i != j}
    return replace(history, run=run, points=points, pulls=pulls)


def test_every_picture_is_wide_enough_and_none_is_of_nothing(history, tmp_path):
    (tmp_path / "quarantine.png").write_bytes(b"of an older run")
    written = plots.draw(replace(history, standing=[]), tmp_path)
    assert [path.stem for path in written] == ["auprc", "worst", "consensus", "bytes", "topology"]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}
    for path in written:
        pixels = imread(path)
        assert pixels.shape[1] == 1500 and pixels[..., :3].min() < 0.5 < pixels[..., :3].mean()


def test_the_attacker_of_a_real_run_is_in_the_picture_of_quarantines(history, tmp_path):
    written = plots.draw(history, tmp_path)
    assert [path.stem for path in written] == ["auprc", "worst", "consensus", "bytes", "quarantine", "topology"]


def test_a_run_without_a_round_gives_no_picture(history, tmp_path):
    assert plots.draw(replace(history, points=[], spread=[], pulls={}, standing=[]), tmp_path) == []


@pytest.mark.parametrize("picture", [plots.auprc, plots.worst, plots.consensus, plots.traffic])
def test_axes_are_labelled_and_the_legend_is_beside_the_data(history, picture):
    figure = picture(story(history))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_xlabel() == "round" and axes.get_ylabel() and axes.get_title(loc="left")
    assert "simulation (seed 0): 6 banks, 1 of them attackers" in figure.get_supxlabel()
    for legend in figure.legends:
        assert legend.get_window_extent().x0 > axes.get_window_extent().x1


def test_attackers_are_left_out(history):
    rows = tables.rounds(history)
    honest = rows[(rows["role"] == "honest") & rows["auprc"].notna()].groupby("round")["auprc"]
    (axes,) = plots.auprc(story(history)).axes
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [2, 4, 6] and np.allclose(line.get_ydata(), honest.median())
    band = axes.collections[0].get_paths()[0].vertices
    assert np.isclose(band[:, 1].max(), honest.max().max()) and np.isclose(band[:, 1].min(), honest.min().min())
    (worst,) = plots.worst(story(history)).axes
    assert "bank-2" not in [line.get_label() for line in worst.get_lines()]


def test_the_worst_bank_is_shown_even_if_it_was_measured_only_at_the_end(history):
    large = many(history, 40)
    large.points[-1] = replace(large.points[-1], auprc=0.001)
    (axes,) = plots.worst(story(large)).axes
    last = axes.get_lines()[-1]
    assert last.get_label() == "bank-40, the worst of all" and last.get_ydata() == [0.001]


def test_the_last_round_in_which_banks_only_listen_is_left_out_of_the_bytes(history):
    (axes,) = plots.traffic(story(history)).axes
    assert list(axes.get_lines()[0].get_xdata()) == [1, 2, 3, 4, 5]
    assert axes.get_ylabel() == "kB per round and bank"


def test_few_banks_are_drawn_on_a_circle(history):
    left, right, _bar = plots.topology(story(history)).axes
    assert {text.get_text() for text in left.texts} == {"1", "2", "3", "4", "5", "6"}
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["honest", "attacker"]
    shown = right.get_images()[0].get_array()
    assert shown.sum() == sum(history.pulls.values())
    assert shown[0, 1] == history.pulls[0, 1] and shown.mask[0, 0]


def test_many_banks_share_the_cells_of_a_map(history):
    large = many(history, 250)
    axes = plots.topology(story(large)).axes
    shown = axes[1].get_images()[0].get_array()
    assert shown.shape == (100, 100)
    assert np.isclose(shown.mean(), 2 * 6 / 250, rtol=0.1)
    counts = sum(patch.get_height() for patch in axes[0].patches)
    assert counts == 250, "each bank once in the histogram"


def test_quarantine_shows_the_share_of_the_honest_banks(history):
    told = [Standing(2.0 + observer, observer, 1, "quarantined", 4, 5) for observer in (0, 2, 3, 4, 5)]
    told += [Standing(3.0, 0, 4, "quarantined", 4, 5), Standing(6.0, 0, 4, "suspect", 14, 9)]
    told += [Standing(3.0, 1, 0, "quarantined", 4, 5)]
    axes, _bar = plots.quarantine(story(replace(history, standing=told, virtual_seconds=10.0))).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bank-2 (attacker)", "bank-5 (honest)"]
    shown = axes.get_images()[0].get_array()
    assert shown[0, 0] == 0 and shown[0, -1] == 1 and np.isclose(shown[0, 150], 3 / 5)
    assert shown[1, 120] == 1 / 4 and shown[1, 200] == 0
