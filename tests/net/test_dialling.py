"""What a member advertises is dialled with care: names that take long, others' ports, this node itself."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import replace

import pytest

from p2pfed.core.types import Address
from p2pfed.net import limits, resolving
from p2pfed.net.client import HttpTransport
from p2pfed.net.places import Places
from p2pfed.net.resolving import Resolver
from p2pfed.net.transport import Unreachable
from tests.net.nodes import LOOPBACK, make_consortium, serve, transport_of, until

pytestmark = pytest.mark.network
NEAR = Places([LOOPBACK])


@pytest.fixture
def slow(monkeypatch):
    """Names that end with `slow` take long to look up; answers the event that ends it, and which names were asked."""
    go_on, asked, original = threading.Event(), [], socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        asked.append(host)
        if host.endswith("slow"):
            go_on.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return original("127.0.0.1" if host.endswith("quick") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(limits, "LOOKUP_SECONDS", 0.1)
    yield go_on, asked
    go_on.set()


async def test_slow_names_take_no_thread_that_saves_a_model(slow):
    resolver = Resolver(NEAR)
    names = [f"name-{i}.slow" for i in range(50)]
    began = time.monotonic()
    await asyncio.gather(*(resolver.resolve(name, 7443) for name in names), return_exceptions=True)
    assert await asyncio.to_thread(lambda: "saved") == "saved"
    assert time.monotonic() - began < 2
    assert len(slow[1]) == limits.LOOKUPS, "the others are not even begun"


async def test_a_name_that_is_not_found_is_not_asked_for_again_at_once(slow):
    resolver = Resolver(NEAR)
    for _ in range(5):
        with pytest.raises(OSError, match=r"bank\.slow"):
            await resolver.resolve("bank.slow", 7443)
    assert slow[1] == ["bank.slow"]
    slow[0].set()
    await until(lambda: not resolver._looking)


async def test_a_name_server_that_fails_leaves_what_was_known(slow, monkeypatch):
    monkeypatch.setattr(limits, "NAME_SECONDS", 0.0)
    resolver = Resolver(NEAR)
    first = await resolver.resolve("bank.quick", 7443)
    assert [place["host"] for place in first] == ["127.0.0.1"]
    monkeypatch.setattr(resolving, "_addresses", lambda host: OSError("gone"))
    assert await resolver.resolve("bank.quick", 7443) == first


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1"])
def test_addresses_of_this_machine_and_its_link_are_not_dialled_unless_they_are_used(host, tmp_path):
    a, *_ = make_consortium(tmp_path)
    manifest, places = a.handler.trusted.manifest, Places()
    assert "neither manifest nor configuration" in places.refusal(Address(host, 22))
    assert NEAR.refusal(Address(host, 22)) == ""
    assert places.refusal(Address("192.0.2.1", 22)) == places.refusal(Address("bank.example", 22)) == ""
    places.follow(replace(manifest, members=(replace(manifest.members[0], endpoints=("127.0.0.1:7443",)),)))
    assert places.refusal(Address(host, 22)) == ""
    places.follow(manifest)
    assert places.refusal(Address(host, 22)) != ""
    places.allow([Address("localhost", 7443)])
    assert places.refusal(Address(host, 22)) == ""


def test_this_node_itself_is_never_dialled():
    places = Places([LOOPBACK], [7443])
    for host in ("127.0.0.1", "::1", "127.0.0.2"):
        assert places.refusal(Address(host, 7443)) == "this node itself listens there"
        assert places.refusal(Address(host, 7444)) == ""
    assert places.refusal(Address("192.0.2.1", 7443)) == ""


async def test_a_name_does_not_get_round_the_rule(slow, tmp_path):
    a, b, _ = make_consortium(tmp_path)
    listener, address = await serve(b)
    transport = HttpTransport(a.pem, a.handler.trusted, a.traffic)
    with pytest.raises(Unreachable, match="neither manifest nor configuration"):
        await transport.hello(b.id, [Address("bank.quick", address.port)])
    with pytest.raises(Unreachable, match="neither manifest nor configuration"):
        await transport.identify(Address("bank.quick", address.port))
    await transport.close()
    allowed = transport_of(a)
    assert (await allowed.hello(b.id, [Address("bank.quick", address.port)])).member == b.id
    assert await allowed.identify(Address("bank.quick", address.port)) == b.id
    await allowed.close()
    await listener.close()


async def test_one_member_has_so_many_dials(tmp_path):
    a, b, c = make_consortium(tmp_path)
    listener, address = await serve(c)
    transport = transport_of(a)
    tried = []
    for port in range(1, 61):
        with pytest.raises(Unreachable) as caught:
            await transport.hello(b.id, [Address("127.0.0.1", port)])
        tried.append("too often" not in str(caught.value))
    assert sum(tried) <= limits.DIALS_AT_ONCE + 2
    assert (await transport.hello(c.id, [address])).member == c.id, "others have their own"
    await transport.close()
    await listener.close()


async def test_closed_and_silent_ports_look_alike_to_who_advertises_them(tmp_path, monkeypatch):
    """The member's own address is tried after the one it wants to know of: when it is, says nothing of the first."""
    monkeypatch.setattr(limits, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(limits, "DIAL_JITTER", 0.0)
    a, b, _ = make_consortium(tmp_path)
    listener, address = await serve(b)
    silent = socket.create_server(("127.0.0.1", 0))
    closed = Address("127.0.0.1", 1)
    for first in (closed, Address(*silent.getsockname())):
        transport = transport_of(a)
        began = time.monotonic()
        await transport.hello(b.id, [first, address])
        assert 0.5 <= time.monotonic() - began < 0.9
        began = time.monotonic()
        await transport.hello(b.id, [first, address])
        assert time.monotonic() - began < 0.4, "who has answered is asked first"
        await transport.close()
    silent.close()
    await listener.close()
