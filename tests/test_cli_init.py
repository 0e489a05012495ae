"""The first steps on an empty machine: `p2pfed init` without data, and an admin's key."""

import json

import pytest

from p2pfed.core import record
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.identity import Identity
from p2pfed.core.joining import JoinRequest, seal_join_request
from tests.consortia import member


def test_init_writes_a_sample_that_parses_and_keeps_what_exists(tmp_path, said):
    config = tmp_path / "new" / "node.yaml"
    said("init", "-c", config, "--name", "bank-z", "--advertise", "z.example:7443")
    key = (tmp_path / "new/state/member.key").read_bytes()
    assert (tmp_path / "new/state/member.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new/state/tls.pem").stat().st_mode & 0o777 == 0o600
    again = json.loads(said("init", "-c", config, "--json"))
    assert again["name"] == "bank-z"
    assert (tmp_path / "new/state/member.key").read_bytes() == key


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "`p2pfed init --name BANK` makes it"),
        (("--name", "bank-z", "--advertise", "nowhere"), "--advertise: 'nowhere' is not an address"),
    ],
)
def test_init_without_what_it_needs(tmp_path, refused, arguments, expected):
    code, error = refused("init", "-c", tmp_path / "node.yaml", *arguments)
    assert code == 2
    assert expected in error
    assert list(tmp_path.iterdir()) == []


def test_an_admin_key_is_never_overwritten(tmp_path, said, refused):
    said("consortium", "key", "alice", "--folder", tmp_path)
    assert (tmp_path / "alice.key").stat().st_mode & 0o777 == 0o600
    assert refused("consortium", "key", "alice", "--folder", tmp_path)[0] == 2


def test_banks_with_far_more_frauds_or_far_fewer_rows_than_usual_are_pointed_out_and_shown(tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    column = FeatureColumn("amount", "numeric", (), "none")
    draft = FeatureContract((column,), "fraud", "local", Moments((), ()), 10.0)
    (tmp_path / "draft.json").write_bytes(record.readable(draft))
    said("consortium", "key", "alice")
    requests: list[str] = []
    for name, *declared in (
        ("bank-a", 256.0, 16_384),
        ("bank-b", 512.0, 512),
        ("bank-c", 0.25, 1024),
        ("bank-d", None, None),
        ("bank-e", 128.0, 16_384),
        ("bank-f", 512.0, 32_768),
    ):
        bank = Identity.from_seed(name.encode().ljust(32))
        entry = member(name, bank)
        moments = Moments((0.5,), (2.0,))
        told = JoinRequest(name, entry.key, entry.certificates[0], entry.endpoints, moments, None, *declared)
        (tmp_path / f"{name}.json").write_bytes(seal_join_request(bank, told))
        requests += ["--request", f"{name}.json"]
    text = said("consortium", "create", "test", *requests, "--admin", "alice.pub", "--threshold", "1",
                "--contract", "draft.json", "--key", "alice.key")  # fmt: skip
    assert text.count("look at ") == 3, text
    assert "look at bank-d: it did not tell how many training rows it has: the others take it for a quarter" in text
    assert "look at bank-b: it has about 512 training rows, where 16,384 are usual: are these all?" in text
    assert (
        "look at bank-c: about 80% of its payments are frauds, where 1 in 363 is usual: are its labels right?" in text
    )
    shown = said("consortium", "show", "manifest-1.json")
    assert [line for line in shown.splitlines() if "bank-c" in line and "1,024 " in line and "80%" in line]
    assert [line for line in shown.splitlines() if "bank-d" in line and " -  " in line and "unknown" in line]
