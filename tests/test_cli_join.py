"""`p2pfed join` of a manifest that does not follow the one before: the sentence names the way out, and it works."""

import json
import shutil
from dataclasses import replace

import pytest

from p2pfed.cli import run
from p2pfed.cli.manifests import read_identity
from p2pfed.core import record
from p2pfed.core.consortium import parse_signed
from p2pfed.core.succession import earliest_change, in_force
from p2pfed.errors import ConfigError
from p2pfed.runtime.enrolment import check_code
from tests.consortia import next_version, sign
from tests.data.banks import LOCAL

CONFIG = "version: 1\nnode: {name: bank-a, state_dir: state}\ndata: {source: {kind: csv, path: p.csv}, label: fraud"


@pytest.fixture
def founded(tmp_path, monkeypatch, said):
    """Founds a consortium anew in `manifest-1.json`, and gives how a bank joins it for the first time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "node.yaml").write_text(CONFIG + ", split: stratified}\n")
    (tmp_path / "draft.json").write_bytes(record.readable(LOCAL))
    said("init")
    said("consortium", "key", "alice")

    def found(*more: str) -> tuple[str, ...]:
        said("consortium", "create", "test", "--request", "state/join-request.json", "--admin", "alice.pub",
             "--threshold", 1, "--contract", "draft.json", "--scaling", "local", "--key", "alice.key",
             *more)  # fmt: skip
        fingerprint = json.loads(said("consortium", "show", "manifest-1.json", "--json"))["fingerprint"]
        return "join", "--manifest", "manifest-1.json", "--fingerprint", fingerprint

    return found


def test_a_next_version_whose_rule_is_code_is_joined_and_renewed_but_not_chosen_without_allow_code(
    founded, tmp_path, said, refused
):
    said(*founded())
    first = parse_signed((tmp_path / "manifest-1.json").read_bytes()).manifest
    gossip = replace(first.gossip, rule="theirs_that_is_not_here:Mean")
    begins = earliest_change(first, first.issued)
    second = sign(next_version(first, gossip=gossip, from_cycle=begins), read_identity(tmp_path / "alice.key"))
    (tmp_path / "manifest-2.json").write_bytes(second.to_bytes())
    said("join", "--manifest", "manifest-1.json", "--fingerprint", sign(first).fingerprint)
    assert "joined test, version 2" in said("join", "--manifest", "manifest-2.json")
    assert "theirs_that_is_not_here:Mean is code" in said("check", "--no-data")
    with pytest.raises(ConfigError, match="version 2 of test: .* names code, .* say --allow-code"):
        check_code(in_force((first, second.manifest), first.issued))  # as `start` does
    said("consortium", "renew", "manifest-2.json", "--key", "alice.key")
    code, error = refused("consortium", "change", "manifest-1.json", "--rule", "krumm:2", "-o", "other.json")
    assert code == 78 and "names code" in error


def test_a_bank_of_another_consortium_is_told_how_to_leave_it(founded, tmp_path, said, refused):
    said(*founded())
    join = founded("--force")
    for arguments in (join, join[:3]):
        code, error = refused(*arguments)
        assert code == 78 and "manifest-1.json is of another consortium" in error
        assert f"if this bank was never started, remove {tmp_path / 'state/manifests'} and join again" in error
        assert f"else stop it, move {tmp_path / 'state'} away, run `p2pfed init`" in error
    shutil.rmtree(tmp_path / "state/manifests")
    assert "joined test, version 1" in said(*join)
    assert run(["check", "--no-data"]) == 0
    (tmp_path / "state").rename(tmp_path / "old")
    said("init")
    assert refused(*join)[0] == 77, "the manifest lists the old key"
    assert "joined test, version 1" in said(*founded("--force"))
    assert run(["check", "--no-data"]) == 0
