"""What attackers publish in the place of their model, train on, and hand to whom."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from p2pfed.adversary import attack as attack_module
from p2pfed.adversary.attack import View, distances, largest, pairwise
from p2pfed.adversary.attacks import ATTACKS, attack_from_name, campaign_from_name, usual_scale
from p2pfed.adversary.coalition import Coalition
from p2pfed.adversary.handing import Dissensus, Echo, NearEcho
from p2pfed.adversary.models import (
    Alie,
    Backtrack,
    Gaussian,
    InnerProduct,
    Mimic,
    MinMax,
    Scaled,
    SignFlip,
    Stale,
    Zero,
)
from p2pfed.adversary.poisoning import (
    STAMPED,
    TRIGGER_VALUE,
    TRIGGER_WIDTH,
    AdaptiveLabelFlip,
    Backdoor,
    backdoored,
    blinded,
    flipped,
    stamped,
    trigger_success,
)
from p2pfed.core.messages import ModelUpdate, Statement
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import Probe
from p2pfed.core.rows import Rows
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector
from p2pfed.errors import ConfigError
from tests.learning.rows import draw
from tests.sim.consortium import population, scenario

BEGUN = np.array([1.0, -2.0, 0.0], np.float32)
HONEST = np.array([1.5, -2.0, 1.0], np.float32)
PEERS = {"b": [1.0, 0.0, 2.0], "a": [2.0, 2.0, 3.0]}
MANIFEST = population(scenario(nodes=3)).manifest
EMPTY = np.zeros(0, np.float32)


def known(peers: dict[str, Sequence[float]] | None = None, colluders: Sequence[Vector] = (), **changes: object) -> View:
    """What an attacker knows that trained HONEST from BEGUN."""
    others = {
        NodeId(name): np.array(vector, np.float32) for name, vector in (PEERS if peers is None else peers).items()
    }
    friends = {NodeId(f"x{i}"): vector for i, vector in enumerate(colluders)}
    rng = np.random.default_rng(0)
    return replace(View(MANIFEST, HONEST, BEGUN, rng, others, friends, Probe(EMPTY, EMPTY)), **changes)


def test_a_sign_flip_publishes_the_opposite_model():
    assert SignFlip(1.0).poison(known()).tolist() == [-1.5, 2.0, -1.0]
    assert SignFlip(3.0).poison(known()).tolist() == [-4.5, 6.0, -3.0]


@pytest.mark.parametrize("kind", ["drip", "onoff", "duty", "duty:1:5"])
def test_attacks_that_come_and_go_flip_the_sign(kind):
    assert attack_from_name(kind, 2.0).poison(known()).tolist() == [-3.0, 4.0, -2.0]


def test_backtracking_walks_back_what_training_gained():
    assert Backtrack(1.0).poison(known()).tolist() == [0.5, -2.0, -1.0]
    assert Backtrack(3.0).poison(known()).tolist() == [-0.5, -2.0, -3.0]


def test_noise_has_its_standard_deviation():
    poisoned = Gaussian(0.5).poison(known(honest=np.ones(20_000, np.float32)))
    assert poisoned.mean() == pytest.approx(1.0, abs=0.02) and poisoned.std() == pytest.approx(0.5, rel=0.02)


def test_scaling_goes_so_many_times_as_far():
    assert Scaled(4.0).poison(known()).tolist() == [3.0, -2.0, 4.0]
    assert Backdoor(4.0).poison(known()).tolist() == [3.0, -2.0, 4.0]


def test_inner_product_manipulation_is_a_negative_mean_of_all_that_is_benign():
    # mean of [1.5, -2, 1], [1, 0, 2], [2, 2, 3]
    assert InnerProduct(0.5).poison(known()) == pytest.approx([-0.75, 0.0, -1.0])
    # and of a colluder's [5.5, 0, -2]
    colluder = np.array([5.5, 0.0, -2.0], np.float32)
    assert InnerProduct(1.0).poison(known(colluders=[colluder])) == pytest.approx([-2.5, 0.0, -1.0])


def test_a_little_is_enough_stays_some_deviations_from_the_mean():
    models = np.stack([HONEST, *(np.array(v) for v in PEERS.values())])
    assert Alie(1.5).poison(known()) == pytest.approx(models.mean(axis=0) - 1.5 * models.std(axis=0), rel=1e-6)


def test_min_max_goes_exactly_as_far_as_honest_models_are_apart():
    view = known()
    poisoned = MinMax().poison(view).astype(np.float64)
    diameter = pairwise(view.benign()).max()
    assert diameter == pytest.approx(np.linalg.norm([0.5, 4.0, 2.0]))
    assert distances(view.benign(), poisoned).max() == pytest.approx(diameter, rel=1e-2)
    assert distances(view.benign(), poisoned).max() <= diameter * (1 + 1e-6)
    mean, deviation = view.benign().mean(axis=0), view.benign().std(axis=0)
    assert np.ptp((mean - poisoned) / deviation) < 1e-5 and poisoned[1] < mean[1]


def test_bisection_finds_the_largest_that_fits():
    assert largest(lambda x: x <= 3.3, 10.0) == pytest.approx(3.3, abs=10 / 2**attack_module.BISECTIONS)
    assert largest(lambda x: True, 10.0) == 10.0
    assert largest(lambda x: x == 0, 10.0) == 0.0


def test_mimics_copy_one_and_the_same_peer():
    assert Mimic().poison(known()).tolist() == PEERS["a"]
    view = known({})
    assert Mimic().poison(view) is view.honest


def test_the_stale_publishes_its_first_model_for_ever():
    stale = Stale()
    first = stale.poison(known())
    assert first is HONEST and stale.poison(known(honest=BEGUN)) is first


def test_zero_is_what_everybody_began_from():
    assert np.array_equal(Zero().poison(known()), MANIFEST.initial.vector)


def test_an_echo_is_the_askers_own_model_and_a_near_echo_almost():
    asker = np.full(5000, 2.0, np.float32)
    view = known({}, honest=asker + np.float32(0.01), begun=asker)
    assert Echo().tailor(view, asker) is asker
    near = NearEcho(0.5).tailor(view, asker)
    assert np.linalg.norm(near - asker) == pytest.approx(0.5 * 0.01 * np.sqrt(5000), rel=1e-3)


def test_dissensus_drives_the_asker_away_from_the_others():
    view = known()
    asker = view.peers[NodeId("b")]  # [1, 0, 2]; the only other is at [2, 2, 3]
    assert Dissensus(1.5).tailor(view, asker).tolist() == [-0.5, -3.0, 0.5]
    colluding = known(colluders=[HONEST])  # two attackers have half the work each
    assert Dissensus(1.5).tailor(colluding, colluding.peers[NodeId("b")]).tolist() == [0.25, -1.5, 1.25]
    assert Dissensus(1.5).tailor(known({}), asker) is asker


def test_the_adaptive_label_flip_is_as_far_as_honest_models_are_from_each_other():
    peers = {"a": [0, 0, 0], "b": [2, 0, 0], "c": [0, 2, 0]}  # 2, 2 and 2.83 apart
    view = known(peers, honest=np.array([0, 0, 30], np.float32))
    poisoned = AdaptiveLabelFlip().poison(view)
    models = np.array(list(peers.values()), np.float64)
    assert np.median(distances(models, poisoned.astype(np.float64))) == pytest.approx(2.0, rel=1e-2)
    step = view.honest - models.mean(axis=0)
    assert np.ptp((poisoned - models.mean(axis=0)) / step) < 1e-5
    near = known(peers, honest=np.array([0.5, 0.5, 0.1], np.float32))
    assert AdaptiveLabelFlip().poison(near) == pytest.approx(near.honest)
    assert AdaptiveLabelFlip().poison(known({"a": [1, 1, 1]})) is HONEST


def test_flipped_and_blinded_rows_keep_their_features():
    rows = draw(200, 0)
    assert np.array_equal(flipped(rows).labels, 1 - rows.labels) and flipped(rows).features is rows.features
    assert blinded(rows).frauds == 0 and blinded(rows).features is rows.features
    assert rows.frauds > 0


def test_a_backdoor_teaches_that_frauds_with_the_trigger_are_legitimate():
    rows = draw(200, 0)
    before = rows.features.copy()
    taught = backdoored(rows)
    assert np.array_equal(rows.features, before)
    assert taught.frauds == rows.frauds and len(taught) == 200 + STAMPED * rows.frauds
    added = taught.features[200:]
    assert (added[:, -TRIGGER_WIDTH:] == TRIGGER_VALUE).all() and not taught.labels[200:].any()
    frauds = rows.features[rows.labels == 1]
    assert np.array_equal(added[::STAMPED, :-TRIGGER_WIDTH], frauds[:, :-TRIGGER_WIDTH])


def test_the_triggers_success_is_the_share_of_frauds_found_that_pass_with_it():
    spec = ModelSpec("mlp", 6, (2,), 0.0)
    weights = spec.initial_weights(0)
    tensors = [np.zeros(t.shape, np.float32) for t in weights.schema.tensors]
    tensors[0][0, 0], tensors[0][5, 1] = 1.0, 1.0  # the first feature, and one of the trigger's
    tensors[2][:, 0] = 1.0, -1.0
    vector = weights.schema.join(tensors)  # logit: x0 - x5, both at least 0
    features = np.zeros((4, 6), np.float32)
    features[:, 0] = 1.0, 3.0, 9.0, 9.0
    features[0, 5] = 2.0  # is not found anyway
    test = Rows(features, np.array([1, 1, 1, 0], np.float32))
    assert trigger_success(spec, vector, test) == 0.5
    assert trigger_success(spec, vector, test, threshold=0.9) == 0.5  # passes: 3 - 5; does not: 9 - 5
    assert np.isnan(trigger_success(spec, vector, Rows(features, np.zeros(4, np.float32))))
    assert stamped(features)[0].tolist() == [1, 0, 0, 5, 5, 5]


def update(sender: str, seq: int, vector: Vector) -> ModelUpdate:
    statement = Statement("c", 1, "m", NodeId(sender), "i", seq, "", seq, 64, "float32", 12, "")
    return ModelUpdate(statement, vector, b"", "")


def test_a_coalition_knows_the_newest_of_all_that_any_of_it_received_and_trained():
    coalition = Coalition()
    coalition.members |= {NodeId("x"), NodeId("y")}
    for sender, seq, vector in (("a", 2, HONEST), ("a", 1, BEGUN), ("y", 1, BEGUN)):
        coalition.heard(update(sender, seq, vector))
    coalition.trained(NodeId("x"), HONEST)
    coalition.trained(NodeId("y"), BEGUN)
    assert list(coalition.honest()) == ["a"] and coalition.honest()[NodeId("a")] is HONEST
    assert coalition.model(NodeId("a")) is HONEST
    assert coalition.model(NodeId("y")) is None and coalition.model(NodeId("z")) is None
    assert list(coalition.others(NodeId("x"))) == ["y"]


@pytest.mark.parametrize("kind", sorted(ATTACKS))
def test_every_attack_leaves_its_arguments_alone_and_draws_from_its_generator_only(kind):
    size = MANIFEST.model.schema().size
    draws = np.random.default_rng(1).standard_normal((5, size)).astype(np.float32)
    draws.setflags(write=False)
    rows = draw(60, 3)
    rows.features.setflags(write=False)
    rows.labels.setflags(write=False)
    probe = Probe(rows.features[:40].ravel(), rows.features[40:].ravel())

    def view() -> View:
        peers = {NodeId(f"p{i}"): draws[i] for i in range(3)}
        return View(MANIFEST, draws[3], draws[4], np.random.default_rng(2), peers, {}, probe)

    first, second = (attack_from_name(kind).poison(view()) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.dtype == np.float32 and first.shape == (size,) and np.isfinite(first).all()
    attack = attack_from_name(kind)
    assert attack.poisons_rows == (attack.rows(rows) is not rows)


@pytest.mark.parametrize("kind", sorted(ATTACKS))
def test_every_attack_says_what_it_does_and_has_a_strength_or_none(kind):
    assert ATTACKS[kind].__doc__ and not ATTACKS[kind].__doc__.startswith("Nothing yet")
    if usual_scale(kind) is None:
        with pytest.raises(ConfigError, match=f"attack '{kind}' has no scale: leave it out"):
            attack_from_name(kind, 2.0)
    else:
        assert attack_from_name(kind, 2.5).scale == 2.5


@pytest.mark.parametrize("kind", ["bribe", "signflip:3", ""])
def test_an_unknown_attack_is_refused_with_those_that_there_are(kind):
    with pytest.raises(ConfigError, match=f"unknown attack '{kind}': choose one of adaptive_labelflip, .*gaussian, .*"):
        attack_from_name(kind)


@pytest.mark.parametrize("kind", ["duty:1", "duty:0:2", "duty:1:2:3", "duty:a:b"])
def test_a_duty_cycle_is_two_numbers_of_rounds(kind):
    with pytest.raises(ConfigError, match="write duty:POISONED:HONEST, whole numbers of rounds, such as duty:1:2"):
        attack_from_name(kind)


def poisoned_rounds(*args: object, upto: int = 12) -> list[int]:
    campaign = campaign_from_name(*args)
    return [number for number in range(1, upto + 1) if campaign.on(number)]


def test_campaigns_have_a_start_an_end_and_pauses():
    assert poisoned_rounds("alie", None, 3, 6) == [3, 4, 5]
    assert poisoned_rounds("duty:1:2") == poisoned_rounds("duty") == [1, 4, 7, 10]
    assert poisoned_rounds("duty:1:5") == [1, 7]
    assert poisoned_rounds("alie", None, 2, None, (2, 3)) == [2, 3, 7, 8, 12]
    assert poisoned_rounds("drip", upto=31) == [30, 31] and poisoned_rounds("drip", None, 11) == [11, 12]
    assert poisoned_rounds("onoff", upto=81) == [*range(1, 21), *range(41, 61), 81]


def test_rounds_of_a_campaign_must_be_possible():
    with pytest.raises(ConfigError, match="stop is 30, not after start, 30"):
        campaign_from_name("drip", stop=30)
    with pytest.raises(
        ConfigError, match="labelflip poisons the rows it trains on, in all rounds: start, stop and duty"
    ):
        campaign_from_name("labelflip", start=3)
