import numpy as np
import pytest

from p2pfed.core import forward
from p2pfed.core.model import ModelSpec

MLP = ModelSpec("mlp", 3, (4,), 0.5)


def by_hand(spec: ModelSpec, vector: np.ndarray, rows: np.ndarray) -> np.ndarray:
    tensors = [t.astype(np.float64) for t in spec.schema().split(vector)]
    hidden = rows.astype(np.float64)
    for i in range(0, len(tensors), 2):
        hidden = hidden @ tensors[i] + tensors[i + 1]
        if i < len(tensors) - 2:
            hidden = np.where(hidden > 0, hidden, 0)
    return 1 / (1 + np.exp(-hidden[:, 0])) if spec.kind == "mlp" else ((hidden - rows) ** 2).mean(axis=1)


@pytest.mark.parametrize("spec", [ModelSpec("mlp", 5, (64, 32), 0.2), ModelSpec("autoencoder", 5, (16, 8, 16), 0)])
@pytest.mark.parametrize("count", [0, 1, 4096, 5000])
def test_it_is_the_network_written_out(spec: ModelSpec, count: int) -> None:
    rows = np.random.default_rng(count).standard_normal((count, 5)).astype(np.float32)
    vector = spec.initial_weights(0).vector
    scores = forward.scores(spec, vector, rows)
    assert scores.dtype == np.float32 and scores.shape == (count,)
    assert np.allclose(scores, by_hand(spec, vector, rows), atol=1e-5)


def test_extreme_logits_neither_overflow_nor_tie_at_zero() -> None:
    scores = forward.sigmoid(np.array([-1e4, -80, -60, 0, 60, 1e4], np.float32))
    assert scores[3] == 0.5 and scores[-1] == 1
    assert 0 <= scores[0] < scores[1] < scores[2] < 1e-20


def test_rows_and_weights_of_another_shape_are_refused() -> None:
    vector = MLP.initial_weights(0).vector
    with pytest.raises(ValueError, match=r"\[n, 3\]"):
        forward.scores(MLP, vector, np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="expected a vector"):
        forward.scores(MLP, vector[1:], np.zeros((2, 3), np.float32))
