"""What strangers can do to a listening node: be refused, be counted, and not stand in the way."""

from __future__ import annotations

import resource
import socket
import ssl

import pytest

from p2pfed.core import wire
from p2pfed.net import limits, listener
from p2pfed.net.tls import client_context, make_certificate, write_pem
from tests.net.certificates import authority_and_leaf
from tests.net.nodes import HELLO, ended, make_manifest, until

pytestmark = pytest.mark.network


@pytest.fixture
def parsed(monkeypatch):
    """Every byte that reaches the HTTP parser."""
    seen = bytearray()
    original = listener._Connection.data_received

    def data_received(self, data):
        seen.extend(data)
        original(self, data)

    monkeypatch.setattr(listener._Connection, "data_received", data_received)
    return seen


def without_certificate(node, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def with_own_certificate(node, tmp_path):
    write_pem(tmp_path / "stranger.pem", make_certificate("bank-0"))
    return client_context(tmp_path / "stranger.pem", node.pins())


def with_old_tls(node, tmp_path):
    context = client_context(node.a.pem, node.pins())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize(
    ("stranger", "cause"),
    [
        (without_certificate, "no_certificate"),
        (with_own_certificate, "unknown_certificate"),
        (with_old_tls, "not_tls"),
    ],
)
async def test_no_byte_of_a_stranger_reaches_the_parser(node, parsed, tmp_path, stranger, cause):
    try:
        reader, writer = await node.connect(stranger(node, tmp_path))
        writer.write(HELLO)
        await ended(reader)
        writer.close()
    except (ConnectionError, ssl.SSLError):
        pass
    await until(lambda: node.handler.refusals[cause] == 1)
    assert parsed == b""
    assert node.handler.asked == []
    await node.served()


async def test_plain_http_is_refused(node, parsed):
    reader, writer = await node.connect(None)
    writer.write(HELLO)
    await ended(reader)
    writer.close()
    await until(lambda: node.handler.refusals["not_tls"] == 1)
    assert parsed == b""


async def test_a_certificate_issued_by_a_members_is_no_members(node, parsed, tmp_path):
    """A bank whose pinned certificate may sign others must not be able to let third parties in."""
    issuer, leaf = authority_and_leaf(tmp_path)
    node.b.handler.trusted = wire.trust_of(make_manifest([issuer, node.a, node.b]))
    node.listener.use(node.b.handler.trusted)
    reader, writer = await node.connect(client_context(leaf, node.pins()))
    writer.write(HELLO)
    await ended(reader)
    writer.close()
    await until(lambda: node.handler.refusals["unknown_certificate"] == 1)
    assert parsed == b""


async def test_a_thousand_idle_connections_do_not_keep_a_member_out(node):
    writers = []
    for _ in range(1000):
        writers.append((await node.connect(None))[1])
    await node.served()
    assert node.handler.refusals["too_many_handshakes"] >= 1000 - limits.MAX_HANDSHAKES_PER_HOST - 1
    for writer in writers:
        writer.close()
    await node.served()


async def test_an_idle_stranger_is_dropped(node, monkeypatch):
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.2)
    reader, writer = await node.connect(None)
    await ended(reader)
    writer.close()
    await until(lambda: node.handler.refusals["handshake_deadline"] == 1)


async def test_a_new_manifest_is_followed_once_there_are_descriptors(node):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    without = wire.trust_of(make_manifest([node.b, node.c]))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        node.listener.use(without)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    reader, writer = await node.as_member()
    await ended(reader)
    writer.close()
    assert node.handler.refusals["unknown_certificate"] == 1, "one that is no member any more"
    context = node.listener._context
    await until(lambda: node.listener._context is not context)


async def test_the_door_stays_open_without_descriptors(node):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = socket.create_connection((node.address.host, node.address.port))  # in the kernel's queue until accepted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        await until(lambda: node.handler.refusals["no_descriptors"] > 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    waiting.close()
    await node.served()
