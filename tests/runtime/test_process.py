"""What imports of a process that stays leave behind."""

import gc
import os
import signal
import ssl
import threading
from pathlib import Path

import pytest

from p2pfed.runtime import spawner
from p2pfed.runtime.process import for_life, signals_wait, without_authorities


def authorities(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509_ca"]


def test_contexts_made_meanwhile_know_no_authority_and_later_ones_do() -> None:
    usual = authorities(ssl.create_default_context())
    with without_authorities():
        assert authorities(ssl.create_default_context()) == 0
    assert authorities(ssl.create_default_context()) == usual
    assert "set_default_verify_paths" not in vars(ssl.SSLContext)


def test_garbage_is_collected_again_afterwards() -> None:
    before = gc.get_threshold()
    with for_life():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold() == before


def test_a_signal_waits_for_the_end_of_an_import():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    try:
        with signals_wait():
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            assert not heard
        assert heard == ["SIGTERM"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_spawner_needs_no_folder_to_write_to_but_its_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(spawner, "preload", lambda: None)
    monkeypatch.setattr(spawner, "serve_forks", lambda *_: used.append(os.environ["TMPDIR"]))
    spawner.serve_at({tmp_path / "trainers.sock": None}, 0)
    assert used == [str(tmp_path)] and tmp_path.is_dir()
