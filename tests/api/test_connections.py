"""Who connects to the admin API and says nothing, or reads on for ever, keeps nobody out for long."""

from __future__ import annotations

import asyncio
import resource
import socket

import pytest

from p2pfed.api import stream
from p2pfed.net import limits

pytestmark = pytest.mark.network
SSE = {"Accept": "text/event-stream"}


async def connect(admin):
    return await asyncio.open_connection(admin.server.address.host, admin.server.address.port)


async def test_idle_connections_take_no_more_than_their_share(admin):
    idle = [await connect(admin) for _ in range(300)]
    async with asyncio.timeout(5), admin.tcp.get("/livez") as answer:
        assert answer.status == 200
    closed = [reader for reader, _ in idle if reader.at_eof()]
    assert len(closed) >= 300 - limits.ADMIN_CONNECTIONS_PER_HOST
    assert set(admin.refusals) == {"too_many_connections"}
    async with admin.unix.get("/livez") as answer:
        assert answer.status == 200
    for _, writer in idle:
        writer.close()


async def test_connections_that_are_answered_stay_and_one_more_is_closed(admin, monkeypatch):
    monkeypatch.setattr(limits, "ADMIN_CONNECTIONS_PER_HOST", 2)
    await admin.stop()
    await admin.start()
    streams = [await admin.tcp.get("/api/v1/events", headers=SSE) for _ in range(2)]
    reader, writer = await connect(admin)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    for answer in streams:
        assert answer.status == 200
        assert not answer.content.at_eof()
        answer.close()


async def test_event_streams_over_tcp_leave_the_sockets_own(admin, monkeypatch):
    monkeypatch.setattr(stream, "SUBSCRIBERS", 2)
    streams = [await admin.tcp.get("/api/v1/events", headers=SSE) for _ in range(3)]
    assert [answer.status for answer in streams] == [200, 200, 503]
    async with admin.unix.get("/api/v1/events", headers=SSE) as answer:
        assert answer.status == 200
    for answer in streams:
        answer.close()


async def test_without_descriptors_idle_connections_go_and_the_door_stays_open(admin):
    idle = [await connect(admin) for _ in range(3)]
    async with admin.tcp.get("/livez") as answer:  # by now all of them are accepted
        assert answer.status == 200
    waiting = socket.create_connection((admin.server.address.host, admin.server.address.port))  # in the kernel's queue
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        async with asyncio.timeout(5):
            while "no_descriptors" not in admin.refusals:
                await asyncio.sleep(0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await asyncio.wait_for(idle[0][0].read(), 5) == b""
    async with asyncio.timeout(5), admin.tcp.get("/livez") as answer:
        assert answer.status == 200
    waiting.close()
    for _, writer in idle:
        writer.close()
