"""`p2pfed join` of a manifest that does not follow the one before: the sentence names the way out, and it works."""

import json
import shutil

import pytest

from p2pfed.cli import run
from p2pfed.core import record
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
