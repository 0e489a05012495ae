"""What a node makes of its peers' models: who is quarantined after how many, who never is, who comes back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from p2pfed.core.aggregation import Candidate
from p2pfed.core.events import StandingChanged
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import Probe
from p2pfed.core.reputation import Reputation, ReputationParams
from p2pfed.core.reputation.peer_record import PeerRecord
from p2pfed.core.types import NodeId, Reason
from p2pfed.core.weights import Vector

SPEC = ModelSpec("mlp", 4, (8,), 0.0)
PARAMS = ReputationParams()
SIZE = SPEC.schema().size
PEERS = tuple(NodeId(f"P{i}") for i in range(6))
BAD = PEERS[0]
OWN = SPEC.initial_weights(1).vector


class Bank:
    """A node that trains by small random steps, and peers that stay near it."""

    def __init__(
        self,
        members: int = 7,
        peers: Sequence[NodeId] = PEERS,
        probe: Probe | None = None,
        params: ReputationParams = PARAMS,
    ) -> None:
        self.rng = np.random.default_rng(0)
        self.peers = peers
        self.reputation = Reputation(SPEC, members, 1, params=params)
        if probe is not None:
            self.reputation.yardstick.probe = probe
        self.own = OWN
        self.changes: list[StandingChanged] = []

    def step(self, length: float = 0.1) -> Vector:
        """A random direction of that length."""
        direction = self.rng.standard_normal(SIZE).astype(np.float32)
        return direction * np.float32(length / np.linalg.norm(direction))

    def round(self, bad: Vector | None = None, who: Sequence[NodeId] = (BAD,)) -> dict[NodeId, float]:
        """Train, receive everybody's new model and judge; `bad` instead of an honest one from `who`. Answers trust."""
        before, self.own = self.own, self.own + self.step()
        self.reputation.yardstick.note_training(before, self.own)
        models = {m: bad if bad is not None and m in who else self.own + self.step(0.15) for m in self.peers}
        for member, vector in models.items():
            self.reputation.arrived(member, vector)
        judged = self.reputation.judge(self.own, 100, [Candidate(m, v, 100, 0) for m, v in models.items()])
        self.changes += judged.changes
        return {c.member: c.trust for c in judged.candidates}

    def until_quarantined(self, bad: Vector, most: int = 50) -> int:
        """How many models of BAD it took."""
        for count in range(1, most + 1):
            self.round(bad)
            if self.reputation.quarantined(BAD):
                return count
        return 0


def test_honest_peers_keep_their_weight() -> None:
    bank = Bank()
    for _ in range(100):
        trust = bank.round()
        assert set(trust) == set(PEERS)
        assert min(trust.values()) > 0.9
    assert bank.changes == []


@pytest.mark.parametrize("scale", [-1.0, 100.0, 1e6, 1e30])
def test_a_gross_attack_is_quarantined_by_its_fourth_model(scale: float) -> None:
    bank = Bank()
    bank.round()
    with np.errstate(over="ignore"):
        poisoned = OWN * np.float32(scale) + np.float32(np.sign(scale))
    assert bank.until_quarantined(poisoned) == 4
    trust = bank.round(poisoned)
    assert set(trust) == set(PEERS) - {BAD}
    before, after = ((c.before, c.after) for c in bank.changes)
    assert (before, after) == (("trusted", "suspect"), ("suspect", "quarantined"))
    assert all(c.member == BAD and c.numbers["distance"] > 8 for c in bank.changes)


def test_good_behaviour_cannot_be_banked() -> None:
    bank = Bank()
    for _ in range(200):
        bank.round()
    assert bank.until_quarantined(-OWN) == 4


@pytest.mark.parametrize("honest_between", [2, 5])
def test_who_attacks_now_and_then_is_found_within_sixty_models(honest_between: int) -> None:
    bank = Bank()
    for count in range(1, 61):
        bank.round(-OWN if count % (honest_between + 1) == 0 else None)
        if bank.reputation.quarantined(BAD):
            return
    raise AssertionError("never found")


def test_the_first_models_of_who_was_apart_with_many_count_nothing_against_it() -> None:
    bank = Bank()
    bank.round()
    bank.reputation.apart([BAD])
    for _ in range(PARAMS.recent):
        bank.round(-OWN + bank.step())
        assert bank.reputation.standing(BAD) == "trusted" and bank.reputation.trust(BAD) == 1.0
    assert bank.until_quarantined(-OWN) == 4, "from then on it is judged like anybody"


def test_a_clean_model_of_who_was_apart_ends_its_grace() -> None:
    bank = Bank()
    bank.round()
    bank.reputation.apart([BAD])
    bank.round(-OWN)
    bank.round()
    bank.reputation.apart([BAD])
    assert bank.until_quarantined(-OWN) == 4, "and it has none again so soon"


def test_who_goes_silent_again_and_again_to_lie_in_between_is_quarantined() -> None:
    bank = Bank()
    bank.round()
    for _ in range(3):
        bank.reputation.apart([BAD])
        for _ in range(PARAMS.recent):
            bank.round(-OWN)
        bank.round()
    assert bank.reputation.quarantined(BAD)


def test_after_many_clean_models_it_may_be_apart_again() -> None:
    bank = Bank()
    for _ in range(2):
        for _ in range(PARAMS.release):
            bank.round()
        bank.reputation.apart([BAD])
        for _ in range(PARAMS.recent):
            bank.round(-OWN)
    assert bank.changes == []


def test_grace_ends_with_membership_a_pardon_or_another_model() -> None:
    for end in (
        lambda bank: bank.reputation.follow([*PEERS[1:], NodeId("me")]),
        lambda bank: bank.reputation.pardon(BAD),
        lambda bank: bank.reputation.begin_anew(SPEC),
    ):
        bank = Bank()
        bank.round()
        bank.reputation.apart([BAD])
        end(bank)
        assert BAD not in bank.reputation._apart


def test_a_single_outlier_quarantines_nobody_and_is_forgotten() -> None:
    bank = Bank()
    bank.round()
    bank.round(-OWN)
    assert bank.reputation.trust(BAD) < 0.8
    for _ in range(20):
        bank.round()
    assert bank.reputation.trust(BAD) > 0.9
    assert bank.changes == []


def test_who_has_mended_is_released_after_ten_clean_models_and_the_next_time_after_twenty() -> None:
    bank = Bank()
    clean = []
    for _ in range(2):
        bank.until_quarantined(-OWN)
        count = 0
        while bank.reputation.quarantined(BAD):
            count += 1
            bank.round()
        clean.append(count)
        assert bank.changes[-1].after == "suspect"
    assert clean == [10, 20]


def test_the_next_relapse_is_punished_sooner() -> None:
    bank = Bank()
    bank.until_quarantined(-OWN)
    while bank.reputation.quarantined(BAD):
        bank.round()
    assert bank.until_quarantined(-OWN) == 2


def test_fewer_than_half_are_quarantined_and_a_worse_one_takes_the_place_of_a_better() -> None:
    bank = Bank(members=7)
    for _ in range(12):
        bank.round(-OWN, PEERS[:3])
    assert bank.reputation.quarantine == sorted(PEERS[:3])
    five = Bank(members=5, peers=PEERS[:4])
    for _ in range(6):
        five.round(-OWN, PEERS[:2])
    assert five.reputation.quarantine == sorted(PEERS[:2])
    five.reputation.peers[BAD].score = 4.0
    for _ in range(7):
        five.round(-OWN, PEERS[2:3])
    assert five.reputation.quarantine == sorted(PEERS[1:3])


def test_where_only_two_are_left_nobody_stays_in_quarantine() -> None:
    bank = Bank(members=3, peers=PEERS[:2])
    bank.round()
    assert bank.until_quarantined(-OWN + bank.step()) > 0
    released = bank.reputation.follow([NodeId("me"), BAD])
    assert [(c.member, c.before, c.after) for c in released] == [(BAD, "quarantined", "suspect")]
    assert not bank.reputation.quarantined(BAD)


def test_of_two_that_hear_only_each_other_neither_is_quarantined() -> None:
    """Whoever else there is was heard too long ago, or is in quarantine."""
    three = Bank(members=3, peers=PEERS[:2])
    for _ in range(6):
        three.round(-OWN, PEERS[:1])
    assert three.reputation.quarantine == [BAD]
    for _ in range(8):
        three.round(-OWN, PEERS[1:2])
    assert three.reputation.quarantine == [BAD]
    seven, other = Bank(), PEERS[1]
    for _ in range(20):
        before, seven.own = seven.own, seven.own + seven.step()
        seven.reputation.yardstick.note_training(before, seven.own)
        seven.reputation.judge(seven.own, 100, [Candidate(other, -OWN, 100, 0)])
    assert seven.reputation.quarantine == []


@pytest.mark.parametrize(("passed", "odd"), [(1, False), (7, False), (8, True), (-8, True)])
def test_who_was_heard_eight_rounds_ago_says_nothing_of_now(passed: int, odd: bool) -> None:
    """However few merges there were since: rounds went by without any model, or a clock was set back."""
    bank = Bank()
    bank.round()
    bank.reputation.judge(bank.own, 100, [Candidate(m, bank.own, 100, 0) for m in PEERS], 100)
    judged = bank.reputation.judge(bank.own, 100, [Candidate(BAD, -OWN, 100, 0)], 100 + passed)
    assert judged.odd is odd


@pytest.mark.parametrize(("passed", "odd"), [(7, False), (8, True)])
def test_how_long_ago_members_were_heard_survives_a_restart(passed: int, odd: bool) -> None:
    bank = Bank()
    bank.round()
    again = Reputation(SPEC, 7, 1)
    again.restore(bank.reputation.yardstick.scales, bank.reputation.peers, 100)
    assert again.judge(bank.own, 100, [Candidate(BAD, -OWN, 100, 0)], 100 + passed).odd is odd


def test_if_most_look_bad_it_is_this_node_that_is_odd() -> None:
    bank = Bank()
    for _ in range(10):
        before, bank.own = bank.own, bank.own + bank.step()
        bank.reputation.yardstick.note_training(before, bank.own)
        judged = bank.reputation.judge(bank.own, 100, [Candidate(m, -OWN, 100, 0) for m in PEERS])
        assert judged.odd
        assert judged.changes == []
    assert len(judged.candidates) == len(PEERS)


@pytest.mark.parametrize("count", [1, 2])
def test_who_claims_to_have_no_rows_crashes_nobody(count: int) -> None:
    bank = Bank()
    bank.round()
    judged = bank.reputation.judge(bank.own, 0, [Candidate(m, bank.own, 0, 0) for m in PEERS[:count]])
    assert len(judged.candidates) == count


def test_a_version_counts_once() -> None:
    bank = Bank()
    bank.round()
    for waited in range(10):
        bank.reputation.judge(bank.own, 100, [Candidate(BAD, -OWN, 100, waited)])
    assert bank.reputation.peers[BAD].looks == 2


def test_a_member_that_sends_the_same_again_or_our_own_weighs_nothing_but_is_not_quarantined() -> None:
    stale = Bank()
    fixed = OWN + stale.step(0.1)
    for _ in range(5):
        trust = stale.round(fixed)
    assert BAD not in trust
    echo = Bank()
    for _ in range(5):
        trust = echo.round(echo.own)
    assert BAD not in trust
    assert stale.changes == echo.changes == []


@pytest.fixture
def probe() -> Probe:
    rng = np.random.default_rng(3)
    return Probe(rng.standard_normal(200 * 4, np.float32), rng.standard_normal(20 * 4, np.float32) + np.float32(3))


def knowing(value: float) -> Vector:
    """OWN with an output bias that makes it say `value` of everything."""
    tensors = [t.copy() for t in SPEC.schema().split(OWN)]
    tensors[-2][:] = 0
    tensors[-1][:] = np.log(value / (1 - value))
    return SPEC.schema().join(tensors)


def test_predictions_betray_who_stays_near(probe: Probe) -> None:
    bank = Bank(probe=probe, params=ReputationParams(distance_doublings=30.0))  # distance says nothing here
    bank.round()
    assert bank.until_quarantined(knowing(0.99)) in range(4, 8)


def test_who_does_not_know_frauds_that_others_know_loses_weight_and_then_its_place(probe: Probe) -> None:
    bank = Bank(probe=probe, peers=PEERS, params=ReputationParams(disagreement_doublings=30.0))
    rng = np.random.default_rng(5)

    def models(blind: bool) -> dict[NodeId, Vector]:
        knows = {m: knowing(0.9 + 0.01 * rng.random()) for m in PEERS}
        return knows | ({BAD: knowing(0.001)} if blind else {})

    bank.own = knowing(0.9)
    bank.reputation.yardstick.note_training(OWN, bank.own)
    for _ in range(4):
        assert not bank.reputation.quarantined(BAD)
        found = bank.reputation.judge(bank.own, 100, [Candidate(m, v, 1, 0) for m, v in models(blind=True).items()])
        trust = {c.member: c.trust for c in found.candidates}
        assert trust.get(BAD, 0.0) < 0.02 < 0.9 < min(t for m, t in trust.items() if m != BAD)
    assert bank.reputation.quarantined(BAD)


def test_frauds_that_nobody_else_knows_are_held_against_nobody(probe: Probe) -> None:
    bank = Bank(probe=probe, params=ReputationParams(disagreement_doublings=30.0))
    bank.own = knowing(0.95)
    bank.reputation.yardstick.note_training(OWN, bank.own)
    for _ in range(20):
        found = bank.reputation.judge(bank.own, 100, [Candidate(m, knowing(0.05), 1, 0) for m in PEERS])
        assert found.changes == []
    assert min(c.trust for c in found.candidates) > 0.9


def test_broken_rules_quarantine_too_and_a_pardon_clears_them() -> None:
    bank = Bank()
    assert [c.after for c in bank.reputation.offended(BAD, Reason.NOT_FINITE)] == ["quarantined"]
    assert bank.reputation.offended(PEERS[1], Reason.MALFORMED) == []
    assert [c.after for c in bank.reputation.pardon(BAD)] == ["trusted"]
    assert bank.reputation.trust(BAD) == 1.0
    assert bank.reputation.peers[BAD].strikes == 1


def test_it_goes_on_after_a_restart_where_it_was() -> None:
    bank, saved = Bank(), dict[NodeId, PeerRecord]()
    for i in range(6):
        bank.round(-OWN if i % 2 else None)
        saved |= bank.reputation.changed_records()
    again = Reputation(SPEC, 7, 1)
    again.restore(bank.reputation.yardstick.scales, saved)
    assert again.peers == bank.reputation.peers
    candidates = [Candidate(m, bank.own + bank.step(0.15), 100, 0) for m in PEERS]
    for candidate in candidates:
        again.arrived(candidate.member, candidate.vector)
        bank.reputation.arrived(candidate.member, candidate.vector)
    assert again.judge(bank.own, 100, candidates).changes == bank.reputation.judge(bank.own, 100, candidates).changes
    assert again.changed_records() == bank.reputation.changed_records()


def test_models_too_large_to_compute_with_are_the_worst_and_hurt_nothing(probe: Probe) -> None:
    bank = Bank(probe=probe)
    bank.round()
    largest = np.full(SIZE, np.finfo(np.float32).max)
    with np.errstate(over="raise", invalid="raise"):
        assert bank.until_quarantined(largest) == 4
    record = bank.reputation.peers[BAD]
    assert np.isfinite([record.newest.distance, record.newest.disagreement, record.score]).all()


def test_who_once_claimed_many_rows_is_allowed_no_more_by_claiming_few() -> None:
    bank = Bank()
    for rows in (100, 1):
        bank.reputation.judge(bank.own, 100, [Candidate(m, OWN + np.float32(9), rows, 0) for m in PEERS])
        newest = bank.reputation.peers[BAD].newest
        assert newest.distance_fine == pytest.approx(bank.reputation.yardstick.fine[0])
