"""What every Transport must do, over sockets and in memory alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from p2pfed.core import wire
from p2pfed.core.messages import HeartbeatTable
from p2pfed.core.types import Address, Reason
from p2pfed.errors import RemoteFault
from p2pfed.net import limits
from p2pfed.net.memory import MemoryNetwork, MemoryTransport
from p2pfed.net.transport import Transport, Unreachable
from tests.net.nodes import Bank, make_bank, make_consortium, make_manifest, serve, transport_of

NOWHERE = Address("127.0.0.1", 1)


@dataclass
class Pair:
    """Bank `a` asks through `transport`; bank `b` answers at `address`; bank `c` is a third member."""

    transport: Transport
    a: Bank
    b: Bank
    c: Bank
    address: Address


@pytest.fixture(params=["memory", pytest.param("http", marks=pytest.mark.network)])
async def pair(request, tmp_path):
    a, b, c = make_consortium(tmp_path)
    if request.param == "memory":
        network, address = MemoryNetwork(), Address("memory", 1)
        network.serve(address, b.id, b.handler)
        yield Pair(MemoryTransport(a.id, network, a.handler.trusted), a, b, c, address)
        return
    listener, address = await serve(b)
    transport = transport_of(a)
    yield Pair(transport, a, b, c, address)
    await transport.close()
    await listener.close()


async def test_hello_names_the_peer(pair):
    hello = await pair.transport.hello(pair.b.id, [pair.address])
    assert hello.member == pair.b.id


async def test_pull_brings_a_verified_update_once(pair):
    update = await pair.transport.pull(pair.b.id, [pair.address], pair.b.id, 4)
    assert update == pair.b.handler.frames[pair.b.id]
    assert np.all(update.vector == np.float32(0.5))
    assert await pair.transport.pull(pair.b.id, [pair.address], pair.b.id, 5) is None


async def test_pull_brings_a_third_members_update(pair):
    pair.b.handler.frames[pair.c.id] = pair.c.handler.frames[pair.c.id]
    update = await pair.transport.pull(pair.b.id, [pair.address], pair.c.id, 0)
    assert update.statement.sender == pair.c.id


async def test_pull_refuses_another_members_update_than_asked_for(pair):
    pair.b.handler.answer = pair.b.handler.frames[pair.b.id].frame
    with pytest.raises(RemoteFault) as caught:
        await pair.transport.pull(pair.b.id, [pair.address], pair.c.id, 0)
    assert caught.value.reason is Reason.UNRELATED_ANSWER


async def test_pull_refuses_an_older_update_than_asked_for(pair):
    pair.b.handler.answer = pair.b.handler.frames[pair.b.id].frame
    with pytest.raises(RemoteFault) as caught:
        await pair.transport.pull(pair.b.id, [pair.address], pair.b.id, 5)
    assert caught.value.reason is Reason.UNRELATED_ANSWER


async def test_pull_refuses_a_changed_payload(pair):
    frame = bytearray(pair.b.handler.frames[pair.b.id].frame)
    frame[-1] ^= 1
    pair.b.handler.answer = bytes(frame)
    with pytest.raises(RemoteFault) as caught:
        await pair.transport.pull(pair.b.id, [pair.address], pair.b.id, 0)
    assert caught.value.reason is Reason.WRONG_HASH


async def test_push_hands_over_the_frame(pair):
    frame = pair.a.handler.frames[pair.a.id].frame
    await pair.transport.push(pair.b.id, [pair.address], frame)
    assert pair.b.handler.took == [(pair.a.id, frame)]


async def test_push_of_another_consortiums_update_is_refused_and_blamed(pair):
    other = make_manifest([pair.a, pair.b])
    object.__setattr__(other, "consortium", "d0" * 16)
    with pytest.raises(Unreachable) as caught:
        await pair.transport.push(pair.b.id, [pair.address], pair.a.update(other, 6).frame)
    assert caught.value.cause == "refused"
    assert [(peer, fault.reason) for peer, fault in pair.b.handler.faults] == [(pair.a.id, Reason.OTHER_CONSORTIUM)]
    assert pair.b.handler.took == []


async def test_push_to_a_busy_peer_may_be_tried_again(pair):
    pair.b.handler.busy = True
    with pytest.raises(Unreachable) as caught:
        await pair.transport.push(pair.b.id, [pair.address], pair.a.handler.frames[pair.a.id].frame)
    assert caught.value.cause == "busy"


async def test_exchange_swaps_heartbeat_tables(pair):
    trust = pair.a.handler.trusted
    own = wire.open_heartbeat(pair.a.heartbeat(trust.manifest, 3), trust)
    table = await pair.transport.exchange(pair.b.id, [pair.address], HeartbeatTable((own,)))
    assert [(row.heartbeat.member, row.heartbeat.counter) for row in table.rows] == [(pair.b.id, 7)]


async def test_an_empty_heartbeat_table_is_one_too(pair):
    table = await pair.transport.exchange(pair.b.id, [pair.address], HeartbeatTable(()))
    assert len(table.rows) == 1


async def test_manifest_comes_by_version(pair):
    pair.b.handler.manifests[2] = b"signed bytes"
    assert await pair.transport.manifest(pair.b.id, [pair.address], 2) == b"signed bytes"
    assert await pair.transport.manifest(pair.b.id, [pair.address], 3) is None


async def test_identify_tells_who_answers(pair):
    assert await pair.transport.identify(pair.address) == pair.b.id


async def test_the_next_address_is_tried(pair, monkeypatch):
    monkeypatch.setattr(limits, "CONNECT_SECONDS", 0.5)
    hello = await pair.transport.hello(pair.b.id, [NOWHERE, pair.address])
    assert hello.member == pair.b.id


async def test_nobody_there(pair):
    with pytest.raises(Unreachable) as caught:
        await pair.transport.hello(pair.b.id, [NOWHERE])
    assert caught.value.cause == "connect"
    with pytest.raises(Unreachable) as caught:
        await pair.transport.identify(NOWHERE)
    assert caught.value.cause == "connect"
    with pytest.raises(Unreachable) as caught:
        await pair.transport.hello(pair.b.id, [])
    assert caught.value.cause == "no_address"


async def test_somebody_else_answers(pair):
    with pytest.raises(Unreachable) as caught:
        await pair.transport.hello(pair.c.id, [pair.address])
    assert caught.value.cause == "certificate"
    assert pair.b.handler.asked == []


async def test_a_blocked_or_removed_member_is_not_asked(pair):
    pair.transport.use(pair.a.handler.trusted, blocked=frozenset({pair.b.id}))
    with pytest.raises(Unreachable):
        await pair.transport.hello(pair.b.id, [pair.address])
    pair.transport.use(wire.trust_of(make_manifest([pair.a, pair.c])))
    with pytest.raises(Unreachable):
        await pair.transport.hello(pair.b.id, [pair.address])
    assert pair.b.handler.asked == []


async def test_a_member_added_later_is_asked(pair, tmp_path):
    pair.transport.use(wire.trust_of(make_manifest([pair.a, pair.c])))
    late = make_bank(tmp_path, "late")
    pair.transport.use(wire.trust_of(make_manifest([pair.a, pair.b, late])))
    assert (await pair.transport.hello(pair.b.id, [pair.address])).member == pair.b.id
