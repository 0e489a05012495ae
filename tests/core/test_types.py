"""Addresses, short ids, and what each reason costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.types import Address, NodeId, Reason, Verdict, short
from p2pfed.errors import RemoteFault


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("bank-b.example:7443", "bank-b.example", 7443),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:65535", "::1", 65535),
        ("[2001:DB8:0:0::1]:80", "2001:db8::1", 80),
        ("Bank-A.Example:7443", "bank-a.example", 7443),
        ("10.0.0.1:7443", "10.0.0.1", 7443),
        ("bank1:7443", "bank1", 7443),
    ],
)
def test_an_address_is_read(text, host, port):
    assert Address.parse(text) == Address(host, port)
    assert Address.parse(str(Address.parse(text))) == Address(host, port)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected host:port"),
        ("bank", "expected host:port"),
        (":7443", "expected host:port"),
        ("::1:7443", "write an IPv6 host in brackets"),
        ("bank:", "the port must be a number"),
        ("bank:http", "the port must be a number"),
        ("bank:65536", "the port must be a number"),
        ("bank:-1", "the port must be a number"),
        ("bank:+1", "the port must be a number"),
        ("bank:1\n", "the port must be a number"),
        ("bank:\u0661", "the port must be a number"),
        ("bank:" + "1" * 5000, "the port must be a number"),
        ("[bank]:1", "only IPv6 addresses stand in brackets"),
        ("[::1%\x1b]:1", "characters that no host name has"),
        ("a b:1", "characters that no host name has"),
        ("http://bank:1", "in brackets"),
        ("me@bank:1", "characters that no host name has"),
        ("bank/../:1", "characters that no host name has"),
        ("a\nb:1", "characters that no host name has"),
        ("h" * 254 + ":1", "characters that no host name has"),
        ("b\u0430nk:1", "characters that no host name has"),
        *((f"{host}:1", "four plain numbers") for host in ("010.0.0.1", "10.1", "167772161", "0xa000001", "10.0.0.1.")),
    ],
)
def test_what_is_no_address_is_said_to_be_none(text, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        Address.parse(text)
    assert str(caught.value).isprintable()


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_value_error(text):
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address


def test_a_short_id_has_seven_characters():
    assert short(NodeId("ABCDEFGHIJ")) == "ABCDEFG"


def test_only_rejection_says_somebody_broke_a_rule():
    ignored = {r for r in Reason if r.verdict is Verdict.IGNORE}
    expected = {Reason.DUPLICATE, Reason.OLDER_SEQUENCE, Reason.OWN_UPDATE, Reason.OTHER_GENERATION, Reason.NOT_ASKED}
    assert ignored == expected
    assert all(r.verdict is Verdict.REJECT for r in Reason if r not in ignored)


def test_every_reason_has_a_name_of_its_own_and_a_sentence():
    assert len({r.code for r in Reason}) == len(Reason)
    assert all(r.code == r.name.lower() == str(r) and r.sentence[0].islower() for r in Reason)


def test_a_fault_says_its_reason_and_who_signed():
    fault = RemoteFault(Reason.WRONG_HASH, "of tensor 3", NodeId("N"))
    assert str(fault) == "the payload does not have the signed hash (of tensor 3)"
    assert (fault.reason, fault.detail, fault.signer) == (Reason.WRONG_HASH, "of tensor 3", "N")
    assert RemoteFault(Reason.MALFORMED).signer is None
