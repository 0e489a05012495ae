"""Rules about the whole code base that no linter setting expresses."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "p2pfed").rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
"""Of the body: a signature may have one option a line."""


def test_imports_point_one_way():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("module", ["p2pfed.runtime.daemon", "p2pfed.core.node", "p2pfed.api.app"])
def test_the_daemon_never_imports_what_is_heavy(module):
    heavy = "{'tensorflow', 'keras', 'pandas', 'sklearn'}"
    code = f"import sys, {module}; print({{m.split('.')[0] for m in sys.modules}} & {heavy})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.end_lineno - node.body[0].lineno + 1
            assert body <= MAX_FUNCTION_LINES, f"{node.name} has {body} lines"


@pytest.mark.parametrize("folder", ["tests", "scripts"])
def test_tests_and_scripts_stay_small_too(folder):
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_module_is_named_after_nothing():
    assert not {p.stem for p in MODULES} & {"utils", "util", "helpers", "helper", "manager", "common", "misc"}


def test_no_lock_file_names_an_address():
    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text().splitlines():
            assert "://" not in line
            assert not line.startswith(("-i", "--index", "--find-links", "-f"))
