"""Keys, certificates and pins."""

from __future__ import annotations

import asyncio
import dataclasses
import stat

import pytest

from p2pfed.core import wire
from p2pfed.core.identity import Identity
from p2pfed.core.types import Address
from p2pfed.errors import NotPermitted, StateCorrupt, Unavailable, UsageError
from p2pfed.net.listener import Listener
from p2pfed.net.tls import certificate_of, client_context, make_certificate, pins_of, receive_into, write_pem
from p2pfed.net.transport import Unreachable
from tests.net.certificates import authority_and_leaf, expired
from tests.net.nodes import Bank, RecordingHandler, make_bank, make_consortium, make_manifest, serve, transport_of

pytestmark = pytest.mark.network


async def hello_between(asking: Bank, answering: Bank) -> None:
    trust = wire.trust_of(make_manifest([asking, answering]))
    for bank in (asking, answering):
        bank.handler = RecordingHandler(bank, trust)
    listener, address = await serve(answering)
    transport = transport_of(asking)
    try:
        assert (await transport.hello(answering.id, [address])).member == answering.id
    finally:
        await transport.close()
        await listener.close()


def test_a_key_file_is_private_and_never_overwritten(tmp_path):
    path = tmp_path / "tls.pem"
    write_pem(path, make_certificate("a"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="never overwritten"):
        write_pem(path, b"")
    assert certificate_of(path)


def test_a_key_file_open_to_others_is_refused(tmp_path):
    bank = make_bank(tmp_path, "a")
    bank.pem.chmod(0o640)
    for use in (certificate_of, lambda path: client_context(path, [])):
        with pytest.raises(NotPermitted, match=f"chmod 600 {bank.pem}"):
            use(bank.pem)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"])
def test_a_damaged_key_file_says_so(tmp_path, content):
    path = tmp_path / "tls.pem"
    write_pem(path, content)
    with pytest.raises(StateCorrupt, match="restore it from a backup"):
        client_context(path, [])
    with pytest.raises(StateCorrupt, match="p2pfed init"):
        certificate_of(tmp_path / "missing.pem")


async def test_p256_and_ed25519_members_talk_to_each_other(tmp_path):
    write_pem(tmp_path / "p256.pem", make_certificate("p256", "p256"))
    p256 = Bank("p256", Identity.generate(), tmp_path / "p256.pem")
    await hello_between(p256, make_bank(tmp_path, "ed25519"))
    await hello_between(make_bank(tmp_path, "other"), p256)


async def test_a_leaf_that_an_authority_issued_can_be_pinned(tmp_path):
    _, leaf = authority_and_leaf(tmp_path)
    issued = Bank("issued", Identity.generate(), leaf)
    await hello_between(issued, make_bank(tmp_path, "b"))
    await hello_between(make_bank(tmp_path, "c"), issued)


async def test_an_expired_certificate_is_refused(tmp_path):
    expired(tmp_path / "old.pem")
    old = Bank("old", Identity.generate(), tmp_path / "old.pem")
    with pytest.raises(Unreachable) as caught:
        await hello_between(make_bank(tmp_path, "b"), old)
    assert caught.value.cause == "certificate"


async def test_both_certificates_of_a_member_count_while_one_replaces_the_other(tmp_path):
    a, old, new = (make_bank(tmp_path, name) for name in ("a", "old", "new"))
    new.identity = old.identity
    both = dataclasses.replace(old.member(), certificates=old.member().certificates + new.member().certificates)
    trust = wire.trust_of(dataclasses.replace(make_manifest([a]), members=(a.member(), both)))
    a.handler = RecordingHandler(a, trust)
    listener, address = await serve(a)
    for bank in (old, new):
        bank.handler = RecordingHandler(bank, trust)
        transport = transport_of(bank)
        assert (await transport.hello(a.id, [address])).member == a.id
        await transport.close()
    await listener.close()


def test_pins_leave_out_what_cannot_be_trusted(tmp_path):
    a, b, c = (make_bank(tmp_path, name) for name in "abc")
    thief = dataclasses.replace(c.member(), certificates=b.member().certificates)
    broken = dataclasses.replace(make_bank(tmp_path, "d").member(), certificates=("bm9uc2Vuc2U=",))
    manifest = dataclasses.replace(make_manifest([a]), members=(a.member(), b.member(), thief, broken))
    pins = pins_of(manifest)
    assert list(pins.by_member) == [a.id]
    assert len(pins.unreadable) == 3
    assert pins_of(manifest, blocked=frozenset({a.id})).certificates == []


async def test_a_taken_port_is_said_to_be(tmp_path):
    bank = make_bank(tmp_path, "a")
    bank.handler = RecordingHandler(bank, wire.trust_of(make_manifest([bank])))
    listener, address = await serve(bank)
    second = Listener(bank.handler, bank.pem, bank.traffic)
    await second.close()
    with pytest.raises(Unavailable, match=f"cannot listen on {address}"):
        await second.start(address)
    with pytest.raises(Unavailable, match=r"peers\.listen"):
        await second.start(Address("192.0.2.1", 0))
    await listener.close()


async def test_open_connections_receive_into_one_buffer_and_stay_apart(tmp_path, monkeypatch):
    seen = []

    def noted(transport, shared):
        receive_into(transport, shared)
        seen.append((transport._ssl_protocol, shared))

    monkeypatch.setattr("p2pfed.net.client.receive_into", noted)
    monkeypatch.setattr("p2pfed.net.listener.receive_into", noted)
    a, *others = make_consortium(tmp_path, 4, hidden=(300, 300))  # frames of many records
    served = [await serve(bank) for bank in others]
    transport = transport_of(a)
    pulls = [
        transport.pull(b.id, [address], b.id, 0) for b, (_, address) in zip(others, served, strict=True) for _ in "ab"
    ]
    updates = await asyncio.gather(*pulls)
    assert [u.frame for u in updates] == [b.handler.frames[b.id].frame for b in others for _ in "ab"]
    assert len(seen) == 12
    assert all(protocol.get_buffer(-1) is shared for protocol, shared in seen)
    assert len({id(shared) for _, shared in seen}) == 4  # of the transport, and of each listener
    await transport.close()
    for listener, _ in served:
        await listener.close()
