"""A bank of your own, by the README alone: its commands, typed in order into a shell in an empty folder."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.postgres import Server, find_binaries

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PART = re.compile(
    r"<!-- walk-through -->\n```console\n(?P<commands>.*?)```"
    r"|<!-- file: (?P<path>\S+) -->\n```yaml\n(?P<text>.*?)```"
    r"|<!-- walk-through: (?P<wait>wait for rounds) -->",
    re.DOTALL,
)
PATIENCE_SECONDS = 240


class Shell:
    """One shell for all commands, so that variables last; stops at the first that fails."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        bin_folder = str(Path(sys.executable).parent)
        self.environment = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "DATABASE_URL": database,
        }
        self.carried = ""

    def type(self, commands: str) -> str:
        """The output of the `$ ` lines of a console block."""
        lines = [line[2:] if line.startswith("$ ") else line for line in commands.splitlines()]
        script = "\n".join(["set -eu", self.carried, *lines])
        self.carried = "\n".join([self.carried, *(line for line in lines if re.match(r"\w+=\$\(", line))])
        said = self.folder / "said"  # a file, not a pipe: the daemons keep what they inherit open
        with said.open("w") as output:
            command = ["bash", "-c", script]
            result = subprocess.run(command, cwd=self.folder, env=self.environment, stdout=output, timeout=120)
        assert result.returncode == 0, f"{commands}\n{said.read_text()}"
        return said.read_text()

    def wait_for_rounds(self) -> None:
        """Until every bank has merged others' models, and bank A has a model to score with."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        waiting = ["bank-a", "bank-b", "bank-c"]
        while waiting:
            assert time.monotonic() < deadline, "\n".join((self.folder / b / "log").read_text() for b in waiting)
            time.sleep(1)
            waiting = [bank for bank in waiting if not self._learned(bank)]

    def _learned(self, bank: str) -> bool:
        command = ["p2pfed", "status", "--json", "-c", f"{bank}/node.yaml"]
        result = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if result.returncode not in (0, 1):
            return False
        learning = json.loads(result.stdout)["learning"]
        return learning["merged_total"] >= 2 and learning["metrics"] != {}


@pytest.fixture
def database():
    if (binaries := find_binaries()) is None:
        pytest.skip("no PostgreSQL server on this machine (Debian: apt-get install postgresql)")
    server = Server(binaries)
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


@pytest.mark.e2e
@pytest.mark.slow
def test_three_banks_by_the_readme_alone(tmp_path, database):
    shell, said = Shell(tmp_path, database), []
    try:
        for part in PART.finditer(README):
            if part["commands"]:
                said.append(shell.type(part["commands"]))
            elif part["path"]:
                (tmp_path / part["path"]).write_text(part["text"])
            else:
                shell.wait_for_rounds()
    finally:
        for bank in ("bank-a", "bank-b", "bank-c"):
            subprocess.run(["p2pfed", "stop", "-c", f"{bank}/node.yaml"], cwd=tmp_path, env=shell.environment)
    text = "\n".join(said)
    assert "signed by    alice, bob" in text
    assert "3 members: 3 alive" in text
    assert re.search(r"scored [\d,]+ payments: [\d,]+ alerts? above", text)
    assert text.rstrip().endswith("stopped\nstopped\nstopped")
