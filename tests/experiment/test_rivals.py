"""The baselines' process says what went wrong in it."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2pfed.errors import LocalFault
from p2pfed.experiment import rivals
from p2pfed.store.state_dir import StateDir


@dataclass
class FoundWithoutFiles:
    folder: Path

    @property
    def banks(self):
        return [SimpleNamespace(name="bank-1", config=self.folder / "node.yaml", state=StateDir(self.folder))]

    manifest = SimpleNamespace(version=1)

    def log(self, name):
        return self.folder / f"{name}.log"


def test_the_end_of_the_log_is_in_the_error(tmp_path):
    with pytest.raises(LocalFault, match=r"exit code 1:[\s\S]*manifests/1\.json"):
        rivals.run(FoundWithoutFiles(tmp_path), ("alone",), 3, lambda what, number: None)
