"""Join requests that an admin is sent: none takes another bank's certificate, or brings back one that was replaced."""

import base64
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from p2pfed.core import record
from p2pfed.core.consortium import parse_signed
from p2pfed.core.identity import JOIN_DOMAIN
from p2pfed.core.joining import _body, _JoinFile, open_join_request, seal_join_request
from p2pfed.core.types import DAY
from p2pfed.store.credentials import load_member_key
from p2pfed.store.state_dir import StateDir
from tests.data.banks import LOCAL

CONFIG = "version: 1\nnode: {{name: {name}, state_dir: {folder}}}\npeers: {{advertise: ['{folder}.example:1']}}\n"
DATA = "data: {source: {kind: csv, path: p.csv}, label: fraud, split: stratified}\n"


@pytest.fixture
def bank(tmp_path, monkeypatch, said):
    """Makes a bank's keys and request; gives its state directory."""
    monkeypatch.chdir(tmp_path)

    def init(folder: str, name: str = "") -> StateDir:
        (tmp_path / f"{folder}.yaml").write_text(CONFIG.format(name=name or folder, folder=folder) + DATA)
        said("init", "-c", f"{folder}.yaml")
        return StateDir(tmp_path / folder)

    return init


@pytest.fixture
def founded(bank, tmp_path, said):
    """`manifest-1.json` of bank-a, and how it is founded."""
    (tmp_path / "draft.json").write_bytes(record.readable(LOCAL))
    state = bank("bank-a")
    said("consortium", "key", "alice")
    return state, lambda *more, name="cards": (
        "consortium", "create", name, "--admin", "alice.pub", "--threshold", 1, "--contract", "draft.json",
        "--scaling", "local", "--key", "alice.key", "--request", state.root / "join-request.json", *more,
    )  # fmt: skip


def add(path) -> tuple[object, ...]:
    return "consortium", "add", "manifest-1.json", "--key", "alice.key", "--request", path


def asked(state: StateDir):
    return open_join_request((state.root / "join-request.json").read_bytes())


def sealed(state: StateDir, **changes: object) -> bytes:
    """The bank's request with other words, as whoever has its key can sign them, whatever `p2pfed` makes."""
    request = replace(asked(state), **changes)
    return record.readable(_JoinFile(request, load_member_key(state).sign(JOIN_DOMAIN + _body(request)).hex()))


def test_no_bank_lists_the_certificate_of_another_in_whatever_spelling(founded, bank, said, refused, tmp_path):
    state, create = founded
    said(*create())
    mallory, theirs = bank("mallory"), asked(state).certificate
    der = base64.b64decode(theirs)
    padded = theirs.rstrip("=")
    loose = padded[:-1] + chr(ord(padded[-1]) + 1) + "=" * (len(theirs) - len(padded))
    spellings = [theirs, theirs + "\n", base64.b64encode(base64.b64decode(asked(mallory).certificate) + der).decode()]
    if padded != theirs:  # bits that base64 does not use
        assert base64.b64decode(loose) == der
        spellings.append(loose)
    for spelling in spellings:
        (tmp_path / "evil.json").write_bytes(sealed(mallory, certificate=spelling))
        code, error = refused(*add("evil.json"))
        assert code == 78 and ("is listed twice" in error or "in its one spelling" in error)


def test_an_old_request_does_not_bring_back_a_certificate(founded, said, refused, tmp_path, monkeypatch):
    state, create = founded
    said(*create())
    old = (state.root / "join-request.json").read_bytes()
    (tmp_path / "old.json").write_bytes(old)
    state.tls.unlink()
    assert "wrote anew, send it again" in said("init", "-c", "bank-a.yaml")
    assert asked(state).made > open_join_request(old).made
    said(*add("bank-a/join-request.json"))
    (member,) = parse_signed((tmp_path / "manifest-2.json").read_bytes()).manifest.members
    assert len(member.certificates) == 2 and member.requested == asked(state).made
    for verb in ("add", "change"):
        code, error = refused("consortium", verb, "manifest-2.json", "--request", "old.json")
        assert code == 78 and "old.json: the join request of 'bank-a' is older" in error
    (tmp_path / "timeless.json").write_bytes(sealed(state, made=None))
    code, error = refused("consortium", "add", "manifest-2.json", "--request", "timeless.json")
    assert code == 78 and "does not tell when it was made" in error
    (state.root / "join-request.json").unlink()  # the way out
    monkeypatch.setattr("p2pfed.cli.bank.time", SimpleNamespace(time=lambda: time.time() + 10))
    said("init", "-c", "bank-a.yaml")
    said("consortium", "add", "manifest-2.json", "--request", "bank-a/join-request.json")


def test_a_request_without_a_time_founds_and_joins_and_is_written_anew_with_one(founded, bank, said, tmp_path):
    state, create = founded
    (state.root / "join-request.json").write_bytes(sealed(state, made=None))
    said(*create())
    assert "requested" not in (tmp_path / "manifest-1.json").read_text()
    said(*add("bank-a/join-request.json"), "-o", "same.json", "--days", 5)
    assert "wrote anew" in said("init", "-c", "bank-a.yaml")
    assert "wrote anew" not in said("init", "-c", "bank-a.yaml")
    said(*add("bank-a/join-request.json"))


def test_a_request_is_for_one_consortium_once_its_bank_has_joined(founded, said, refused, tmp_path):
    state, create = founded
    said(*create())
    told = json.loads(said("consortium", "show", "manifest-1.json", "--json"))["fingerprint"]
    said("join", "-c", "bank-a.yaml", "--manifest", "manifest-1.json", "--fingerprint", told)
    state.tls.unlink()
    said("init", "-c", "bank-a.yaml")
    consortium = parse_signed((tmp_path / "manifest-1.json").read_bytes()).manifest.consortium
    assert asked(state).consortium == consortium
    said(*add("bank-a/join-request.json"))
    code, error = refused(*create("-o", "other.json"))
    assert code == 78 and "was made for a consortium that this bank had joined" in error


def test_a_request_of_the_future_is_refused_and_init_makes_a_good_one(founded, refused, said):
    state, create = founded
    request = replace(asked(state), made=int(time.time() + 2 * DAY))
    (state.root / "join-request.json").write_bytes(seal_join_request(load_member_key(state), request))
    code, error = refused(*create())
    assert code == 78 and "bank-a made it in the future: set that bank's clock" in error
    assert "wrote anew, send it again" in said("init", "-c", "bank-a.yaml")
    said(*create())
    assert abs(asked(state).made - time.time()) < 60


def test_an_admin_is_shown_names_that_look_alike(founded, bank, said, refused):
    _, create = founded
    bank("one", "bank-1")
    told = said(*create("--request", "one/join-request.json"))
    assert "easily taken" not in told
    bank("ell", "bank-l")
    assert "look at bank-1 and bank-l: these banks are easily taken for each other" in said(
        *add("ell/join-request.json")
    )
    code, error = refused(*create("--force", name="c\u0430rds"))
    assert code == 78 and "'c\\u0430rds' mixes letters of several scripts" in error and "choose another" in error
