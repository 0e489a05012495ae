"""The admins' command line and the calendar: when a consortium trains, and what is refused, with the numbers."""

import json
import time
from dataclasses import replace

import pytest

from p2pfed.cli import run
from p2pfed.core import record
from p2pfed.core.consortium import SignedManifest, parse_signed
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.gossip.calendar import FREE
from p2pfed.core.identity import Identity
from p2pfed.core.joining import JoinRequest, open_join_request, seal_join_request
from p2pfed.core.model import DEFAULT_DROPOUT, DEFAULT_HIDDEN, DEFAULT_TRAINING
from p2pfed.store.credentials import load_member_key
from p2pfed.store.state_dir import StateDir
from tests.consortia import member

DRAFT = FeatureContract((FeatureColumn("amount", "numeric", (), "none"),), "fraud", "local", Moments((), ()), 10.0)
HOUR = 3600


def request(name: str, seconds: float | None, *declared: float) -> bytes:
    bank = Identity.from_seed(name.encode().ljust(32))
    entry = member(name, bank)
    told = (entry.key, entry.certificates[0], entry.endpoints, Moments((0.5,), (2.0,)), seconds, *declared)
    return seal_join_request(bank, JoinRequest(name, *told))


@pytest.fixture
def office(tmp_path, monkeypatch, said):
    """Three banks' join requests, of which the second measured the longest rounds, two admins and a draft contract."""
    monkeypatch.chdir(tmp_path)
    for name, seconds in (("bank-a", 2.0), ("bank-x", 14.2), ("bank-c", None)):
        (tmp_path / f"{name}.json").write_bytes(request(name, seconds))
    (tmp_path / "draft.json").write_bytes(record.readable(DRAFT))
    for admin in ("alice", "bob"):
        said("consortium", "key", admin)
    return tmp_path


def founding(*more: object) -> tuple[object, ...]:
    requests = [a for name in ("bank-a", "bank-x", "bank-c") for a in ("--request", f"{name}.json")]
    return ("consortium", "create", "test", *requests, "--admin", "alice.pub", "--admin", "bob.pub",
            "--threshold", "2", "--contract", "draft.json", *more)  # fmt: skip


def manifest(office, version: int = 1):
    return parse_signed((office / f"manifest-{version}.json").read_bytes()).manifest


# --- create -----------------------------------------------------------------------------------------------------------


def test_a_consortium_trains_by_a_calendar_made_for_its_slowest_bank(office, said):
    before = time.time()
    text = said(*founding())
    made = manifest(office)
    assert before + 15 * 60 <= made.calendar.anchor <= time.time() + 16 * 60
    assert (made.calendar.every, made.calendar.rounds, made.calendar.round_seconds) == (24 * HOUR, 60, 43.0)
    assert made.training.decay_rounds == (45,)
    assert made.training.rate(45) == 5 * made.training.rate(46) == 5 * made.training.rate(60 * 365)
    assert "60 rounds of 43 s, 43m00s a cycle, every 1d; the first 1d without rest" in text
    assert text.count(" UTC, ") == 3


def test_what_init_measures_is_what_founders_get_by_default(office, said):
    said(*founding())
    made = manifest(office)
    assert replace(made.training, decay_rounds=()) == DEFAULT_TRAINING
    assert (made.model.hidden, made.model.dropout) == (DEFAULT_HIDDEN["mlp"], DEFAULT_DROPOUT)


def test_more_steps_need_longer_rounds(office, said):
    said(*founding("--local-steps", 200))
    assert manifest(office).calendar.round_seconds == 86.0


def test_rounds_are_never_shorter_than_gossip_needs(office, said):
    (office / "bank-x.json").write_bytes(request("bank-x", 0.3))
    (office / "bank-a.json").write_bytes(request("bank-a", None))
    said(*founding())
    assert manifest(office).calendar.round_seconds == 10.0


@pytest.mark.parametrize(
    ("text", "anchor"),
    [("2100-01-01T08:00+01:00", 4102470000), ("2100-01-01T07:00Z", 4102470000), ("4102470000", 4102470000)],
)
def test_the_first_cycle_is_a_time_with_its_zone(office, said, text, anchor):
    said(*founding("--first-cycle", text, "--every", "90m", "--rounds", 20, "--round-seconds", 60))
    calendar = manifest(office).calendar
    assert (calendar.anchor, calendar.every, calendar.rounds, calendar.round_seconds) == (anchor, 5400, 20, 60.0)
    shown = json.loads(said("consortium", "show", "manifest-1.json", "--json"))
    begins = [anchor + 1200 * k for k in range(3)]  # in the first 90 minutes one cycle follows the other
    assert shown["next_cycles"] == [{"cycle": k, "begins": float(b)} for k, b in enumerate(begins)]
    assert shown["cycle_seconds"] == 1200.0
    text = said("consortium", "show", "manifest-1.json")
    assert "20 rounds of 60 s, 20m00s a cycle, every 1h30m" in text
    assert "2100-01-01 07:20:00 UTC" in text


def test_the_first_cycle_may_be_said_from_now(office, said):
    before = int(time.time())
    said(*founding("--first-cycle", "+2h"))
    assert before + 2 * HOUR <= manifest(office).calendar.anchor <= time.time() + 2 * HOUR


def test_without_cycles_each_bank_is_told_how_many_rounds(office, said):
    text = said(*founding("--every", "0", "--rounds", 40, "--local-steps", 0, "--round-interval", 1))
    assert manifest(office).calendar == FREE
    assert manifest(office).training.decay_rounds == ()
    assert "must set learning.rounds to 40" in text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--every", "0"), "say how many --rounds"),
        (("--every", "0", "--rounds", 9, "--round-seconds", 20), "--round-seconds mean nothing then"),
        (("--every", "24"), "--every 24: expected a number with its unit, such as 24h"),
        (("--first-cycle", "tomorrow"), "--first-cycle tomorrow: expected a time such as"),
        (("--first-cycle", "2100-01-01T08:00"), "say the zone too, such as 2100-01-01T08:00Z"),
        (("--first-cycle", "2001-01-01T08:00Z"), "2001-01-01 08:00:00 UTC, "),
        (("--first-cycle", "2001-01-01T08:00Z"), "is over"),
        (("--local-steps", 0), "--local-steps 0 trains a whole pass"),
        (("--round-interval", 5), "--round-interval is for --every 0"),
        (("--round-seconds", 12), "bank-x needs 14.2 s a round to train; say --round-seconds 43"),
        (
            ("--local-steps", 400, "--round-seconds", 50),
            "bank-x needs 56.8 s a round to train; say --round-seconds 171, or fewer --local-steps",
        ),
        (("--round-seconds", -5), "--round-seconds -5: a round takes some time; say a number of seconds, at least 0.1"),
        (("--round-seconds", 0), "--round-seconds 0: a round takes some time"),
        (("--round-seconds", "nan"), "--round-seconds nan: a round takes some time"),
        (("--round-seconds", "inf"), "--round-seconds inf: a round takes some time"),
    ],
)
def test_a_calendar_that_makes_no_sense_is_refused(office, refused, options, complaint):
    code, error = refused(*founding(*options))
    assert code == 2
    assert complaint in error
    assert not (office / "manifest-1.json").exists()


@pytest.mark.parametrize("seconds", [-5, -0.1, 0])
def test_rounds_of_no_length_are_refused_if_no_bank_measured(office, refused, seconds):
    for name in ("bank-a", "bank-x"):
        (office / f"{name}.json").write_bytes(request(name, None))
    code, error = refused(*founding("--round-seconds", seconds))
    assert code == 2
    assert f"--round-seconds {seconds:g}: a round takes some time" in error


def test_a_cycle_longer_than_its_period_is_refused_with_the_numbers(office, refused):
    code, error = refused(*founding("--every", "30m"))
    assert code == 78
    assert "60 rounds of 43 s takes 2580 s, longer than the 1800 s from one to the next; at most 41 rounds fit" in error


# --- nothing is overwritten silently ----------------------------------------------------------------------------------


def test_a_manifest_is_not_replaced_unless_forced(office, said, refused):
    said(*founding("--first-cycle", "+1h"))
    before = (office / "manifest-1.json").read_bytes()
    code, error = refused(*founding("--first-cycle", "+2h"))
    assert code == 2
    assert "manifest-1.json exists and says something else" in error
    assert (office / "manifest-1.json").read_bytes() == before
    said(*founding("--first-cycle", "+2h", "--force"))
    assert (office / "manifest-1.json").read_bytes() != before


def test_rounds_too_short_for_gossip_are_told(office, capsys):
    (office / "bank-x.json").write_bytes(request("bank-x", 2.0))
    assert run([str(a) for a in founding("--round-seconds", 9, "--first-cycle", "+1h")]) == 0
    assert "--round-seconds 9: heartbeats and pulls have to fit into a round" in capsys.readouterr().err
    assert run([str(a) for a in founding("--round-seconds", 10, "--first-cycle", "+1h", "--force")]) == 0
    assert capsys.readouterr().err == ""


# --- renew, change ----------------------------------------------------------------------------------------------------

SIGN = ("--key", "alice.key", "--key", "bob.key")


@pytest.fixture
def founded(office, said):
    """A consortium that has trained for ten days: cycle 33 was the last, and 35 is the first that is a day ahead."""
    begun = int(time.time()) - 10 * 24 * HOUR - 60
    said(*founding("--first-cycle", "+1h"))
    first = manifest(office)
    calendar = replace(first.calendar, anchor=begun)
    signed = SignedManifest.unsigned(replace(first, calendar=calendar, issued=begun - HOUR))
    (office / "manifest-1.json").write_bytes(signed.to_bytes())
    said("consortium", "sign", "manifest-1.json", *SIGN)
    return office


def test_a_manifest_is_renewed_with_one_verb(founded, said):
    text = said("consortium", "renew", "manifest-1.json", "--days", 100, *SIGN)
    old, new = manifest(founded), manifest(founded, 2)
    assert (new.expires - new.issued) == 100 * 24 * HOUR
    assert time.strftime("expires %Y-%m-%d", time.gmtime(new.expires)) in text
    assert replace(new, version=1, previous="", issued=old.issued, expires=old.expires) == old
    said("consortium", "verify", "manifest-2.json", "--previous", "manifest-1.json")
    told = json.loads(said("consortium", "renew", "manifest-1.json", *SIGN, "--out", "other.json", "--json"))
    assert (told["manifest"], told["version"], told["needed"]) == ("other.json", 2, len(told["signed_by"]))


def test_admins_and_threshold_change_at_once(founded, said, refused):
    said("consortium", "key", "carol")
    text = said("consortium", "change", "manifest-1.json", "--remove-admin", "bob", "--add-admin", "carol.pub",
                "--threshold", 1, *SIGN)  # fmt: skip
    assert "cycle" not in text
    assert "signed by 0 of 1" not in text
    new = manifest(founded, 2)
    assert ([a.name for a in new.admins], new.threshold, new.from_cycle) == (["alice", "carol"], 1, 0)
    said("consortium", "verify", "manifest-2.json", "--previous", "manifest-1.json")
    code, error = refused("consortium", "change", "manifest-1.json", "--remove-admin", "dave")
    assert (code, "'dave' is no admin; the admins are alice, bob" in error) == (2, True)
    code, error = refused("consortium", "change", "manifest-1.json", "--remove-admin", "bob")
    assert (code, "the threshold is 2, with 1 admins" in error) == (78, True)


def test_a_new_model_holds_from_a_cycle_that_is_printed(founded, said):
    old = manifest(founded)
    cycle = old.calendar.at(time.time()).cycle + 2
    text = said("consortium", "change", "manifest-1.json", "--hidden", "8", "--rule", "median", *SIGN)
    new = manifest(founded, 2)
    assert f"the change holds from cycle {cycle} on, " in text
    assert f"cycle {cycle} " in text
    assert (new.model.hidden, new.gossip.rule) == ((8,), "median")
    assert (new.generation, new.generation_cycle, new.from_cycle) == (2, cycle, cycle)
    said("consortium", "verify", "manifest-2.json", "--previous", "manifest-1.json")


def test_a_new_contract_is_scaled_by_the_requests(founded, said, refused):
    (founded / "other.json").write_bytes(record.readable(replace(DRAFT, clip=5.0)))
    changing = ("consortium", "change", "manifest-1.json", "--contract", "other.json")
    assert refused(*changing)[0] == 78
    (founded / "bank-a.json").write_bytes(request("bank-a", None, 64.0, 512))
    said(*changing, "--request", "bank-a.json", *SIGN)
    new = manifest(founded, 2)
    assert [m.legitimate_per_fraud for m in new.members] == [64.0, None, None], "and what it told of its base rate"
    assert [m.training_rows for m in new.members] == [512, None, None]
    assert (new.contract.clip, new.contract.moments.means, new.generation) == (5.0, (0.5,), 2)
    said("consortium", "verify", "manifest-2.json", "--previous", "manifest-1.json")


def test_a_new_calendar_begins_a_period_ahead_and_counts_on(founded, said):
    old = manifest(founded)
    cycle = old.calendar.at(time.time()).cycle + 2
    begins = old.calendar.begins(cycle)
    said("consortium", "change", "manifest-1.json", "--every", "12h", "--rounds", 40, "--round-seconds", 90, *SIGN)
    calendar = manifest(founded, 2).calendar
    assert (calendar.anchor, calendar.every, calendar.rounds, calendar.round_seconds) == (begins, 12 * HOUR, 40, 90.0)
    assert calendar.number(cycle, 1) == old.calendar.number(cycle, 1)
    said("consortium", "verify", "manifest-2.json", "--previous", "manifest-1.json")


@pytest.fixture
def rounds_of(founded, capsys):
    """Changes the length of rounds to some seconds; gives exit code and what was said on standard error."""

    def call(seconds, *requests):
        asked = [a for name in requests for a in ("--request", f"{name}.json")]
        arguments = ("consortium", "change", "manifest-1.json", "--round-seconds", seconds, "--force", *asked)
        capsys.readouterr()
        return run([str(a) for a in arguments]), capsys.readouterr().err

    return call


@pytest.mark.parametrize("seconds", [-5, 0, "nan"])
def test_rounds_are_not_changed_to_no_length(founded, rounds_of, seconds):
    code, error = rounds_of(seconds)
    assert (code, f"--round-seconds {seconds}: a round takes some time" in error) == (2, True)
    assert not (founded / "manifest-2.json").exists()


def test_rounds_are_not_changed_to_fewer_seconds_than_a_bank_measured(founded, rounds_of):
    code, error = rounds_of(12, "bank-a", "bank-x", "bank-c")
    assert code == 2
    assert error.strip().endswith("--round-seconds 12: bank-x needs 14.2 s a round to train; say --round-seconds 43")
    assert not (founded / "manifest-2.json").exists()
    assert rounds_of(15, "bank-a", "bank-x", "bank-c") == (0, "")
    assert manifest(founded, 2).calendar.round_seconds == 15.0


def test_what_banks_need_is_measured_by_the_manifest_s_steps(office, said, refused):
    said(*founding("--first-cycle", "+1h", "--local-steps", 400, "--rounds", 5))
    code, error = refused("consortium", "change", "manifest-1.json", "--round-seconds", 50, "--request", "bank-x.json")
    assert (code, "bank-x needs 56.8 s a round to train; say --round-seconds 171" in error) == (2, True)


def test_shorter_rounds_are_told_to_be_unchecked_without_requests(rounds_of):
    for requests in ((), ("bank-c",)):
        code, error = rounds_of(42, *requests)
        assert code == 0
        assert "--round-seconds 42: whether every bank can train in that time is not checked" in error
    assert rounds_of(44) == (0, "")


def test_rounds_changed_to_too_short_for_gossip_are_told(rounds_of):
    code, error = rounds_of(9, "bank-a")
    assert code == 0
    assert "--round-seconds 9: heartbeats and pulls have to fit into a round" in error


def test_a_day_is_skipped_and_a_cycle_added(founded, said):
    old = manifest(founded)
    cycle = old.calendar.at(time.time()).cycle + 4
    begins = old.calendar.begins(cycle)
    day = time.strftime("%Y-%m-%d", time.gmtime(begins))
    text = said("consortium", "change", "manifest-1.json", "--skip", day, "--extra", int(begins) + 3 * HOUR, *SIGN)
    calendar = manifest(founded, 2).calendar
    assert (calendar.skipped, calendar.extra) == ((begins,), (begins + 3 * HOUR,))
    assert calendar.begins(cycle) == begins + 3 * HOUR
    assert "additional   " in text and "skipped      " in text
    said("consortium", "verify", "manifest-2.json", "--previous", "manifest-1.json")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "nothing is changed"),
        (("--rule", "clip"), "nothing is changed"),
        (("--hidden", "64,32"), "nothing is changed"),
        (("--every", "0"), "keeps one"),
        (("--extra", "+2h"), "a change holds from "),
        (("--skip", "2100-02-30"), "expected a time such as"),
        (("--skip", "2031-01-01T00:00:01Z"), "no cycle begins then; the next one begins "),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(founded, refused, options, complaint):
    code, error = refused("consortium", "change", "manifest-1.json", *options)
    assert code == 2
    assert complaint in error
    assert not (founded / "manifest-2.json").exists()


def test_a_removed_bank_is_told_so_when_its_node_starts(founded, said, capsys):
    config = "version: 1\nnode: {name: bank-z, state_dir: z}\npeers: {listen: '127.0.0.1:0'}\nadmin: {listen: null}\n"
    config += "data:\n  source: {kind: csv, path: p.csv}\n  label: fraud\n  split: stratified\n"
    (founded / "z.yaml").write_text(config)
    said("init", "-c", "z.yaml")
    said("consortium", "add", "manifest-1.json", "--request", "z/join-request.json", *SIGN)
    told = json.loads(said("consortium", "show", "manifest-2.json", "--json"))["fingerprint"]
    said("join", "-c", "z.yaml", "--manifest", "manifest-2.json", "--fingerprint", told)
    said("consortium", "remove", "manifest-2.json", "--member", "bank-z", *SIGN)
    # as the daemon stores it that has fetched it from another member
    (founded / "z/manifests/3.json").write_bytes((founded / "manifest-3.json").read_bytes())
    assert run(["check", "-c", "z.yaml", "--no-data"]) == 77
    assert "the admins removed this bank in version 3" in capsys.readouterr().out


def test_check_warns_a_bank_that_is_slower_than_the_calendar(office, said):
    config = "version: 1\nnode: {name: bank-z, state_dir: z}\npeers: {listen: '127.0.0.1:0'}\nadmin: {listen: null}\n"
    config += "data:\n  source: {kind: csv, path: p.csv}\n  label: fraud\n  split: stratified\n"
    (office / "z.yaml").write_text(config)
    said("init", "-c", "z.yaml")
    said("consortium", "create", "test", "--request", "z/join-request.json", "--admin", "alice.pub", "--threshold", 1,
         "--contract", "draft.json", "--scaling", "local", "--key", "alice.key")  # fmt: skip
    told = json.loads(said("consortium", "show", "manifest-1.json", "--json"))["fingerprint"]
    said("join", "-c", "z.yaml", "--manifest", "manifest-1.json", "--fingerprint", told)
    assert "calendar" not in said("check", "-c", "z.yaml", "--no-data")
    path = office / "z/join-request.json"
    slow = replace(open_join_request(path.read_bytes()), seconds_per_round=14.2)
    bank = load_member_key(StateDir(office / "z"))
    path.write_bytes(seal_join_request(bank, slow))
    text = said("check", "-c", "z.yaml", "--no-data")
    assert "warn  calendar" in text
    assert "took 14.2 s here" in text and "take 10 s" in text


def test_adding_a_bank_that_needs_longer_rounds_is_said(office, capsys, said):
    requests = ("--request", "bank-a.json", "--round-seconds", 10)
    said("consortium", "create", "test", *requests, "--admin", "alice.pub", "--threshold", 1,
         "--contract", "draft.json")  # fmt: skip
    assert run(["consortium", "add", "manifest-1.json", "--request", "bank-x.json"]) == 0
    assert "bank-x needs 14.2 s a round to train, and the calendar's take 10 s" in capsys.readouterr().err
