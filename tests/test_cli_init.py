"""The first steps on an empty machine: `p2pfed init` without data, and an admin's key."""

import json

import pytest


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
