"""Configuration files: every mistake at once, each with its place, and never a traceback."""

import time
from pathlib import Path

import pytest

from p2pfed import configfile
from p2pfed.config import CsvSource
from p2pfed.errors import ConfigError, UsageError

GOOD = """\
version: 1
node:
  name: bank-a
  state_dir: state
data:
  source: {kind: csv, path: payments.csv}
  label: fraud
  event_time: when
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "node.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str, environ: dict[str, str] | None = None, settings: tuple[str, ...] = ()):
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        configfile.load(path, environ, settings)
    assert caught.value.exit_code == 78
    return [p.removeprefix(f"{path}:") for p in caught.value.problems]


def test_relative_paths_start_at_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    config = configfile.load(write(tmp_path, GOOD))
    assert config.node.state_dir == tmp_path / "state"
    assert isinstance(config.data.source, CsvSource)
    assert config.data.source.path == tmp_path / "payments.csv"


def test_label_words_that_yaml_takes_for_others_go_in_quotes(tmp_path):
    (said,) = problems(tmp_path, GOOD + "  labels: {yes: 0, no: 1}\n")
    assert said.startswith("9:") and "data.labels: put words such as yes, no, true, false and null in quotes" in said
    labels = configfile.load(write(tmp_path, GOOD + "  labels: {'yes': 0, 'No': 1, 2.0: 1}\n"))
    assert labels.data.labels == {"yes": 0, "no": 1, "2": 1}


def test_missing_file_says_what_makes_one(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such file; `p2pfed init` writes one"):
        configfile.load(tmp_path / "absent.yaml")


def test_all_mistakes_are_reported_at_once_in_order_of_lines(tmp_path):
    text = GOOD.replace("state_dir: state", "state_dri: state").replace("label: fraud", "label: 7\n  seed: x")
    text += "peers:\n  seeds: [nowhere]\nlearning:\n  rounds: -1\n"
    assert problems(tmp_path, text) == [
        "2:1: 'node.state_dir' is missing",
        "4:3: unknown key 'node.state_dri'; did you mean 'state_dir'?",
        "7:10: data.label: should be a valid string, got 7",
        "8:9: data.seed: should be a valid integer, unable to parse string as an integer, got 'x'",
        "11:11: peers.seeds.0: 'nowhere' is not an address: expected host:port, for example bank-b.example:7443",
        "13:11: learning.rounds: should be greater than or equal to 1, got -1",
    ]


def test_duplicate_key(tmp_path):
    assert problems(tmp_path, GOOD + "node:\n  name: other\n  state_dir: s\n") == [
        "9:1: key 'node' is given twice, first on line 2"
    ]


def test_duplicate_key_within_a_section(tmp_path):
    text = GOOD.replace("  label: fraud\n", "  label: fraud\n  label: chargeback\n")
    assert problems(tmp_path, text) == ["8:3: key 'label' is given twice, first on line 7"]


def test_a_key_that_is_a_list_is_no_traceback(tmp_path):
    assert problems(tmp_path, GOOD + "? [a, b]\n: c\n")


@pytest.mark.parametrize("deepest", [4, 6, 10])
@pytest.mark.parametrize("first", ["[x, x]", "{x: y}"])
def test_aliases_of_aliases_are_counted_and_not_followed(tmp_path, deepest, first):
    """A few lines that stand for up to ten billion values, as they are or merged into one mapping."""
    lines = [f"a0: &a0 {first}"]
    for i in range(1, deepest + 1):
        many = ", ".join([f"*a{i - 1}"] * 10)
        lines.append(f"a{i}: &a{i} " + (f"{{<<: [{many}]}}" if first[0] == "{" else f"[{many}]"))
    begin = time.process_time()
    (said,) = problems(tmp_path, "\n".join(lines) + f"\n{GOOD}peers: {{seeds: *a{deepest}}}\n")
    assert "its aliases (*name) stand for " in said
    (said,) = problems(
        tmp_path, GOOD, {}, ("peers.seeds=[" + ", ".join(line.split(": ", 1)[1] for line in lines) + "]",)
    )
    assert said.startswith("--set peers.seeds: the value is not YAML: its aliases")
    assert time.process_time() - begin < 2


def test_a_few_aliases_are_welcome(tmp_path):
    text = GOOD.replace("label: fraud", "label: &label fraud").replace("when", "*label")
    assert configfile.load(write(tmp_path, text)).data.event_time == "fraud"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("kind: csv, ", ""), "6:3: data.source: 'kind' is missing; it is csv, parquet or sql"),
        (("kind: csv", "kind: xls"), "6:3: data.source.kind: should be csv, parquet or sql"),
        (("kind: csv, path: payments.csv", "kind: sql, query: q"), "6:3: data.source: give exactly one of"),
        (("path: payments.csv", "pth: payments.csv"), "unknown key 'data.source.pth'; did you mean 'path'?"),
        (("version: 1", "version: 2"), "1:10: version: should be 1, got 2"),
        (("  event_time: when\n", "  split: time\n"), "5:1: data: split: time needs event_time"),
        (("  event_time: when\n", "  event_time: when\n  gap_days: 7\n"), "5:1: data: gap_days lies between the parts"),
        (("name: bank-a", "name: ../x"), "3:9: node.name: should match pattern"),
    ],
)
def test_mistakes_in_the_data_section(tmp_path, change, expected):
    assert any(expected in p for p in problems(tmp_path, GOOD.replace(*change)))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{kind: sql, query: q, url_file: URL}", "data.source.url_file: holds the URL itself: name the file"),
        ("{kind: sql, query: q, url_env: URL}", "data.source.url_env: holds the URL itself: name the file"),
        ("{kind: sql, query: q, url: URL}", "unknown key 'data.source.url'"),
        ("{kind: csv, path: p, delimiter: URL}", "data.source.delimiter: "),
        ("URL", "data.source: should be a valid dictionary"),
    ],
)
def test_a_url_in_the_wrong_place_is_not_shown(tmp_path, source, expected):
    url = "postgresql://bank:sesame@host/card"
    said = problems(tmp_path, GOOD.replace("{kind: csv, path: payments.csv}", source.replace("URL", url)))
    assert any(expected in p for p in said)
    assert not any("sesame" in p for p in said)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: expected `key: value` lines"),
        ("- a\n", "1:1: expected `key: value` lines"),
        ("version: [1\n", "2:1: not YAML"),
        ("version: !!python/object:os.system {}\n", "1:10: not YAML"),
        ("a: &x [*x]\n", "1:4: not YAML: an alias (*name) stands within what it names"),
        ("a: !!int ''\n", " not YAML"),
        ("a: !!bool x\n", " not YAML"),
        ("a: !!timestamp x\n", " not YAML"),
        ("version: 1\n\0", " not YAML: unacceptable character #x0000"),
    ],
)
def test_what_is_not_yaml_or_not_a_mapping(tmp_path, text, expected):
    assert problems(tmp_path, text)[0].startswith(expected)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "node.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        configfile.load(path)


def test_environment_and_settings_override_the_file_in_this_order(tmp_path):
    environ = {"P2PFED_LOG__LEVEL": "debug", "P2PFED_PEERS__LISTEN": "null", "P2PFED_TEST_DATA": "no setting"}
    config = configfile.load(write(tmp_path, GOOD), environ, ["log.level=error", "peers.seeds=[b:1, c:2]"])
    assert config.log.level == "error"
    assert config.peers.listen is None
    assert config.peers.seeds == ("b:1", "c:2")


def test_mistakes_in_overrides_name_where_they_came_from(tmp_path):
    found = problems(tmp_path, GOOD, {"P2PFED_LOG__LEVL": "info"}, ("learning.rounds=many", "node.name.first=x"))
    assert "environment variable P2PFED_LOG__LEVL: unknown key 'log.levl'; did you mean 'level'?" in found
    assert any(p.startswith("--set learning.rounds: learning.rounds: should be a valid integer") for p in found)
    assert "--set node.name.first: name has no keys of its own" in found
    deep = problems(tmp_path, GOOD, {}, ("learning.rounds=" + 5000 * "[",))
    assert any(p.startswith("--set learning.rounds: the value is not YAML") for p in deep)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("peers.listen", "[::1]:7443", "[::1]:7443"),
        ("peers.listen", '"[::1]:7443"', "[::1]:7443"),
        ("peers.listen", " b:1 ", "b:1"),
        ("peers.listen", "null", None),
        ("node.name", "0123", "0123"),
        ("node.name", "no", "no"),
        ("data.label", "card #", "card #"),
        ("data.event_time", "2026-01-01", "2026-01-01"),
        ("data.source.delimiter", "\t", "\t"),
        ("data.columns.amount", "1e3", "1e3"),
        ("data.columns", "{amount: no, on: 0123}", {"amount": "no", "on": "0123"}),
        ("peers.blocklist", "[no, 0123]", ("no", "0123")),
        ("log.level", "error", "error"),
        ("learning.rounds", "null", None),
    ],
)
@pytest.mark.parametrize("place", ["environment", "setting"])
def test_what_is_given_for_text_is_text(tmp_path, key, text, value, place):
    variable = "P2PFED_" + key.upper().replace(".", "__")
    given = ({variable: text}, []) if place == "environment" else ({}, [f"{key}={text}"])
    found = configfile.load(write(tmp_path, GOOD), *given)
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value


def test_a_setting_without_a_value_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="expected section.key=value"):
        configfile.load(write(tmp_path, GOOD), {}, ["log.level"])


def test_a_small_number_in_scientific_notation_is_a_number(tmp_path):
    # YAML 1.1 reads 1e-3 as text
    assert configfile.load(write(tmp_path, GOOD + "  split: time\n  gap_days: 1e-3\n")).data.gap_days == 0.001
