"""`p2pfed join` of a manifest that does not follow the one before: the sentence names the way out, and it works."""

import json
import shutil

import pytest

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
        assert "move everything out of" in error and "but member.key, tls.pem and join-request.json" in error
    state = tmp_path / "state"
    for path in state.iterdir():
        if path.name not in ("member.key", "tls.pem", "join-request.json"):
            shutil.move(path, tmp_path / path.name)
    assert "joined test, version 1" in said(*join)
