"""One flat vector and the tensors in it."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.weights import ModelSchema, TensorSpec, Weights

SCHEMA = ModelSchema((TensorSpec("kernel", (2, 3)), TensorSpec("bias", (3,)), TensorSpec("scalar", ())))
VECTOR = np.arange(10, dtype=np.float32)


def test_tensors_are_views_in_order():
    vector = VECTOR.copy()
    kernel, bias, scalar = SCHEMA.split(vector)
    assert kernel.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert bias.tolist() == [6, 7, 8]
    assert scalar == 9
    kernel[0, 0] = 42
    assert vector[0] == 42


@given(st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), max_size=5))
def test_joining_what_was_split_gives_the_vector_back(shapes):
    schema = ModelSchema((TensorSpec("first", (1,)), *(TensorSpec(str(i), s) for i, s in enumerate(shapes))))
    vector = np.arange(schema.size, dtype=np.float32)
    joined = schema.join(schema.split(vector))
    assert joined.dtype == np.float32
    assert np.array_equal(joined, vector)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="expected a vector of 10 numbers"):
        SCHEMA.split(VECTOR[:-1])
    with pytest.raises(ValueError, match="expected a vector of 10 numbers"):
        SCHEMA.split(VECTOR.reshape(2, 5))
    with pytest.raises(ValueError, match="do not fit the schema"):
        SCHEMA.join([VECTOR[:6], VECTOR[6:9], VECTOR[9]])


def test_the_digest_of_a_schema_covers_names_shapes_and_order():
    kernel, bias, scalar = SCHEMA.tensors
    others = [
        (bias, kernel, scalar),
        (kernel, bias),
        (TensorSpec("kernel", (3, 2)), bias, scalar),
        (TensorSpec("kernels", (2, 3)), bias, scalar),
    ]
    assert len({ModelSchema(t).digest for t in (SCHEMA.tensors, *others)}) == 5
    assert SCHEMA.digest == "1d4727a135fee1726b350a2aced181a91088130aecb767eedadc17ca2bd72962"


def test_weights_are_never_written_to():
    weights = Weights(SCHEMA, VECTOR.copy())
    with pytest.raises(ValueError, match="read-only"):
        weights.vector[0] = 1


def test_the_digest_of_weights_is_that_of_their_little_endian_bytes():
    assert Weights(SCHEMA, VECTOR.copy()).digest == hashlib.sha256(VECTOR.astype("<f4").tobytes()).hexdigest()


@pytest.mark.parametrize("vector", [np.zeros(9, np.float32), np.zeros(10), np.zeros((1, 10), np.float32)])
def test_weights_of_another_form_are_refused(vector):
    with pytest.raises(ValueError, match=r"expected float32\[10\]"):
        Weights(SCHEMA, vector)
