import asyncio
import json
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfed.runtime import trainer_protocol as protocol
from p2pfed.runtime.trainer_protocol import BrokenMessage, TrainerMessage, encode, read, receive, send

messages = st.builds(
    TrainerMessage,
    st.text(max_size=10),
    st.dictionaries(st.text(max_size=5).filter(lambda k: k not in ("kind", "blobs")), st.integers() | st.text()),
    st.lists(st.binary(max_size=100), max_size=protocol.MAX_BLOBS).map(tuple),
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    right.settimeout(5)
    with left, right:
        yield left, right


async def reading(data: bytes) -> TrainerMessage | None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read(reader)


@settings(deadline=None)
@given(messages)
def test_both_ends_read_what_was_sent(message: TrainerMessage) -> None:
    left, right = socket.socketpair()
    with left, right:
        send(left, message)
        assert receive(right) == message
    assert asyncio.run(reading(b"".join(encode(message)))) == message


async def test_the_end_of_the_stream_is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    left.close()
    assert receive(right) is None
    assert await reading(b"") is None


HEAD = {"kind": "trained", "blobs": [4]}


def framed(text: bytes, rest: bytes = b"") -> bytes:
    return len(text).to_bytes(4, "little") + text + rest


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x01\x00", ConnectionResetError),
        (framed(b"{") + b"x", BrokenMessage),
        (framed(json.dumps(HEAD).encode(), b"123"), ConnectionResetError),
        (b"\xff\xff\xff\xff", BrokenMessage),
        (framed(json.dumps({**HEAD, "blobs": [protocol.MAX_BLOB + 1]}).encode()), BrokenMessage),
        (framed(json.dumps({**HEAD, "blobs": [-1]}).encode()), BrokenMessage),
        (framed(json.dumps({**HEAD, "blobs": 3}).encode()), BrokenMessage),
        (framed(json.dumps({"kind": "trained"}).encode()), BrokenMessage),
        (framed(b"[]"), BrokenMessage),
        (framed(b"\xff"), BrokenMessage),
    ],
)
async def test_nonsense_and_a_cut_stream_are_told_apart(
    data: bytes, error: type[Exception], pair: tuple[socket.socket, socket.socket]
) -> None:
    left, right = pair
    left.sendall(data)
    left.close()
    with pytest.raises(error):
        receive(right)
    with pytest.raises(error):
        await reading(data)
