"""What a hostile member can answer: a node that asks takes no more than it announced, in time, and blames it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from p2pfed.core import wire
from p2pfed.core.messages import HeartbeatTable
from p2pfed.core.types import Address, Reason
from p2pfed.errors import RemoteFault
from p2pfed.net import limits
from p2pfed.net.tls import certificate_of, server_context
from p2pfed.net.transport import Unreachable
from tests.net.certificates import expired
from tests.net.nodes import make_consortium, serve, transport_of

pytestmark = pytest.mark.network

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def asking(tmp_path):
    """Bank `a` with its transport, and bank `b` whose every answer is scripted."""
    a, b, _ = make_consortium(tmp_path)
    transport = transport_of(a)
    yield a, b, transport
    await transport.close()


@asynccontextmanager
async def answering(bank, certificates, *pieces):
    """Serve under `bank`'s certificate: to any request the pieces, a number being a pause in seconds, then wait."""
    done = asyncio.Event()

    async def converse(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                if isinstance(piece, bytes):
                    writer.write(piece)
                    await writer.drain()
                elif piece == "close":
                    break
                else:
                    await asyncio.sleep(piece)
            else:
                await done.wait()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=server_context(bank.pem, certificates))
    try:
        yield Address(*server.sockets[0].getsockname()[:2])
    finally:
        done.set()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)


def update_bytes(bank):
    return bank.handler.frames[bank.id].frame


def announced(length, body=b""):
    return OK + f"Content-Length: {length}\r\n\r\n".encode() + body


BLAMED = {
    "oversize": ([announced(10**9)], Reason.OVERSIZE),
    "absurd length": ([OK + b"Content-Length: " + b"9" * 60 + b"\r\n\r\n"], Reason.MALFORMED),
    "no length": ([OK + b"\r\nabc", "close"], Reason.MALFORMED),
    "chunked": ([OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"], Reason.MALFORMED),
    "gzip": ([OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"], Reason.MALFORMED),
    "not a frame": ([announced(100, b"\x80" * 100)], Reason.MALFORMED),
    "empty": ([announced(0)], Reason.WRONG_LENGTH),
    "not HTTP": ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], Reason.MALFORMED),
    "interim answers": ([b"HTTP/1.1 102 Processing\r\n\r\n" * 1000] * 50, Reason.MALFORMED),
    "long header": ([OK + b"X: " + b"y" * 10_000 + b"\r\n\r\n"], Reason.MALFORMED),
}


@pytest.mark.parametrize(("pieces", "reason"), BLAMED.values(), ids=BLAMED)
async def test_a_bad_answer_is_blamed_on_the_peer(asking, pieces, reason):
    a, b, transport = asking
    async with answering(b, [certificate_of(a.pem)], *pieces) as address:
        with pytest.raises(RemoteFault) as caught:
            await transport.pull(b.id, [address], b.id, 0)
    assert caught.value.reason is reason


async def test_a_frame_longer_than_signed_is_left_unread(asking):
    a, b, transport = asking
    frame = update_bytes(b)
    async with answering(b, [certificate_of(a.pem)], announced(len(frame) + 4, frame)) as address:
        with pytest.raises(RemoteFault) as caught:
            await transport.pull(b.id, [address], b.id, 0)
    assert caught.value.reason is Reason.WRONG_LENGTH


async def test_a_manifest_much_longer_than_ours_is_not_read_and_nobody_is_to_blame(tmp_path):
    a, b, _ = make_consortium(tmp_path)
    listener, address = await serve(b)
    transport = transport_of(a)
    b.handler.manifests[2] = b"{" * (b.handler.trusted.manifest.longest_successor + 1)
    with pytest.raises(Unreachable, match="p2pfed join"):
        await transport.manifest(b.id, [address], 2)
    assert transport._traffic.received[b.id] == 0
    await transport.close()
    await listener.close()


async def test_other_answers_have_their_limits_too(asking):
    a, b, transport = asking
    async with answering(b, [certificate_of(a.pem)], announced(3 * 2**20)) as address:
        for request in (
            transport.hello(b.id, [address]),
            transport.exchange(b.id, [address], HeartbeatTable(())),
            transport.manifest(b.id, [address], 1),
        ):
            with pytest.raises(RemoteFault) as caught:
                await request
            assert caught.value.reason is Reason.OVERSIZE


async def test_a_hello_in_another_name_is_an_offence(asking):
    a, b, transport = asking
    body = wire.encode_hello(a.handler.hello(b.id))
    async with answering(b, [certificate_of(a.pem)], announced(len(body), body)) as address:
        with pytest.raises(RemoteFault) as caught:
            await transport.hello(b.id, [address])
    assert caught.value.reason is Reason.UNRELATED_ANSWER


SLOW = {
    "says nothing": ([], "timeout"),
    "half a header": ([OK[:9]], "timeout"),
    "drips its header": ([piece for byte in OK for piece in (bytes([byte]), 0.05)], "timeout"),
    "half a body": ([announced(500, b"abc")], "timeout"),
    "closes in the body": ([announced(500, wire.MAGIC + b"\x10\0\0\0"), "close"], "closed"),
    "closes at once": (["close"], "closed"),
    "is busy": ([b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nlater"], "busy"),
    "refuses": ([b"HTTP/1.1 403 No\r\nContent-Length: 10\r\n\r\n\x1b[31mred!!"], "refused"),
    "sends elsewhere": (
        [b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"],
        "refused",
    ),
}


@pytest.mark.parametrize(("pieces", "cause"), SLOW.values(), ids=SLOW)
async def test_silence_and_refusal_cost_only_time(asking, monkeypatch, pieces, cause):
    a, b, transport = asking
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.3)
    async with answering(b, [certificate_of(a.pem)], *pieces) as address:
        with pytest.raises(Unreachable) as caught:
            await transport.pull(b.id, [address], b.id, 0)
    assert caught.value.cause == cause
    assert str(caught.value).isprintable()


async def test_a_peer_that_does_not_know_us_is_told_apart(asking):
    a, b, transport = asking
    async with answering(b, [certificate_of(b.pem)], announced(0)) as address:
        with pytest.raises(Unreachable) as caught:
            await transport.hello(b.id, [address])
    assert caught.value.cause == "closed"
    assert "does not know us" in str(caught.value)


async def test_why_nobody_answers_is_said_without_pythons_objects(asking):
    a, b, transport = asking
    with socket.create_server(("127.0.0.1", 0)) as one:
        nobody = Address(*one.getsockname())

    async def hang_up(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 this is no TLS\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with plain:
        addresses = [nobody, Address(*plain.sockets[0].getsockname()), Address("no-such-host.invalid", 1)]
        for ask in (transport.hello(b.id, addresses), transport.identify(nobody)):
            with pytest.raises(Unreachable) as caught:
                await ask
            assert f"{nobody}: connection refused" in str(caught.value)
            assert "<" not in str(caught.value) and "object at" not in str(caught.value)


async def test_identify_meets_strangers_and_silence(asking, tmp_path, monkeypatch):
    a, b, transport = asking
    expired(tmp_path / "old.pem")
    stranger = type(b)("stranger", b.identity, tmp_path / "old.pem")
    async with answering(stranger, [certificate_of(a.pem)], announced(0)) as address:
        with pytest.raises(Unreachable) as caught:
            await transport.identify(address)
    assert caught.value.cause == "certificate"
    monkeypatch.setattr(limits, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable) as caught:
        await transport.identify(Address(*silent.getsockname()))
    assert caught.value.cause == "timeout"


NO_HOSTS = [
    "a?b",
    "a#b",
    "[",
    "%zz",
    "a%00b",
    "é..x",
    "a..b",
    "x" * 70,
    "a\u2028b",
    "\u200d",
    "xn--é",
    "ß" * 60,
    "*",
    ".",
]


@pytest.mark.parametrize("host", NO_HOSTS)
async def test_an_advertised_host_that_is_no_name_is_only_unreachable(asking, host):
    """A member chooses what its heartbeat advertises: it must not be able to end the others."""
    _, b, transport = asking
    for ask in (transport.hello(b.id, [Address(host, 1)]), transport.identify(Address(host, 1))):
        with pytest.raises(Unreachable) as caught:
            await ask
        assert caught.value.cause == "connect"


async def test_the_address_that_answered_is_asked_first_next_time(asking, monkeypatch):
    monkeypatch.setattr(limits, "CONNECT_SECONDS", 0.5)
    a, b, transport = asking
    listener, address = await serve(b)
    nowhere = Address("127.0.0.1", 1)
    await transport.hello(b.id, [nowhere, address])
    asked = []
    original = transport._ask_at

    async def ask_at(address, *rest):
        asked.append(address)
        return await original(address, *rest)

    monkeypatch.setattr(transport, "_ask_at", ask_at)
    await transport.hello(b.id, [nowhere, address])
    assert asked == [address]
    await listener.close()


async def test_traffic_is_counted_by_member(asking):
    a, b, transport = asking
    listener, address = await serve(b)
    update = await transport.pull(b.id, [address], b.id, 0)
    await transport.push(b.id, [address], update_bytes(a))
    await transport.hello(b.id, [address])
    assert a.traffic.received[b.id] >= len(update.frame)
    assert b.traffic.sent[a.id] == a.traffic.received[b.id]
    assert a.traffic.sent[b.id] == b.traffic.received[a.id] == len(update_bytes(a))
    assert 0 < a.traffic.round_trips[b.id] < 5
    await listener.close()
