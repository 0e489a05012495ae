"""A node that listens to other members, and to whoever else comes."""

from __future__ import annotations

import asyncio
import base64

import pytest

from p2pfed.net import limits
from p2pfed.net.tls import client_context
from tests.net.nodes import make_consortium, serve, transport_of


@pytest.fixture
async def node(tmp_path, monkeypatch):
    """Bank `b` listens; `a` and `c` are the other members."""
    monkeypatch.setattr(limits, "LINGER_SECONDS", 0.1)
    node = Node(make_consortium(tmp_path))
    node.listener, node.address = await serve(node.b)
    node.transport = transport_of(node.a)
    yield node
    await node.transport.close()
    await node.listener.close()


class Node:
    def __init__(self, banks):
        self.a, self.b, self.c = banks

    @property
    def handler(self):
        return self.b.handler

    async def served(self):
        assert (await self.transport.hello(self.b.id, [self.address])).member == self.b.id

    async def connect(self, context):
        return await asyncio.open_connection(
            self.address.host, self.address.port, ssl=context, server_hostname="x" if context else None
        )

    async def as_member(self):
        """A raw connection that bank `a` may open."""
        return await self.connect(client_context(self.a.pem, self.pins()))

    def pins(self):
        return [base64.b64decode(self.b.member().certificates[0])]

    async def say(self, request: bytes) -> bytes:
        """Bank `a` sends raw bytes; what comes back until the connection ends."""
        reader, writer = await self.as_member()
        writer.write(request)
        try:
            return await asyncio.wait_for(reader.read(-1), 5)
        except ConnectionError:
            return b""
        finally:
            writer.close()
