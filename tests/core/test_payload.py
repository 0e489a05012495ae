"""Vectors as raw tensor bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from p2pfed.core.payload import FLOAT16_MAX, decode_payload, encode_payload, payload_length
from p2pfed.core.types import Reason
from p2pfed.core.weights import ModelSchema, TensorSpec
from p2pfed.errors import RemoteFault

SCHEMA = ModelSchema((TensorSpec("kernel", (2, 3)), TensorSpec("bias", (3,)), TensorSpec("one", (1,))))
ENCODINGS = ["float32", "float16", "int8"]
LARGEST = float(np.float32(1e30))  # an int8 step of the very largest floats rounds to infinity
VECTORS = hnp.arrays(np.float32, SCHEMA.size, elements=st.floats(-LARGEST, LARGEST, width=32))


def again(vector, encoding):
    return decode_payload(encode_payload(vector, SCHEMA, encoding), SCHEMA, encoding)


def test_float32_is_little_endian_in_schema_order():
    data = encode_payload(np.arange(10, dtype=np.float32), SCHEMA, "float32")
    assert data[:12].hex() == "000000000000803f00000040"
    assert len(data) == 40


def test_int8_is_a_scale_for_each_tensor_then_the_steps():
    vector = np.array([127, -127, 0, 1, 2, 3, 0, 0, 0, -254], np.float32)
    data = encode_payload(vector, SCHEMA, "int8")
    assert np.frombuffer(data, "<f4", 3).tolist() == [1, 0, 2]
    assert np.frombuffer(data, "i1", offset=12).tolist() == [127, -127, 0, 1, 2, 3, 0, 0, 0, -127]
    assert again(vector, "int8").tolist() == vector.tolist()


@given(VECTORS)
def test_float32_loses_nothing(vector):
    assert again(vector, "float32").tobytes() == vector.tobytes()


@given(VECTORS)
def test_float16_is_close_and_saturates(vector):
    back = again(vector, "float16")
    clipped = np.clip(vector, -FLOAT16_MAX, FLOAT16_MAX)
    assert np.all(np.abs(back - clipped) <= np.abs(clipped) * 2**-11 + 2**-25)


@given(VECTORS)
def test_int8_is_within_half_a_step(vector):
    back = again(vector, "int8").astype(np.float64)
    for tensor, got in zip(SCHEMA.split(vector), SCHEMA.split(back), strict=True):
        step = np.abs(tensor.astype(np.float64)).max() / 127
        assert np.abs(got - tensor).max() <= step * 0.5001 + 1e-43  # the smallest steps are rounded to a subnormal


@given(VECTORS, st.sampled_from(ENCODINGS))
def test_encoding_again_what_was_decoded_changes_nothing_more(vector, encoding):
    once = again(vector, encoding)
    assert np.allclose(again(once, encoding), once, rtol=1e-6, atol=1e-43)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_length_is_exact_and_the_result_read_only(encoding):
    data = encode_payload(np.ones(SCHEMA.size, np.float32), SCHEMA, encoding)
    assert len(data) == payload_length(SCHEMA, encoding)
    vector = decode_payload(data, SCHEMA, encoding)
    assert vector.dtype == np.float32
    assert not vector.flags.writeable
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(RemoteFault) as caught:
            decode_payload(wrong, SCHEMA, encoding)
        assert caught.value.reason is Reason.WRONG_LENGTH


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_nan_stays_visible(encoding):
    vector = np.ones(SCHEMA.size, np.float32)
    vector[4] = np.nan
    assert not np.isfinite(again(vector, encoding)).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_vector_of_another_model_is_not_encoded(encoding):
    with pytest.raises(ValueError, match="a vector of 10 numbers"):
        encode_payload(np.zeros(9, np.float32), SCHEMA, encoding)


@given(st.binary(min_size=22, max_size=22))
def test_any_int8_bytes_decode_without_a_warning(data):
    assert decode_payload(data, SCHEMA, "int8").shape == (10,)


@given(st.binary(min_size=20, max_size=20))
def test_any_float16_bytes_decode_without_a_warning(data):
    assert decode_payload(data, SCHEMA, "float16").shape == (10,)
