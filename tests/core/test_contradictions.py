"""What a manifest may say."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from p2pfed.core.consortium import Admin, ManifestError
from p2pfed.core.contract import Moments
from p2pfed.core.contradictions import check_manifest
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.identity import Identity
from p2pfed.core.model import ModelSpec
from p2pfed.errors import ConfigError
from tests.consortia import consortium

MANIFEST = consortium().manifest
CALENDAR = Calendar(1_700_000_000, 3600, 20, 30.0)
STRANGER = Identity.from_seed(b"s" * 32)


OTHERS = MANIFEST.members[1].certificates[0]
DER = base64.b64decode(OTHERS)
TWO = base64.b64encode(DER + base64.b64decode(MANIFEST.members[2].certificates[0])).decode()
LONG = base64.b64encode(b"\x30\x81" + DER[1:]).decode()
"""Another spelling of the certificate's length."""


def with_member(**changes: Any) -> dict[str, Any]:
    return {"members": (replace(MANIFEST.members[0], **changes), *MANIFEST.members[1:])}


def with_gossip(**changes: Any) -> dict[str, Any]:
    return {"gossip": replace(MANIFEST.gossip, **changes)}


def with_moments(mean: float, deviation: float) -> dict[str, Any]:
    moments = Moments((mean,) * 3, (deviation,) * 3)
    return {"contract": replace(MANIFEST.contract, scaling="contract", moments=moments)}


def test_the_example_is_right():
    check_manifest(MANIFEST)
    check_manifest(consortium(members=1).manifest)
    check_manifest(replace(MANIFEST, **with_member(endpoints=())))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"consortium": "C0" * 16}, "consortium is not 32 lower-case hex digits"),
        ({"name": ""}, "name is not 1 to 63 printable"),
        ({"name": "a\nb"}, "name is not 1 to 63 printable"),
        ({"version": 0}, "the first is 1"),
        ({"version": 2}, "previous is empty for version 1"),
        ({"previous": "00" * 32}, "previous is empty for version 1"),
        ({"expires": 1_700_000_000}, "expires before it is issued"),
        ({"members": ()}, "0 members"),
        ({"admins": ()}, "0 admins"),
        ({"threshold": 0}, "the threshold is 0"),
        ({"threshold": 4}, "the threshold is 4, with 3 admins"),
        ({"admins": (Admin("a", "xx"), *MANIFEST.admins)}, "admin 'a': the name or the key"),
        ({"admins": (*MANIFEST.admins, Admin("x", MANIFEST.admins[0].key))}, "admin key .* is listed twice"),
        ({"admins": (*MANIFEST.admins, Admin("admin-0", STRANGER.public_key.hex()))}, "admin name 'admin-0' is listed"),
        (with_member(name="bank 0"), "member 'bank 0': a name has"),
        (with_member(name="BANK-1"), "member name 'bank-1' is listed twice"),
        (with_member(key=MANIFEST.members[1].key), "member key .* is listed twice"),
        (with_member(key="0" * 63), "the key is not 64"),
        (with_member(certificates=()), "lists 0 certificates, one or two are needed"),
        (with_member(certificates=("MA==", "MAE=", "MAI=")), "lists 3 certificates"),
        (with_member(certificates=MANIFEST.members[1].certificates), "certificate .* is listed twice"),
        (with_member(certificates=("not base64!",)), "a certificate is not base64 of DER"),
        (with_member(certificates=("AAAA",)), "a certificate is not base64 of DER"),
        (with_member(certificates=(OTHERS[:-2] + ("d=" if OTHERS[-2] == "c" else "x="),)), "in its one spelling"),
        (with_member(certificates=(OTHERS + "\n",)), "in its one spelling"),
        (with_member(certificates=(TWO,)), "of one certificate"),
        (with_member(certificates=(LONG,)), "of one certificate"),
        (with_member(certificates=("MA==",)), "a certificate is not base64 of DER"),
        (with_member(requested=-1), "member 'bank-0': the time of its request is not Unix seconds"),
        (with_moments(1e308, 1.0), "the feature contract: a mean or deviation is no payment's: beyond 1e"),
        (with_moments(0.0, 1e308), "the feature contract: a mean or deviation is no payment's: beyond 1e"),
        (with_moments(0.0, 1e-300), "or a deviation below 1e-20"),
        (with_member(certificates=(base64.b64encode(b"0" * 5000).decode(),)), "a certificate is not base64 of DER"),
        (with_member(endpoints=("nowhere",)), "member 'bank-0': 'nowhere' is not an address"),
        (with_member(endpoints=("a:1",) * 9), "more than 8 endpoints"),
        (with_gossip(rule=""), "unknown merge rule '': choose balance"),
        (with_gossip(rule="nearest"), "unknown merge rule 'nearest'"),
        (with_gossip(rule="nna:x"), "the number of attackers in a merge"),
        (with_gossip(rule="os:abort"), "merge rule 'os:abort' names code"),
        (with_gossip(fanout=0), "fanout is below 1"),
        (with_gossip(heartbeat_seconds=0.0), "heartbeat_seconds"),
        (with_gossip(heartbeat_seconds=301.0), "heartbeat_seconds"),
        (with_gossip(round_interval_seconds=-1.0), "round_interval_seconds is negative"),
        (with_gossip(adoption_seconds=-1.0), "adoption_seconds is negative"),
        (with_gossip(publish_min_frauds=-1), "publish_min_frauds is negative"),
        (with_gossip(topology="star"), "topology 'star' is not random"),
        (with_gossip(topology="regular:0"), "'regular:0': no connected graph gives 3 members 0 neighbours"),
        (with_gossip(edges=(("bank-0", "bank-1"),)), "topology 'random' has no list of edges"),
        (with_gossip(topology="edges", edges=(("bank-0", "bank-9"),)), "names 'bank-9', who is not a member"),
        (with_gossip(topology="edges", edges=(("bank-0", "bank-1"),)), "gives 'bank-2' no neighbour"),
        (with_gossip(topology="edges", edges=(("bank-0", "bank-0"),)), "makes 'bank-0' its own neighbour"),
        ({"model": ModelSpec("mlp", 4, (4,), 0.0)}, "4 inputs, the feature contract gives 3"),
        ({"seed": -1}, "seed is out of range"),
        ({"from_cycle": 1}, "from_cycle is 0 in version 1"),
        ({"from_cycle": -1}, "from_cycle is out of range"),
        ({"generation_cycle": 1}, "the generation or the calendar begins in another cycle after it"),
        ({"calendar": replace(CALENDAR, rounds=200)}, "takes 6000 s, longer than the 3600 s .* at most 120 rounds fit"),
        ({"calendar": replace(CALENDAR, every=2**50)}, "every not a period of up to a year"),
        ({"calendar": replace(CALENDAR, anchor=10**400)}, "anchor is not Unix seconds"),
        ({"calendar": replace(CALENDAR, rounds=0)}, "a cycle has a round at least"),
        ({"calendar": replace(CALENDAR, before=5)}, "first or before is out of range"),
        ({"calendar": replace(CALENDAR, first=5)}, "the calendar begins in another cycle after it"),
        ({"calendar": replace(CALENDAR, skipped=(CALENDAR.anchor + 1,))}, "no cycle begins at"),
        (
            {"calendar": CALENDAR, "training": replace(MANIFEST.training, local_steps=0)},
            "a round of a calendar needs local_steps",
        ),
        ({"generation": -1}, "generation or seed is out of range"),
        ({"seed": 8}, "initial_sha256 is not the digest"),
        ({"initial_sha256": ""}, "initial_sha256 is not the digest"),
        ({"model": ModelSpec("mlp", 3, (10**9, 10**9), 0.0)}, "more than 20000000 parameters"),
    ],
)
def test_a_contradiction_is_named(changes, complaint):
    with pytest.raises(ManifestError, match=complaint):
        check_manifest(replace(MANIFEST, **changes))


def test_every_problem_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        check_manifest(replace(MANIFEST, threshold=9, expires=0, **with_gossip(fanout=0)))
    assert len(caught.value.problems) == 3
