"""When a merged model may take the place of what serves."""

from __future__ import annotations

from typing import Any

import pytest

from p2pfed.core.gossip.champion import Decision, at_the_gate, decide, worse


def measured(auprc: float | None, loss: float | None = 0.1, **more: Any) -> dict[str, Any]:
    return {"auprc": auprc, "loss": loss, **more}


def few(frauds: int, loss: float | None, alerts: float | None = 0.01, auprc: float | None = 0.5) -> dict[str, Any]:
    return measured(auprc, loss, frauds=frauds, borrowed=frauds // 2, alert_rate=alerts)


def test_gate_rows_decide_where_there_are_any() -> None:
    assert at_the_gate({"validation": {"auprc": 0.1}, "gate": {"auprc": 0.2}}) == {"auprc": 0.2}
    assert at_the_gate({"validation": {"auprc": 0.1}}) == {"auprc": 0.1}
    assert at_the_gate({"test": {"auprc": 0.1}}) == {}


@pytest.mark.parametrize(
    ("challenger", "champion", "best", "promote"),
    [
        (0.8, None, None, True),
        (0.8, 0.8, 0.8, True),
        (0.7951, 0.8, None, True),
        (0.7949, 0.8, None, False),
        (0.7951, 0.8, 0.8049, True),
        (0.7951, 0.8, 0.806, False),  # many small steps down
        (None, 0.8, None, False),
        (0.1, None, 0.8, True),
    ],
)
def test_auprc_decides(challenger: float | None, champion: float | None, best: float | None, promote: bool) -> None:
    its = None if champion is None else measured(champion)
    ever = None if best is None else measured(best)
    decision = decide("mlp", measured(challenger), its, ever)
    assert (decision.promote, decision.checked) == (promote, True)


def test_the_sentence_has_the_numbers() -> None:
    assert decide("mlp", measured(0.7), measured(0.8), None) == Decision(
        False, "AUPRC 0.7000 on validation rows, what serves has AUPRC 0.8000"
    )
    mine = measured(0.7, frauds=20, borrowed=12, alert_rate=0.5)
    said = decide("mlp", mine, measured(0.7), measured(0.75)).why
    where = "validation rows with 20 frauds, 12 of them trained on"
    assert said == f"AUPRC 0.7000 on {where}, the best of 90 days has AUPRC 0.7500"


def test_alerts_decide_nothing_where_there_are_frauds_enough() -> None:
    wild = measured(0.8, 5.0, frauds=10, borrowed=3, alert_rate=0.9)
    assert decide("mlp", wild, measured(0.8, 0.1, frauds=10, borrowed=3, alert_rate=0.01), None).promote


@pytest.mark.parametrize(
    ("loss", "alerts", "promote"),
    [
        (0.1, 0.01, True),
        (0.1049, 0.01, True),
        (0.1051, 0.01, False),
        (0.05, 0.02, True),
        (0.05, 0.0201, False),
        (0.05, 0.005, True),
        (0.05, 0.0049, False),
        (None, 0.01, False),
        (0.1, None, False),
    ],
)
@pytest.mark.parametrize("frauds", [1, 9])
def test_with_few_frauds_loss_and_alerts_decide(
    frauds: int, loss: float | None, alerts: float | None, promote: bool
) -> None:
    decision = decide("mlp", few(frauds, loss, alerts, auprc=0.0), few(frauds, 0.1, 0.01, auprc=1.0), None)
    assert (decision.promote, decision.checked) == (promote, True)


def test_with_few_frauds_the_best_is_held_against_by_its_loss() -> None:
    assert decide("mlp", few(5, 0.104), few(5, 0.1), few(5, 0.095, 0.5, auprc=1.0)).promote
    said = decide("mlp", few(5, 0.104), few(5, 0.1), few(5, 0.094))
    assert not said.promote
    assert said.why == (
        "loss 0.104 on validation rows with 5 frauds, 2 of them trained on, the best of 90 days has loss 0.094"
    )


def test_a_change_of_alerts_is_said_with_both_rates() -> None:
    said = decide("mlp", few(1, 0.1, 0.5), few(1, 0.1, 0.01), None).why
    assert said.startswith("it would alert on 50.00% of the payments, what serves on 1.00%")
    assert not decide("mlp", few(1, 0.1, 0.001), few(1, 0.1, 0.0), None).promote
    assert decide("mlp", few(1, 0.1, 0.0), few(1, 0.1, 0.0), None).promote


def test_without_frauds_what_serves_follows_the_merge_and_says_so() -> None:
    for champion in (None, few(0, 0.001, auprc=None)):
        decision = decide("mlp", few(0, 99.0, 0.9, auprc=None), champion, champion)
        assert (decision.promote, decision.checked) == (True, False)
        assert "no fraud" in decision.why


@pytest.mark.parametrize(("loss", "promote"), [(1.0, True), (1.049, True), (1.051, False), (None, False)])
def test_autoencoders_are_compared_by_their_loss_whatever_the_frauds(loss: float | None, promote: bool) -> None:
    for frauds in (0, 5, 15):
        decision = decide("autoencoder", few(frauds, loss, 0.9), few(frauds, 1.0, 0.01), None)
        assert (decision.promote, decision.checked) == (promote, True)


def test_worse_falls_back_on_the_loss_without_frauds() -> None:
    assert worse("mlp", measured(None, 0.11), measured(None, 0.1), 0.005)
    assert not worse("mlp", measured(None, 0.104), measured(None, 0.1), 0.005)
    assert not worse("mlp", measured(None, None), measured(None, None), 0.005)


def on(frauds: int, auprc: float | None, loss: float | None = 0.1) -> dict[str, Any]:
    """Metrics of validation rows with so many frauds."""
    return measured(auprc, loss, confusion=[[900, 0], [frauds // 2, frauds - frauds // 2]])


@pytest.mark.parametrize(
    ("auprc", "chosen", "promote"),
    [
        (0.5, None, True),  # of this cycle
        (0.5, on(50, 0.51), True),  # measured on other rows then
        (0.5, on(50, 0.5, 0.1001), True),
        (0.5, on(50, 0.5), False),
        (0.59, on(50, 0.5), False),
        (0.59, on(50, 0.5 + 1e-9, 0.1 - 1e-9), False),  # by another processor
        (0.61, on(50, 0.5), True),  # chance makes .1
        (0.4, on(50, 0.51), False),
    ],
)
def test_rows_that_chose_before_choose_again_only_beyond_chance(
    auprc: float, chosen: dict[str, Any] | None, promote: bool
) -> None:
    assert decide("mlp", on(50, auprc), on(50, 0.5), None, chosen).promote == promote


def test_what_is_held_for_luck_says_so() -> None:
    mine, its = (measured(auprc, frauds=20, borrowed=7, alert_rate=0.01) for auprc in (0.55, 0.5))
    assert decide("mlp", mine, its, None, its).why == (
        "AUPRC 0.5500 on the validation rows with 20 frauds, 7 of them trained on that chose what serves, which has "
        "AUPRC 0.5000: on the same rows again less than 0.1581 more is luck"
    )


def test_chance_is_not_known_without_frauds_or_where_the_loss_decides() -> None:
    assert decide("mlp", measured(0.5), measured(0.5), None, measured(0.5)).promote
    assert decide("mlp", few(5, 0.1), few(5, 0.1), None, few(5, 0.1)).promote
    assert decide("autoencoder", on(50, 0.5), on(50, 0.5), None, on(50, 0.5)).promote
    assert decide("mlp", on(50, 0.5), measured(None), None, measured(None)).promote
