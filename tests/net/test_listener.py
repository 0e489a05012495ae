"""The listener's own life: start, restart, stop."""

from __future__ import annotations

import asyncio
import socket

import pytest

from p2pfed.core.messages import HeartbeatTable
from p2pfed.core.types import Address
from p2pfed.errors import RemoteFault
from p2pfed.net import limits
from p2pfed.net.binding import bound
from p2pfed.net.listener import Listener
from p2pfed.net.transport import Unreachable
from tests.net.nodes import make_consortium, serve, transport_of, until

pytestmark = pytest.mark.network


@pytest.fixture
async def banks(tmp_path):
    a, b, _ = make_consortium(tmp_path)
    transport = transport_of(a)
    yield b, transport
    await transport.close()


def answer_late(handler):
    """Let heartbeats wait; returns the event that lets them go on."""
    go_on, original = asyncio.Event(), handler.heartbeats

    async def heartbeats(asking, table):
        handler.asked.append("waiting")
        await go_on.wait()
        return await original(asking, table)

    handler.heartbeats = heartbeats
    return go_on


async def test_a_request_in_progress_is_answered_before_the_end(banks):
    b, transport = banks
    listener, address = await serve(b)
    go_on = answer_late(b.handler)
    asked = asyncio.create_task(transport.exchange(b.id, [address], HeartbeatTable(())))
    await until(lambda: b.handler.asked == ["waiting"])
    closing = asyncio.create_task(listener.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    go_on.set()
    assert len((await asked).rows) == 1
    await closing


async def test_a_request_that_never_ends_is_cut(banks, monkeypatch):
    monkeypatch.setattr(limits, "SHUTDOWN_SECONDS", 0.1)
    b, transport = banks
    listener, address = await serve(b)
    answer_late(b.handler)
    asked = asyncio.create_task(transport.exchange(b.id, [address], HeartbeatTable(())))
    await until(lambda: b.handler.asked == ["waiting"])
    await listener.close()
    with pytest.raises(Unreachable):
        await asked


async def test_a_restarted_peer_is_reached_over_the_same_transport(banks):
    b, transport = banks
    listener, address = await serve(b)
    await transport.hello(b.id, [address])
    await listener.close()
    with pytest.raises(Unreachable):
        await transport.hello(b.id, [address])
    listener = Listener(b.handler, b.pem, b.traffic)
    assert await listener.start(address) == address
    assert (await transport.hello(b.id, [address])).member == b.id
    await listener.close()


async def test_idle_connections_do_not_hold_up_the_end(banks):
    b, transport = banks
    listener, address = await serve(b)
    await transport.hello(b.id, [address])
    assert listener.connections == 1
    async with asyncio.timeout(2):
        await listener.close()


async def test_ipv6_works_too(banks):
    b, transport = banks
    listener = Listener(b.handler, b.pem, b.traffic)
    address = await listener.start(Address("::1", 0))
    assert (await transport.hello(b.id, [address])).member == b.id
    assert await transport.identify(address) == b.id
    await listener.close()


async def test_an_unforeseen_error_does_not_close_the_door(banks, monkeypatch):
    b, transport = banks
    loop, noted, failures = asyncio.get_running_loop(), [], iter([True])
    sock_accept = loop.sock_accept

    async def stumble(listening):
        if next(failures, False):
            raise RuntimeError("a bug")
        return await sock_accept(listening)

    monkeypatch.setattr(loop, "sock_accept", stumble)
    loop.set_exception_handler(lambda loop, context: noted.append(context["message"]))
    listener, address = await serve(b)
    assert (await transport.hello(b.id, [address])).member == b.id
    assert noted == ["the listener stumbled and goes on"]
    await listener.close()


async def test_large_updates_are_checked_off_the_event_loop(banks, monkeypatch):
    monkeypatch.setattr(limits, "OFF_LOOP", 0)
    b, transport = banks
    listener, address = await serve(b)
    assert await transport.pull(b.id, [address], b.id, 0) == b.handler.frames[b.id]
    frame = bytearray(b.handler.frames[b.id].frame)
    frame[-1] ^= 1
    b.handler.answer = bytes(frame)
    with pytest.raises(RemoteFault):
        await transport.pull(b.id, [address], b.id, 0)
    await listener.close()


@pytest.mark.parametrize(("text", "only"), [("[::]:0", 0), ("[::1]:0", 1)])
def test_the_wildcard_of_ipv6_is_that_of_ipv4_too(text, only):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with bound(Address.parse(text)) as found:  # it does not listen
        assert found.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == only
