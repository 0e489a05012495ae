"""What hostile members can do to a listening node: be cut off, be blamed, and not stand in the way."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import resource
from dataclasses import replace

import numpy as np
import pytest

from p2pfed.core import record, wire
from p2pfed.core.identity import Identity
from p2pfed.core.messages import Equivocation, Heartbeat, HeartbeatTable, SignedStatement
from p2pfed.core.types import Reason
from p2pfed.net import limits
from p2pfed.net.tls import client_context
from p2pfed.net.transport import Unreachable
from tests.net.nodes import HELLO, ended, make_bank, make_consortium, make_manifest, serve, transport_of, until

pytestmark = pytest.mark.network


async def test_half_a_header_is_cut_off(node, monkeypatch):
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.2)
    await node.say(HELLO[:20])
    assert node.handler.refusals["header_deadline"] == 1
    await node.served()


async def test_half_a_second_header_is_cut_off(node, monkeypatch):
    monkeypatch.setattr(limits, "KEEPALIVE_SECONDS", 0.2)
    assert b"200 OK" in await node.say(HELLO + HELLO[:20])


async def test_a_slow_body_is_cut_off(node, monkeypatch):
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.2)
    answer = await node.say(b"POST /p2p/v1/heartbeats HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 408")
    assert node.handler.refusals["deadline"] == 1
    assert node.handler.asked == []
    await node.served()


async def test_a_peer_that_does_not_read_its_answer_is_cut_off(tmp_path, monkeypatch, caplog):
    a, b, _ = make_consortium(tmp_path, hidden=(2000, 2000))
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(limits, "BYTES_PER_SECOND", 2**40)
    served, address = await serve(b)
    context = client_context(a.pem, [base64.b64decode(b.member().certificates[0])])
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context, server_hostname="x")
    writer.transport.pause_reading()
    writer.write(f"GET /p2p/v1/update?member={b.id}&after=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await until(lambda: b.handler.refusals["deadline"] == 1)
    await until(lambda: served.connections == 0)
    assert caplog.records == []
    writer.transport.abort()
    await served.close()


def request(headers: str, body: bytes = b"", method: str = "PUT", path: str = "update") -> bytes:
    return f"{method} /p2p/v1/{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode() + body


BAD_BODIES = {
    "chunked": (request("Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"), Reason.MALFORMED),
    "gzip": (request("Content-Encoding: gzip\r\nContent-Length: 3\r\n", b"abc"), Reason.MALFORMED),
    "no length": (request(""), Reason.MALFORMED),
    "huge": (request("Content-Length: 99999999999\r\n"), Reason.OVERSIZE),
    "empty": (request("Content-Length: 0\r\n"), Reason.WRONG_LENGTH),
    "not a frame": (request("Content-Length: 200\r\n", b"\x80" * 200), Reason.MALFORMED),
    "long table": (request("Content-Length: 300000\r\n", b"", "POST", "heartbeats"), Reason.OVERSIZE),
    "bad table": (request("Content-Length: 5\r\n", b"\xff" * 5, "POST", "heartbeats"), Reason.MALFORMED),
    "GET with a body": (request("Content-Length: 3\r\n", b"abc", "GET", "hello"), Reason.MALFORMED),
    "no query": (request("", b"", "GET", "update"), Reason.MALFORMED),
    "query twice": (request("", b"", "GET", "manifest?version=1&version=2"), Reason.MALFORMED),
    "not a number": (request("", b"", "GET", "manifest?version=-1"), Reason.MALFORMED),
    "not HTTP": (b"\x00\x01\x02\r\n\r\n", Reason.MALFORMED),
    "long line": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", Reason.MALFORMED),
    "many headers": (request("".join(f"x{i}: y\r\n" for i in range(100)), b"", "GET", "hello"), Reason.MALFORMED),
}


@pytest.mark.parametrize(("sent", "reason"), BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_bad_request_is_blamed_on_the_member_and_ends_the_connection(node, sent, reason):
    answer = await node.say(sent)
    assert re.match(rb"HTTP/1\.[01] 4", answer)
    assert [(peer, fault.reason) for peer, fault in node.handler.faults] == [(node.a.id, reason)]
    assert node.handler.took == []
    await node.served()


async def test_an_oversize_body_is_refused_before_a_byte_of_it(node):
    reader, writer = await node.as_member()
    writer.write(request("Content-Length: 99999999\r\nExpect: 100-continue\r\n"))
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_frame_longer_or_shorter_than_signed_is_refused_before_its_payload(node):
    frame = node.a.handler.frames[node.a.id].frame
    for length in (len(frame) - 4, len(frame) + 4):
        head = frame[: wire.head_length(frame)]
        answer = await node.say(request(f"Content-Length: {length}\r\n", head))
        assert answer.startswith(b"HTTP/1.1 422")
    assert [fault.reason for _, fault in node.handler.faults] == [Reason.WRONG_LENGTH] * 2


async def test_a_forged_signature_is_refused_before_the_payload(node):
    frame = bytearray(node.a.handler.frames[node.a.id].frame)
    head = wire.head_length(frame)
    frame[head - 20] ^= 1
    answer = await node.say(request(f"Content-Length: {len(frame)}\r\n", bytes(frame[:head])))
    assert answer.startswith(b"HTTP/1.1 422")
    assert [fault.reason for _, fault in node.handler.faults] == [Reason.FORGED_SIGNATURE]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
async def test_nan_and_infinity_are_refused(node, poison):
    update = node.a.update(node.handler.trusted.manifest, 6, poison)
    answer = await node.say(request(f"Content-Length: {len(update.frame)}\r\n", update.frame))
    assert answer.startswith(b"HTTP/1.1 422")
    assert [fault.reason for _, fault in node.handler.faults] == [Reason.NOT_FINITE]
    assert node.handler.took == []


async def test_an_unknown_path_is_no_offence(node):
    """A newer version of the protocol may ask for things we do not know."""
    assert (await node.say(request("", b"", "GET", "../v2/hello"))).startswith(b"HTTP/1.1 4")
    assert (await node.say(b"GET /p2p/v2/hello HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 404")
    assert node.handler.faults == []


async def test_a_peer_that_hangs_up_in_the_middle_leaves_nothing_behind(node, caplog):
    reader, writer = await node.as_member()
    frame = node.a.handler.frames[node.a.id].frame
    writer.write(request(f"Content-Length: {len(frame)}\r\n", frame[:-10]))
    await writer.drain()
    writer.close()
    await until(lambda: node.listener.connections == 0)
    assert node.handler.faults == []
    assert caplog.records == []
    await node.transport.push(node.b.id, [node.address], frame)
    assert len(node.handler.took) == 1


async def test_a_flood_of_requests_is_slowed_down(node):
    flood = HELLO * (int(limits.REQUEST_BURST) + 100)
    assert b"HTTP/1.1 429" in await node.say(flood)
    assert node.handler.refusals["rate"] == 1
    other = transport_of(node.c)
    assert (await other.hello(node.b.id, [node.address])).member == node.b.id
    await other.close()


async def test_a_push_costs_more_than_a_request(node):
    """Each one taken is a commit to the disk."""
    frame = node.a.handler.frames[node.a.id].frame
    answer = await node.say(request(f"Content-Length: {len(frame)}\r\n", frame) * 40)
    assert 1 <= answer.count(b"HTTP/1.1 204") <= limits.REQUEST_BURST / limits.PUSH_COST
    assert b"HTTP/1.1 429" in answer


async def test_a_long_table_costs_more_than_a_short_one(node):
    """Rows of nobody are read too before they are left out."""
    manifest = node.handler.trusted.manifest
    beat = Heartbeat(manifest.consortium, node.a.id, 1, 1, 1, 0, (), False, 1, 1, "x" * 64)
    strangers = [Identity.generate() for _ in range(50)]
    rows = [wire.seal_heartbeat(s, replace(beat, member=s.node_id)) for s in strangers]
    table = wire.encode_table(HeartbeatTable(tuple(rows)))
    reader, writer = await node.as_member()
    answers = 0
    while True:
        writer.write(request(f"Content-Length: {len(table)}\r\n", table, "POST", "heartbeats"))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            break
        await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))
        answers += 1
    assert head.startswith(b"HTTP/1.1 429")
    assert answers < limits.REQUEST_BURST / 4
    writer.close()


async def test_a_false_proof_costs_who_hands_it_over_and_not_whom_it_names(node):
    manifest, victim = node.handler.trusted.manifest, node.handler.me.identity
    true, liar = (
        wire.seal_update(
            signer, manifest=manifest, instance="ab", seq=seq, previous="", round=1, rows=8,
            vector=np.full(manifest.model.schema().size, seq, np.float32),
        ).head
        for signer, seq in ((victim, 7), (node.a.identity, 8))
    )  # fmt: skip
    body = record.canonical(replace(true.statement, rows=16))
    false = SignedStatement(replace(true.statement, rows=16), liar.signed[:64] + body, hashlib.sha256(body).hexdigest())
    proof = Equivocation(*sorted((true, false), key=lambda head: head.digest))
    table = wire.encode_table(HeartbeatTable((), (), (proof,)))
    answer = await node.say(request(f"Content-Length: {len(table)}\r\n", table, "POST", "heartbeats"))
    assert answer.startswith(b"HTTP/1.1 4")
    [(peer, fault)] = node.handler.faults
    assert (peer, fault.reason, fault.signer) == (node.a.id, Reason.FORGED_SIGNATURE, None)


async def test_one_update_of_a_member_is_received_at_a_time(node):
    frame = node.a.handler.frames[node.a.id].frame
    reader, writer = await node.as_member()
    writer.write(request(f"Content-Length: {len(frame)}\r\n", frame[:-10]))
    await until(lambda: node.listener._answers._pushing)
    answer = await node.say(request(f"Content-Length: {len(frame)}\r\nExpect: 100-continue\r\n"))
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"Retry-After" in answer
    writer.write(frame[-10:])
    assert (await reader.readline()).startswith(b"HTTP/1.1 204")
    writer.close()


async def test_updates_being_received_have_a_common_limit(node, monkeypatch):
    monkeypatch.setattr(limits, "MIN_PUSHES", 1)
    monkeypatch.setattr(limits, "PUSH_MEMORY", 0)
    frame = node.a.handler.frames[node.a.id].frame
    _, writer = await node.as_member()
    writer.write(request(f"Content-Length: {len(frame)}\r\n", frame[:-10]))
    await until(lambda: node.listener._answers._pushing)
    other = transport_of(node.c)
    with pytest.raises(Unreachable) as caught:
        await other.push(node.b.id, [node.address], node.c.handler.frames[node.c.id].frame)
    assert caught.value.cause == "busy"
    await other.close()
    writer.close()


async def test_a_members_fifth_connection_replaces_its_first(node):
    connections = [await node.as_member() for _ in range(limits.MAX_CONNECTIONS_PER_MEMBER + 1)]
    await ended(connections[0][0])
    await until(lambda: node.listener.connections == limits.MAX_CONNECTIONS_PER_MEMBER)
    connections[-1][1].write(HELLO)
    assert (await connections[-1][0].readline()).startswith(b"HTTP/1.1 200")
    for _, writer in connections:
        writer.close()


# --- The trust set changes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "blocked", "another certificate"])
async def test_a_member_that_is_one_no_more_is_cut_off_at_once(node, tmp_path, how):
    reader, writer = await node.as_member()
    writer.write(HELLO)
    await reader.readuntil(b"\r\n\r\n")
    if how == "removed":
        node.listener.use(wire.trust_of(make_manifest([node.b, node.c], version=2)))
    elif how == "blocked":
        node.listener.use(node.handler.trusted, blocked=frozenset({node.a.id}))
    else:
        renewed = make_bank(tmp_path, "renewed")
        renewed.identity = node.a.identity
        node.listener.use(wire.trust_of(make_manifest([renewed, node.b, node.c], version=2)))
    await ended(reader)
    writer.close()
    before = list(node.handler.asked)
    assert await node.say(HELLO) == b""
    assert node.handler.asked == before


async def test_a_new_member_is_let_in_without_a_restart(node, tmp_path):
    late = make_bank(tmp_path, "late")
    late.handler = node.a.handler
    trust = wire.trust_of(make_manifest([node.a, node.b, late], version=2))
    node.listener.use(trust)
    transport = transport_of(late)
    assert (await transport.hello(node.b.id, [node.address])).member == node.b.id
    await transport.close()
    await node.served()


async def test_mangled_requests_never_look_like_our_own_error(node, monkeypatch, caplog):
    """Seeded mutations of good requests: refused or answered, never a crash, and the member is served afterwards."""
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.05)
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(limits, "KEEPALIVE_SECONDS", 0.05)
    generator = np.random.default_rng(1)
    frame = node.a.handler.frames[node.a.id].frame
    good = [
        HELLO,
        request(f"Content-Length: {len(frame)}\r\n", frame),
        request("Content-Length: 0\r\n", b"", "POST", "heartbeats"),
        request("", b"", "GET", f"update?member={node.b.id}&after=0"),
    ]
    for _ in range(100):
        mangled = bytearray(good[generator.integers(len(good))])
        for _ in range(generator.integers(1, 6)):
            place = generator.integers(len(mangled))
            mangled[place : place + generator.integers(0, 4)] = generator.bytes(generator.integers(0, 4))
        await node.say(bytes(mangled))
    assert caplog.records == []
    await node.served()


async def test_long_answers_are_counted_by_their_bytes(node):
    node.handler.manifests[1] = b"x" * 200_000
    for _ in range(100):
        try:
            await node.transport.manifest(node.b.id, [node.address], 1)
        except Unreachable as error:
            assert error.cause == "busy"
            break
    served = node.b.traffic.sent[node.a.id] / 200_000
    assert served <= 1 + limits.REQUEST_BURST * limits.TABLE_BYTES_PER_REQUEST / 200_000 + 1
    assert node.handler.refusals["rate"] == 1


async def test_members_have_so_many_connections_together(node, monkeypatch):
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 2)
    first, *later = [await node.as_member() for _ in range(3)]
    assert await asyncio.wait_for(first[0].read(), 5) == b""
    assert node.handler.refusals["too_many_connections"] == 1
    await node.served()
    for _, writer in (first, *later):
        writer.close()


async def test_without_descriptors_a_peer_is_out_of_reach_and_no_more(node):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        with pytest.raises(Unreachable):
            await node.transport.hello(node.b.id, [node.address])
        with pytest.raises(Unreachable):
            await node.transport.identify(node.address)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await node.served()
