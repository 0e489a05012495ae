"""The command line: the founding ceremony from `init` to `join`, checks, data, scores, and how it refuses."""

import json
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import p2pfed
from p2pfed.cli import COMMANDS, run
from p2pfed.core.consortium import parse_signed
from p2pfed.core.contract import FeatureContract, Scaler
from p2pfed.core.joining import open_join_request
from p2pfed.errors import Unavailable
from p2pfed.learning.bundle import ModelBundle

BANKS = ("bank-a", "bank-b", "bank-c")


def payments(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    fraud = rng.random(rows) < 0.1
    return pd.DataFrame(
        {
            "payment_id": np.arange(rows),
            "when": 1_700_000_000 + np.arange(rows) * 600,
            "amount": np.round(np.exp(rng.normal(3 + fraud, 1)), 2),
            "channel": rng.choice(["chip", "online"], rows),
            "hour": rng.integers(0, 24, rows),
            "fraud": fraud.astype(int),
        }
    )


def configuration(name: str) -> str:
    return (
        f"version: 1\nnode: {{name: {name}, state_dir: state}}\n"
        "peers: {listen: '127.0.0.1:0', advertise: ['bank.example:7443']}\nadmin: {listen: null}\n"
        "data:\n  source: {kind: csv, path: payments.csv}\n  label: fraud\n  event_time: when\n  split: time\n"
    )


@pytest.fixture
def town(tmp_path, monkeypatch, said):
    """Three banks with data and keys, two admins, and a draft contract."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(BANKS):
        (tmp_path / name).mkdir()
        payments(600, seed).to_csv(tmp_path / name / "payments.csv", index=False)
        (tmp_path / name / "node.yaml").write_text(configuration(name))
    said("data", "describe", "bank-a/payments.csv", "--label", "fraud", "--time", "when", "--drop", "payment_id",
         "--contract", "draft.json")  # fmt: skip
    for name in BANKS:
        said("init", "-c", f"{name}/node.yaml", "--contract", "draft.json", "--no-measure")
    for admin in ("alice", "bob"):
        said("consortium", "key", admin)
    return tmp_path


def create(said, *more: object, banks: tuple[str, ...] = BANKS) -> str:
    requests = [a for name in banks for a in ("--request", f"{name}/state/join-request.json")]
    return said("consortium", "create", "test", *requests, "--admin", "alice.pub", "--admin", "bob.pub",
                "--threshold", "2", "--contract", "draft.json", *more)  # fmt: skip


def fingerprint(said, manifest: str) -> str:
    return json.loads(said("consortium", "show", manifest, "--json"))["fingerprint"]


# --- founding, succession ---------------------------------------------------------------------------------------------


def test_reputation_is_on_unless_the_founders_turn_it_off(town, said):
    for options, on in (((), True), (("--no-reputation",), False)):
        create(said, "-o", f"{on}.json", *options)
        assert (", without reputation" in said("consortium", "show", f"{on}.json")) is not on
        signed = parse_signed((town / f"{on}.json").read_bytes())
        assert signed.manifest.gossip.reputation is on


def test_from_keys_to_a_joined_manifest(town, said):
    create(said)
    said("consortium", "sign", "manifest-1.json", "--key", "alice.key")
    said("consortium", "sign", "manifest-1.json", "--key", "bob.key")
    told = fingerprint(said, "manifest-1.json")
    assert told in said("consortium", "verify", "manifest-1.json", "--fingerprint", told.lower())
    for name in BANKS:
        assert "3 members" in said("join", "-c", f"{name}/node.yaml", "--manifest", "manifest-1.json",
                                   "--fingerprint", told)  # fmt: skip
    check = ("check", "-c", "bank-b/node.yaml", "--set", "learning.rounds=10", "--json")
    checks = json.loads(said(*check))["checks"]
    assert " ".join(c["name"] for c in checks) == "configuration state disk history keys manifest reputation ports data"
    assert checks[-1]["train_rows"] == 420


def test_the_contract_is_scaled_by_the_median_of_the_banks(town, said):
    create(said)
    contract = parse_signed((town / "manifest-1.json").read_bytes()).manifest.contract
    assert [c.name for c in contract.columns] == ["amount", "channel", "hour"]
    assert contract.scaling == "contract"
    train = [payments(600, seed)[:420]["hour"] for seed in range(3)]
    assert contract.moments.means[1] == pytest.approx(np.median([hours.mean() for hours in train]), rel=1e-5)


def test_admins_and_the_bank_are_told_of_a_column_in_another_unit(town, said, capsys):
    cents = pd.read_csv(town / "bank-c/payments.csv")
    cents.assign(amount=cents.amount * 100).to_csv(town / "bank-c/payments.csv", index=False)
    said("init", "-c", "bank-c/node.yaml", "--contract", "draft.json", "--no-measure")
    told = create(said, "--key", "alice.key", "--key", "bob.key")
    assert told.count("look at ") == 1 and "look at bank-c: column 'amount': its values are about " in told
    trusted = ("--manifest", "manifest-1.json", "--fingerprint", fingerprint(said, "manifest-1.json"))
    assert "column" not in said("join", "-c", "bank-a/node.yaml", *trusted)
    assert "as `init` read them: column 'amount'" in said("join", "-c", "bank-c/node.yaml", *trusted)
    assert run(["check", "-c", "bank-c/node.yaml", "--set", "learning.rounds=10"]) == 78
    assert "column 'amount': its values are" in capsys.readouterr().out


def test_a_threshold_of_two_needs_two_signatures(town, said, refused):
    create(said, "--key", "alice.key")
    code, error = refused("consortium", "verify", "manifest-1.json")
    assert code == 78
    assert "signed by 1 of 2 needed admins of version 1: signatures of bob can be added" in error
    code, error = refused("join", "-c", "bank-a/node.yaml", "--manifest", "manifest-1.json",
                          "--fingerprint", fingerprint(said, "manifest-1.json"))  # fmt: skip
    assert code == 78
    assert not (town / "bank-a/state/manifests").exists()


def test_the_first_manifest_needs_its_fingerprint(town, said, refused):
    create(said, "--key", "alice.key", "--key", "bob.key")
    join = ("join", "-c", "bank-a/node.yaml", "--manifest", "manifest-1.json")
    assert refused(*join)[0] == 2
    other = fingerprint(said, "manifest-1.json")[::-1]
    assert refused(*join, "--fingerprint", other)[0] == 78


def test_a_bank_that_is_not_listed_is_not_permitted(town, said, refused):
    create(said, "--key", "alice.key", "--key", "bob.key", banks=BANKS[:2])
    code, error = refused("join", "-c", "bank-c/node.yaml", "--manifest", "manifest-1.json",
                          "--fingerprint", fingerprint(said, "manifest-1.json"))  # fmt: skip
    assert code == 77
    assert "send join-request.json to an admin" in error


def test_adding_and_removing_a_bank_makes_versions_that_members_follow(town, said, refused):
    signing = ("--key", "alice.key", "--key", "bob.key")
    create(said, *signing, banks=BANKS[:2])
    told = fingerprint(said, "manifest-1.json")
    said("join", "-c", "bank-a/node.yaml", "--manifest", "manifest-1.json", "--fingerprint", told)
    said("consortium", "add", "manifest-1.json", "--request", "bank-c/state/join-request.json", *signing)
    said("consortium", "verify", "manifest-2.json", "--previous", "manifest-1.json")
    assert "version 2, with 3 members" in said("join", "-c", "bank-a/node.yaml", "--manifest", "manifest-2.json")
    said("consortium", "remove", "manifest-2.json", "--member", "bank-b", "--key", "alice.key")
    code, error = refused("join", "-c", "bank-a/node.yaml", "--manifest", "manifest-3.json")
    assert code == 78
    assert "signed by 1 of 2 needed admins" in error
    said("consortium", "sign", "manifest-3.json", "--key", "bob.key")
    said("join", "-c", "bank-a/node.yaml", "--manifest", "manifest-3.json")
    assert refused("join", "-c", "bank-a/node.yaml", "--manifest", "manifest-2.json")[0] == 78
    assert refused("consortium", "remove", "manifest-3.json", "--member", "bank-b")[0] == 2


def test_a_new_certificate_of_a_member_is_listed_beside_the_old(town, said):
    create(said)
    (town / "bank-b/state/tls.pem").unlink()
    said("init", "-c", "bank-b/node.yaml")
    said("consortium", "add", "manifest-1.json", "--request", "bank-b/state/join-request.json")
    members = parse_signed((town / "manifest-2.json").read_bytes()).manifest.members
    assert [(len(m.certificates), m.training_rows) for m in members] == [(1, 256), (2, 256), (1, 256)]


def test_requests_without_moments_are_refused_unless_scaling_is_local(town, said, refused):
    for name in BANKS[:2]:
        (town / name / "state/join-request.json").unlink()  # what it says of the data is kept otherwise
        said("init", "-c", f"{name}/node.yaml")
    requests = [a for name in BANKS for a in ("--request", f"{name}/state/join-request.json")]
    draft = ("consortium", "create", "test", *requests, "--admin", "alice.pub", "--threshold", "1",
             "--contract", "draft.json")  # fmt: skip
    code, error = refused(*draft)
    assert code == 78
    assert "the join requests of bank-a, bank-b have no moments" in error
    said(*draft, "--scaling", "local")


def test_a_changed_join_request_is_refused(town, refused):
    path = town / "bank-a/state/join-request.json"
    path.write_text(path.read_text().replace("bank.example", "evil.example"))
    code, error = refused("consortium", "create", "x", "--request", path, "--admin", "alice.pub", "--threshold", "1",
                          "--contract", "draft.json")  # fmt: skip
    assert code == 78
    assert str(path) in error
    assert "changed after" in error


# --- init -------------------------------------------------------------------------------------------------------------


def test_init_again_keeps_what_the_join_request_says_of_the_data(town, said):
    path = town / "bank-b/state/join-request.json"
    before = path.read_bytes()
    assert "join-request.json\nbank-b" not in said("init", "-c", "bank-b/node.yaml")
    assert path.read_bytes() == before
    (town / "bank-b/state/tls.pem").unlink()
    assert f"wrote anew, send it again: {path}" in said("init", "-c", "bank-b/node.yaml")
    old, new = open_join_request(before), open_join_request(path.read_bytes())
    assert new.moments == old.moments is not None
    assert new.certificate != old.certificate


def test_init_does_not_replace_what_it_did_not_make(town, said, refused):
    path = town / "bank-b/state/join-request.json"
    foreign = (town / "bank-a/state/join-request.json").read_bytes()
    for text, why in ((b"notes", "this is not a join request"), (foreign, "made with another member key")):
        path.write_bytes(text)
        code, error = refused("init", "-c", "bank-b/node.yaml")
        assert code == 2
        assert str(path) in error and why in error
        assert path.read_bytes() == text
    said("init", "-c", "bank-b/node.yaml", "--force")
    assert open_join_request(path.read_bytes()).name == "bank-b"


def test_init_times_a_round_of_training(town, said, monkeypatch):
    monkeypatch.setattr("p2pfed.runtime.measuring.measure", lambda node, contract: 14.25)
    told = json.loads(said("init", "-c", "bank-b/node.yaml", "--contract", "draft.json", "--json"))
    assert (told["seconds_per_round"], told["training_rows"]) == (14.25, 256)
    said("init", "-c", "bank-b/node.yaml", "--contract", "draft.json", "--no-measure")
    kept = open_join_request((town / "bank-b/state/join-request.json").read_bytes())
    assert kept.seconds_per_round == 14.25


def test_a_round_that_cannot_be_timed_keeps_no_bank_out(town, capsys, monkeypatch):
    def fails(node, contract):
        raise Unavailable("TensorFlow is not installed here")

    monkeypatch.setattr("p2pfed.runtime.measuring.measure", fails)
    assert run(["init", "-c", "bank-b/node.yaml", "--contract", "draft.json", "--json"]) == 0
    said, told = capsys.readouterr()
    assert "says nothing of it: TensorFlow is not installed here" in told
    assert json.loads(said)["seconds_per_round"] is None


def test_a_draft_contract_is_not_replaced_unless_forced(town, said, refused):
    describe = ("data", "describe", "bank-a/payments.csv", "--label", "fraud", "--time", "when", "--drop", "hour",
                "--contract", "draft.json")  # fmt: skip
    code, error = refused(*describe)
    assert code == 2
    assert "draft.json exists and says something else" in error
    said(*describe, "--force")
    assert "hour" not in (town / "draft.json").read_text()


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_before_joining_ends_with_the_first_failure(town, refused, capsys):
    code = run(["check", "-c", "bank-a/node.yaml"])
    out = capsys.readouterr().out
    assert code == 77
    assert "FAIL  manifest" in out
    assert "ok    data" in out


def test_check_names_a_key_file_that_others_can_read(town, capsys):
    (town / "bank-a/state/member.key").chmod(0o644)
    assert run(["check", "-c", "bank-a/node.yaml", "--no-data"]) == 77
    assert "chmod 600" in capsys.readouterr().out


def test_check_refuses_a_blocklist_that_start_would_refuse(town, said, capsys):
    create(said, "--key", "alice.key", "--key", "bob.key")
    told = fingerprint(said, "manifest-1.json")
    said("join", "-c", "bank-a/node.yaml", "--manifest", "manifest-1.json", "--fingerprint", told)
    check = ("check", "-c", "bank-a/node.yaml", "--no-data", "--set", "learning.rounds=10", "--set")
    said(*check, "peers.blocklist=[bank-b]")
    assert run([*check, "peers.blocklist=[bank-z]"]) == 78
    assert "peers.blocklist: 'bank-z' is not a member" in capsys.readouterr().out


def test_check_finds_a_taken_port_and_a_broken_file(town, capsys):
    (town / "bank-a/payments.csv").write_text("when,fraud\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run(["check", "-c", "bank-a/node.yaml", "--set", f"peers.listen=127.0.0.1:{port}", "--json"])
    failed = {c["name"]: c["message"] for c in json.loads(capsys.readouterr().out)["checks"] if not c["ok"]}
    assert failed.keys() == {"manifest", "ports"}
    assert str(port) in failed["ports"]


# --- data and scores --------------------------------------------------------------------------------------------------


def test_make_partition_describe(tmp_path, said):
    made = tmp_path / "payments.parquet"
    said("data", "make", made, "--rows", 3000, "--banks", 2, "--days", 30)
    said("data", "partition", made, "--label", "fraud", "--banks", 2, "--how", "by:bank", "-o", tmp_path / "banks")
    parts = [pd.read_parquet(tmp_path / "banks" / f"bank-{n}.parquet") for n in (1, 2)]
    assert sum(map(len, parts)) == 3000
    reply = json.loads(said("data", "describe", made, "--label", "fraud", "--time", "event_time", "--json"))
    assert reply["rows"] == 3000
    kinds = {c["name"]: c["kind"] for c in reply["columns"]}
    assert kinds.items() >= {"fraud": "label", "event_time": "event_time", "amount": "numeric"}.items()


def test_describe_takes_the_source_from_the_configuration(town, said):
    text = said("data", "describe", "-c", "bank-a/node.yaml")
    assert text.startswith("600 payments, ")
    assert "from 2023-11-14 to 2023-11-19" in text


@pytest.fixture
def scoring_bank(town, said):
    create(said)
    manifest = parse_signed((town / "manifest-1.json").read_bytes()).manifest
    contract: FeatureContract = manifest.contract
    scaler = Scaler(contract.moments.means, contract.moments.deviations, contract.moments.means)
    vector = manifest.model.initial_weights(7).vector
    bundle = ModelBundle(manifest.model, contract, scaler, 0.5, vector, {"cycle": 12, "round": 3})
    (town / "bank-a/state/model.p2pfed").write_bytes(bundle.to_bytes())
    return town


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_score_writes_a_row_for_each_payment(scoring_bank, said, suffix):
    frame = payments(200, 9).drop(columns=["fraud", "when"])
    frame.loc[3, "amount"] = np.nan
    frame.to_csv("new.csv", index=False)
    told = json.loads(said("score", "new.csv", "-o", f"scored.{suffix}", "-c", "bank-a/node.yaml",
                           "--keep", "payment_id", "--json"))  # fmt: skip
    scored = pd.read_csv("scored.csv") if suffix == "csv" else pd.read_parquet("scored.parquet")
    assert list(scored.columns) == ["row", "payment_id", "score", "threshold", "alert", "model"]
    assert set(scored["threshold"]) == {told["threshold"]} == {0.5}
    weights = ModelBundle.from_bytes((scoring_bank / "bank-a/state/model.p2pfed").read_bytes()).weights_sha256
    assert set(scored["model"]) == {told["model"]} == {f"12.3-{weights[:8]}"}
    assert (told["cycle"], told["round"], told["weights_sha256"]) == (12, 3, weights)
    assert list(scored["row"]) == list(range(200))
    assert list(scored["score"].isna().to_numpy().nonzero()[0]) == [3]
    assert told["unscored"] == 1
    assert told["alerts"] == scored["alert"].sum() == (scored["score"] > 0.5).sum() > 0
    assert not list(scoring_bank.glob("*.part"))


def test_scores_are_written_over_only_with_force(scoring_bank, said, refused):
    payments(20, 9).to_csv("new.csv", index=False)
    (scoring_bank / "scored.csv").write_text("scores of yesterday")
    command = ("score", "new.csv", "-o", "scored.csv", "-c", "bank-a/node.yaml")
    code, error = refused(*command)
    assert code == 2 and "scored.csv exists" in error and "--force" in error
    assert (scoring_bank / "scored.csv").read_text() == "scores of yesterday"
    said(*command, "--force")
    assert len(pd.read_csv("scored.csv")) == 20


def test_score_refuses_what_it_cannot_do_and_leaves_no_half_file(scoring_bank, refused):
    payments(10, 1).drop(columns="hour").to_csv("new.csv", index=False)
    code, error = refused("score", "new.csv", "-o", "out.csv", "-c", "bank-a/node.yaml")
    assert code == 78
    assert "no column 'hour'" in error
    assert refused("score", "new.csv", "-o", "out.xls", "-c", "bank-a/node.yaml")[0] == 2
    assert refused("score", "new.csv", "-o", "out.csv", "-c", "bank-b/node.yaml")[0] == 2
    (scoring_bank / "bank-a/state/model.p2pfed").write_bytes(b"P2FB\x02\0\0\0[]")
    assert refused("score", "new.csv", "-o", "out.csv", "-c", "bank-a/node.yaml")[0] == 65
    assert not list(scoring_bank.glob("out.*"))


# --- the program itself -----------------------------------------------------------------------------------------------


def test_every_command_has_help(said):
    for command, _ in COMMANDS:
        assert said(*command.split(), "--help").startswith("Usage: p2pfed ")


def test_version(said):
    assert said("--version") == f"p2pfed {p2pfed.__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["consortium", "nonsense"], ["status", "--nonsense"], ["score"]])
def test_a_command_line_that_makes_no_sense_ends_with_2(refused, arguments):
    assert refused(*arguments)[0] == 2


def test_the_quick_verbs_import_nothing_heavy(tmp_path):
    """Version and status are asked by scripts every few seconds."""
    code = (
        "import sys; from p2pfed.cli import run; run(['status', '-c', sys.argv[1]]);"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'numpy', 'pandas', 'aiohttp', 'nacl', 'rich'}))"
    )
    (tmp_path / "node.yaml").write_text("version: 1\nnode: {name: bank-a, state_dir: .}\n")
    command = [sys.executable, "-c", code, str(tmp_path / "node.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_closed_standard_output_is_no_traceback(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert run(["--version"]) == 0
