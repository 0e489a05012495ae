"""A bank that was removed: it may ask for the version that removed it, for some time, and for nothing else."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from p2pfed.core.messages import HeartbeatTable
from p2pfed.core.succession import DEPARTED_SECONDS, Departed, departed
from p2pfed.net.transport import Unreachable
from tests.consortia import consortium, next_version
from tests.net.nodes import make_consortium, make_manifest, serve, transport_of

pytestmark = pytest.mark.network


@pytest.fixture
async def removed(tmp_path):
    """Bank `a`, which version 2 removed a minute ago, its transport, and bank `b`, which follows version 2."""
    a, b, c = make_consortium(tmp_path)
    now = int(time.time())
    second = make_manifest([b, c], version=2)
    left = departed([b.handler.trusted.manifest, replace(second, issued=now - 60)], now)
    b.handler.trusted = replace(b.handler.trusted, manifest=second, departed=left)
    b.handler.manifests = {1: b"first", 2: b"second", 3: b"third"}
    listener, address = await serve(b)
    transport = transport_of(a)
    yield a, b, transport, address, listener
    await transport.close()
    await listener.close()


async def test_it_hears_of_its_removal_and_of_nothing_else(removed):
    _, b, transport, address, _ = removed
    assert await transport.manifest(b.id, [address], 1) == b"first"
    assert await transport.manifest(b.id, [address], 2) == b"second"
    for asking in (
        transport.manifest(b.id, [address], 3),
        transport.hello(b.id, [address]),
        transport.pull(b.id, [address], b.id, 0),
        transport.push(b.id, [address], b"x" * 100),
        transport.exchange(b.id, [address], HeartbeatTable(())),
    ):
        with pytest.raises(Unreachable, match="answered 410: the admins removed this bank in version 2") as caught:
            await asking
        assert caught.value.cause == "removed"
    assert (b.handler.asked, b.handler.took, b.handler.faults) == ([], [], [])


async def test_its_time_is_over_after_thirty_days(removed, monkeypatch):
    _, b, transport, address, _ = removed
    after = time.time() + DEPARTED_SECONDS
    monkeypatch.setattr("p2pfed.net.listener.time.time", lambda: after)
    with pytest.raises(Unreachable):
        await transport.manifest(b.id, [address], 2)
    assert set(b.handler.refusals) == {"unknown_certificate"}


async def test_one_that_this_operator_blocked_hears_nothing(removed):
    a, b, transport, address, listener = removed
    listener.use(b.handler.trusted, frozenset({a.id}))
    with pytest.raises(Unreachable):
        await transport.manifest(b.id, [address], 2)


def test_who_departed_follows_from_the_versions():
    first = consortium(4, issued=1000).manifest
    second = next_version(first, members=first.members[1:], issued=2000)
    third = next_version(second, members=second.members[1:], issued=3000)
    again = next_version(third, members=(*third.members, first.members[0]), issued=4000)
    ids = {m.name: node for node, m in first.by_id.items()}
    one = Departed(ids["bank-0"], first.members[0].certificates, 2, 2000 + DEPARTED_SECONDS)
    two = Departed(ids["bank-1"], first.members[1].certificates, 3, 3000 + DEPARTED_SECONDS)
    assert departed([first], 2500) == ()
    assert departed([first, second, third], 3500) == (one, two)
    assert departed([first, second, third, again], 4500) == (two,)
    assert departed([first, second, third], 2000 + DEPARTED_SECONDS) == (two,)
