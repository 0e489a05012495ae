"""Model shapes, the initial weights everybody derives alike, and the training policy."""

from typing import Any

import numpy as np
import pytest

from p2pfed.core.model import ModelSpec, TrainingPolicy

MLP = ModelSpec("mlp", 30, (64, 32), 0.1)
AUTOENCODER = ModelSpec("autoencoder", 30, (16, 8, 4, 8, 16), 0.0)


def test_an_mlp_ends_in_one_logit_and_an_autoencoder_in_its_inputs():
    assert MLP.layers == ((30, 64), (64, 32), (32, 1))
    assert AUTOENCODER.layers == ((30, 16), (16, 8), (8, 4), (4, 8), (8, 16), (16, 30))


def test_the_schema_lists_kernel_and_bias_of_each_layer():
    assert [(t.name, t.shape) for t in MLP.schema().tensors] == [
        ("dense0/kernel", (30, 64)),
        ("dense0/bias", (64,)),
        ("dense1/kernel", (64, 32)),
        ("dense1/bias", (32,)),
        ("dense2/kernel", (32, 1)),
        ("dense2/bias", (1,)),
    ]
    assert MLP.schema().size == sum((i + 1) * o for i, o in MLP.layers)


def test_initial_weights_are_the_same_on_every_machine():
    assert MLP.initial_weights(7).digest == "acedef9d32e9f4ef7e3add61e7957151a42f5dd7815a8fd84f9e8df1015de2d1"
    assert AUTOENCODER.initial_weights(7).digest == "a878d0e0c15b59b04d44a2ea49a4314de59e47d42c977a049239b12eaf37bde2"
    assert MLP.initial_weights(8).digest != MLP.initial_weights(7).digest


def test_initial_weights_are_he_below_a_relu_and_glorot_at_the_end():
    wide = ModelSpec("autoencoder", 200, (300,), 0.0)
    first, first_bias, last, last_bias = wide.schema().split(wide.initial_weights(1).vector)
    assert first.std() == pytest.approx(np.sqrt(2 / 200), rel=0.02)
    assert last.std() == pytest.approx(np.sqrt(2 / 500), rel=0.02)
    assert not first_bias.any()
    assert not last_bias.any()


@pytest.mark.parametrize(
    "arguments",
    [
        ("mlp", 0, (4,), 0.0),
        ("mlp", 3, (), 0.0),
        ("mlp", 3, (4, 0), 0.0),
        ("mlp", 3, (4,), 1.0),
        ("mlp", 3, (4,), -0.1),
    ],
)
def test_an_impossible_model_is_refused(arguments):
    with pytest.raises(ValueError, match="needs inputs|dropout must"):
        ModelSpec(*arguments)


def policy(**changes: Any) -> TrainingPolicy:
    fields: dict[str, Any] = {
        "local_steps": 20,
        "batch": 256,
        "learning_rate": 0.005,
        "decay_rounds": (10, 20),
        "imbalance": "class_weight",
        "positive_weight_cap": 10.0,
    }
    return TrainingPolicy(**{**fields, **changes})


def test_the_learning_rate_falls_to_a_fifth_after_each_decay_round():
    assert [policy().rate(r) for r in (1, 10, 11, 20, 21)] == pytest.approx([0.005, 0.005, 0.001, 0.001, 0.0002])
    assert policy(decay_rounds=()).rate(1000) == 0.005


@pytest.mark.parametrize(
    "changes",
    [
        {"local_steps": -1},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"positive_weight_cap": 0.5},
        {"decay_rounds": (5, 5)},
        {"decay_rounds": (9, 5)},
    ],
)
def test_an_impossible_policy_is_refused(changes):
    with pytest.raises(ValueError, match="are needed|must rise"):
        policy(**changes)
