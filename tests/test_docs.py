"""What the documentation says is what the program does."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from p2pfed import configfile

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```yaml\n(.*?)```", README, re.DOTALL))


def test_the_generated_tables_are_up_to_date():
    result = subprocess.run([sys.executable, ROOT / "scripts/reference", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "node_config").glob("*.yaml")), ids=lambda p: p.name)
def test_every_example_configuration_is_valid(path):
    assert configfile.load(path).version == 1


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_configuration_in_the_readme_is_valid(tmp_path, name):
    path = tmp_path / "node.yaml"
    path.write_text(FILES[name])
    assert configfile.load(path).node.name == Path(name).parent.name


def test_there_are_three_banks_in_the_readme():
    assert sorted(FILES) == ["bank-a/node.yaml", "bank-b/node.yaml", "bank-c/node.yaml"]
    assert all(yaml.safe_load(text)["peers"]["zeroconf"] for text in FILES.values())


def test_every_p2pfed_command_in_the_readme_exists():
    from p2pfed.cli import COMMANDS, GROUPS

    known = {command for command, _ in COMMANDS}
    for line in re.findall(r"^\$ p2pfed (.*)$", README, re.MULTILINE):
        words = line.split()
        verb = " ".join(words[: 2 if words[0] in GROUPS else 1])
        assert verb in known or verb == "--version", line


def test_ci_runs_quickstart_and_simulation():
    command = [sys.executable, ROOT / "scripts/readme_commands", ROOT / "README.md"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        "scripts/run",
        "scripts/test",
        'export PATH="$PWD/.venv/bin:$PATH"',
        "p2pfed --version",
        "p2pfed simulate node_config/scenarios/ten_banks.yaml --out runs/ten-banks",
    ]


def test_the_service_leaves_what_needs_a_person_alone():
    from p2pfed import errors

    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(ROOT / "node_config/p2pfed.service")
    for error in (errors.UsageError, errors.StateCorrupt, errors.NotPermitted, errors.ConfigError):
        assert str(error.exit_code) in unit["Service"]["RestartPreventExitStatus"].split()
    assert unit["Service"]["Type"] == "notify"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_understands_the_service(tmp_path):
    unit = tmp_path / "p2pfed.service"
    text = (ROOT / "node_config/p2pfed.service").read_text()
    program = "/opt/p2pfed/.venv/bin/p2pfed"
    assert text.count(program) == 1
    unit.write_text(text.replace(program, sys.executable))
    found = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
