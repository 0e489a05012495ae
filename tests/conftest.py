"""Settings of the whole suite."""

import signal

import pytest
from hypothesis import HealthCheck, settings

# a busy machine is no failure: time is measured by scripts/bench_*.py only
settings.register_profile("p2pfed", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("p2pfed")

# tests send it to themselves and to what they start, also where a script runs them in the background
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def said(capsys):
    """Runs a command line that must succeed, and gives what it printed."""

    from p2pfed.cli import run

    def call(*arguments: object) -> str:
        code = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return call


@pytest.fixture
def refused(capsys):
    """Runs a command line that must fail, and gives exit code and error."""

    from p2pfed.cli import run

    def call(*arguments: object) -> tuple[int, str]:
        code = run([str(a) for a in arguments])
        assert code != 0
        return code, capsys.readouterr().err

    return call
