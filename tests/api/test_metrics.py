"""Prometheus metrics: what events count, what the view says, and that nodes do not mix."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from p2pfed.core.events import (
    GainMeasured,
    ModelEvaluated,
    ModelHeld,
    ModelPromoted,
    PaymentsServed,
    PeerBenched,
    ProblemRaised,
    RoundCompleted,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.served import ServedDay
from p2pfed.core.types import NodeId, Reason
from tests.api.conftest import source

pytestmark = pytest.mark.network

A, B = NodeId("A" * 56), NodeId("B" * 56)


async def scraped(admin) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    async with admin.tcp.get("/metrics") as answer:
        assert answer.status == 200
        text = await answer.text()
    families = list(text_string_to_metric_families(text))
    assert len({f.name for f in families}) == len(families), "one family, one place"
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


async def test_events_are_counted(admin):
    admin.log.emit(UpdateAccepted(B, 1, B, 100))
    admin.log.emit(UpdateAccepted(B, 2, B, 100))
    admin.log.emit(UpdateRefused(B, B, Reason.NOT_FINITE, ""))
    admin.log.emit(PeerBenched(B, "refused", 5.0))
    admin.log.emit(RoundCompleted(1, 1, 0.25, 20, 0.7, 0.4, (source(A), source(B)), 0.5))
    admin.log.emit(ModelEvaluated(1, {"test": {"auprc": 0.8}, "own_test": {"auprc": None}}, 0.5))
    admin.log.emit(ModelPromoted(40, 0, {}, 0.5, "the first"))
    admin.log.emit(ModelHeld(80, 1, {}, "worse"))
    admin.log.emit(ModelHeld(120, 2, {}, "worse"))
    parts = ServedDay("2026-03-01", 90, 4, 2, 2, 0.7, ""), ServedDay("2026-03-02", 90, 0, 0, 0, None, "")
    admin.log.emit(PaymentsServed(0.0, 9.0, parts))
    admin.log.emit(GainMeasured(4, 0.01, 0.61, 0.6, 40, 120, 33.0))
    found = await scraped(admin)
    assert {of: found["p2pfed_served", (("figure", of),)] for of in ("auprc", "recall", "precision")} == {
        "auprc": 0.7, "recall": 0.5, "precision": 1.0,
    }  # fmt: skip
    assert found["p2pfed_gain_auprc", ()] == 0.01
    assert found["p2pfed_model_decisions_total", (("result", "promoted"),)] == 1
    assert found["p2pfed_model_decisions_total", (("result", "held"),)] == 2
    assert found["p2pfed_updates_total", (("result", "accepted"),)] == 2
    assert found["p2pfed_updates_total", (("result", "not_finite"),)] == 1
    assert found["p2pfed_exchange_failures_total", (("peer", "bank-b"),)] == 1
    assert found["p2pfed_merged_updates_total", ()] == 2
    assert found["p2pfed_round_duration_seconds_sum", ()] == 0.7
    assert found["p2pfed_train_loss", ()] == 0.25
    assert found["p2pfed_auprc", (("rows", "test"),)] == 0.8
    assert ("p2pfed_auprc", (("rows", "own_test"),)) not in found


async def test_what_only_rows_of_before_could_measure_is_told_no_more(admin):
    admin.log.emit(ModelEvaluated(1, {"validation": {"auprc": 0.9}, "gate": {"auprc": 0.8}}, 0.5))
    admin.log.emit(ModelEvaluated(2, {"validation": {"auprc": 0.4}, "gate": {"auprc": None}}, 0.5))
    found = await scraped(admin)
    assert [(key[1], value) for key, value in found.items() if key[0] == "p2pfed_auprc"] == [
        ((("rows", "validation"),), 0.4)
    ]


async def test_gauges_show_the_moment_of_the_scrape(admin):
    admin.log.emit(ProblemRaised("ALONE", "warning", "m", "h"))
    found = await scraped(admin)
    assert found["p2pfed_health", (("state", "degraded"),)] == 1
    assert found["p2pfed_health", (("state", "ok"),)] == 0
    assert found["p2pfed_problems", (("code", "ALONE"),)] == 1
    assert found["p2pfed_members", (("state", "alive"),)] == 2
    assert found["p2pfed_peer_reputation", (("peer", "bank-b"),)] == 0
    assert found["p2pfed_peer_suspicion", (("peer", "bank-b"),)] == 4.5
    assert ("p2pfed_peer_reputation", (("peer", "bank-a"),)) not in found
    assert found["p2pfed_peers_quarantined", ()] == 1
    assert found["p2pfed_peer_seen_seconds", (("peer", "bank-b"),)] == 1.5
    assert found["p2pfed_bytes_total", (("direction", "sent"),)] == 1234
    assert found["p2pfed_handshakes_refused_total", (("reason", "no_certificate"),)] == 3
    assert found["p2pfed_build_info", (("version", "1.2.3"),)] == 1
    assert found["p2pfed_manifest_version", ()] == 3
    assert found["p2pfed_learning_state", (("state", "resting"),)] == 1
    assert found["p2pfed_cycle", ()] == 4 and found["p2pfed_next_cycle_timestamp_seconds", ()] == 1_800_000_000
    assert found["p2pfed_model_timestamp_seconds", ()] == 1_799_000_000
    assert found["p2pfed_newest_payment_timestamp_seconds", ()] == 1_799_900_000
    assert found["p2pfed_events_dropped_total", ()] == 0
    assert found["process_resident_memory_bytes", ()] > 10_000_000


async def test_nodes_in_one_process_have_their_own_counts(admin, tmp_path):
    from tests.api.conftest import Admin

    (tmp_path / "other").mkdir()
    other = Admin(tmp_path / "other")
    other.log.emit(UpdateAccepted(B, 1, B, 100))
    assert ("p2pfed_updates_total", (("result", "accepted"),)) not in await scraped(admin)
