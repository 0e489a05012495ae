"""What attackers publish in the place of their model."""

import numpy as np
import pytest

from p2pfed.adversary.attacks import ATTACKS, Gaussian, SignFlip, attack_from_name
from p2pfed.errors import ConfigError

BEGUN = np.array([1.0, -2.0, 0.0], np.float32)
HONEST = np.array([1.5, -2.0, 1.0], np.float32)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_sign_flip_walks_back_what_training_gained():
    assert SignFlip(1.0).poison(HONEST, BEGUN, rng()).tolist() == [0.5, -2.0, -1.0]
    assert SignFlip(3.0).poison(HONEST, BEGUN, rng()).tolist() == [-0.5, -2.0, -3.0]


def test_noise_has_its_standard_deviation():
    honest = np.ones(20_000, np.float32)
    poisoned = Gaussian(0.5).poison(honest, honest, rng())
    assert poisoned.mean() == pytest.approx(1.0, abs=0.02) and poisoned.std() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("kind", sorted(ATTACKS))
def test_every_attack_leaves_its_arguments_alone_and_draws_from_its_generator_only(kind):
    attack = attack_from_name(kind, 2.0)
    begun, honest = BEGUN.copy(), HONEST.copy()
    first, second = (attack.poison(honest, begun, rng()) for _ in range(2))
    assert np.array_equal(first, second) and not np.array_equal(first, HONEST)
    assert first.dtype == np.float32 and first.shape == HONEST.shape
    assert np.array_equal(begun, BEGUN) and np.array_equal(honest, HONEST)


def test_an_unknown_attack_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match="unknown attack 'bribe': choose gaussian or signflip"):
        attack_from_name("bribe")
