"""Members find each other's addresses: by seeds, on the local network, in memory."""

from __future__ import annotations

import asyncio
import socket

import pytest
from zeroconf import DNSOutgoing, DNSPointer, DNSText
from zeroconf.const import _CLASS_IN, _FLAGS_AA, _FLAGS_QR_RESPONSE, _TYPE_PTR, _TYPE_TXT

from p2pfed.core.identity import Identity
from p2pfed.core.inputs import TroubleOver, TroubleSeen
from p2pfed.core.messages import Endpoint
from p2pfed.core.types import Address
from p2pfed.net import discovery, lan
from p2pfed.net.discovery import MemoryDiscovery, SeedDiscovery
from p2pfed.net.lan import ZeroconfDiscovery
from p2pfed.net.memory import MemoryNetwork, MemoryTransport
from tests.net.nodes import make_consortium, serve, transport_of, until

pytestmark = pytest.mark.network


class Finder:
    """One node's discovery and what it found."""

    def __init__(self, node, build):
        self.id = node
        self.found = []
        self.problems = []
        self.discovery = build(self)

    async def start(self):
        await self.discovery.start(lambda member, endpoint: self.found.append((member, endpoint)))

    def failed(self, problem):
        self.problems.append(problem)

    def codes(self):
        return [(type(problem), problem.code) for problem in self.problems]


@pytest.fixture(params=["memory", "zeroconf"])
async def two(request):
    """Two members' discoveries, on ports 7001 and 7002, not started."""
    ids = [Identity.generate().node_id for _ in range(2)]
    board = {}

    def build(finder):
        address = Address("127.0.0.1", 7001 + ids.index(finder.id))
        if request.param == "memory":
            made = MemoryDiscovery(finder.id, address, board)
            made.use(ids)
            return made
        return ZeroconfDiscovery(finder.id, address, ids, finder.failed)

    finders = [Finder(node, build) for node in ids]
    yield finders
    for finder in finders:
        await finder.discovery.close()


async def test_two_members_find_each_other(two):
    one, other = two
    await one.start()
    await other.start()
    await until(lambda: one.found and other.found, 10)
    assert one.found[0] == (other.id, Endpoint(Address("127.0.0.1", 7002), "zeroconf"))
    assert other.found[0] == (one.id, Endpoint(Address("127.0.0.1", 7001), "zeroconf"))
    assert one.problems == other.problems == []


async def test_strangers_and_oneself_are_not_found(two):
    one, other = two
    one.discovery.use([one.id])
    await one.start()
    await other.start()
    await until(lambda: other.found, 10)
    assert one.found == []


async def test_a_second_node_of_one_name_stays_unannounced_and_goes_on_looking():
    key, third = Identity.generate().node_id, Identity.generate().node_id
    members = [key, third]
    nodes = [
        Finder(node, lambda f, port=port: ZeroconfDiscovery(f.id, Address("127.0.0.1", port), members, f.failed))
        for node, port in ((key, 7001), (key, 7002), (third, 7003))
    ]
    original, clone, other = nodes
    await original.start()
    await other.start()
    await until(lambda: other.found, 10)
    await clone.start()
    await until(lambda: clone.problems, 10)
    assert clone.problems[0].code == "ZEROCONF_CONFLICT"
    await until(lambda: clone.found, 10)
    assert {endpoint.address.port for _, endpoint in other.found} == {7001}
    for node in nodes:
        await node.discovery.close()


async def test_no_interface_is_a_problem_and_not_a_crash():
    node = Identity.generate().node_id
    finder = Finder(node, lambda f: ZeroconfDiscovery(f.id, Address("192.0.2.1", 7001), [node], f.failed))
    await finder.start()
    await until(lambda: finder.problems)
    assert finder.problems[0].code == "ZEROCONF_OFF"
    await finder.discovery.close()


async def test_a_node_follows_its_interface(monkeypatch):
    node = Identity.generate().node_id
    finder = Finder(node, lambda f: ZeroconfDiscovery(f.id, None, [node], f.failed))
    interface = [None]
    monkeypatch.setattr(lan, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(finder.discovery, "_interface", lambda: interface[0])
    await finder.start()
    await until(lambda: finder.problems)
    interface[0] = "127.0.0.1"
    await until(lambda: finder.discovery._zeroconf is not None)
    await finder.discovery.close()


def flood(first, count):
    """Announce services of strangers on the loopback interface, by real packets of others' making."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for start in range(first, first + count, 20):
            out = DNSOutgoing(_FLAGS_QR_RESPONSE | _FLAGS_AA)
            for i in range(start, start + 20):
                out.add_answer_at_time(DNSPointer(lan.SERVICE, _TYPE_PTR, _CLASS_IN, 4500, f"x{i}.{lan.SERVICE}"), 0)
                out.add_answer_at_time(DNSText(f"x{i}.local.", _TYPE_TXT, _CLASS_IN, 4500, b"x" * 20), 0)
            for packet in out.packets():
                sender.sendto(packet, ("224.0.0.251", 5353))


async def test_what_strangers_announce_fills_no_memory(monkeypatch):
    monkeypatch.setattr(lan, "STRANGE_AT_ONCE", 300.0)
    monkeypatch.setattr(lan, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(lan, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(lan, "FIRST_PAUSE_SECONDS", 0.1)
    ids = [Identity.generate().node_id for _ in range(2)]
    one, other = (
        Finder(node, lambda f, port=port: ZeroconfDiscovery(f.id, Address("127.0.0.1", port), ids, f.failed))
        for node, port in zip(ids, (7001, 7002), strict=True)
    )
    await one.start()
    await until(lambda: one.discovery._zeroconf is not None, 10)
    await asyncio.sleep(1.5)  # until it is announced
    flood(0, 40)
    cache = one.discovery._zeroconf.zeroconf.cache
    await asyncio.sleep(0.3)
    assert not [name for name in cache.names() if name.startswith("x")], "forgotten, and no noise yet"
    assert one.problems == []
    for start in range(100, 1000, 100):
        flood(start, 100)
        await asyncio.sleep(0.02)
    await until(lambda: (TroubleSeen, "LAN_NOISY") in one.codes(), 10)
    await other.start()
    await until(lambda: one.found and other.found, 20)
    await until(lambda: (TroubleOver, "LAN_NOISY") in one.codes(), 10)
    for node in (one, other):
        await node.discovery.close()


async def test_a_seed_tells_who_it_is(tmp_path):
    a, b, _ = make_consortium(tmp_path)
    listener, address = await serve(b)
    transport = transport_of(a)
    finder = Finder(a.id, lambda f: SeedDiscovery(f.id, [address], transport))
    await finder.start()
    await until(lambda: finder.found)
    assert finder.found == [(b.id, Endpoint(address, "config"))]
    await finder.discovery.close()
    await transport.close()
    await listener.close()


async def test_a_seed_that_comes_late_is_found_and_oneself_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "FIRST_RETRY_SECONDS", 0.01)
    a, b, _ = make_consortium(tmp_path)
    network, own, late = MemoryNetwork(), Address("memory", 1), Address("memory", 2)
    network.serve(own, a.id, a.handler)
    finder = Finder(a.id, lambda f: SeedDiscovery(f.id, [own, late], MemoryTransport(a.id, network, a.handler.trusted)))
    await finder.start()
    await asyncio.sleep(0.03)
    assert finder.found == []
    network.serve(late, b.id, b.handler)
    await until(lambda: finder.found)
    assert {member for member, _ in finder.found} == {b.id}
    await finder.discovery.close()
