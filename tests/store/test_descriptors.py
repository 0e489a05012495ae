"""A process that may open nothing more waits: neither its disk nor its state is at fault, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3

import pytest

from p2pfed.core.effects import Save
from p2pfed.core.types import NodeId
from p2pfed.errors import NoDescriptors
from p2pfed.store import descriptors
from p2pfed.store.descriptors import nearly_out, patiently
from p2pfed.store.faults import faults
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir, write_atomically


@contextlib.contextmanager
def none_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_cannot_be_opened_for_want_of_descriptors_is_no_disk_fault(tmp_path):
    with none_left(), pytest.raises(NoDescriptors, match="ulimit"):
        write_atomically(tmp_path / "model", b"new")
    write_atomically(tmp_path / "model", b"new")


def test_a_database_that_cannot_be_opened_for_it_is_none_either(tmp_path):
    with none_left(), pytest.raises(NoDescriptors), faults(tmp_path / "db"):
        sqlite3.connect(tmp_path / "db")


async def test_what_waits_goes_on_once_there_are_some(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptors, "RETRY_SECONDS", 0.01)
    path = tmp_path / "model"
    with none_left():
        writing = asyncio.create_task(patiently(lambda: asyncio.to_thread(write_atomically, path, b"new")))
        await asyncio.sleep(0.05)
        assert not writing.done()
    await asyncio.wait_for(writing, 5)
    assert path.read_bytes() == b"new"


async def test_a_store_goes_on_saving_without_any(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptors, "RETRY_SECONDS", 0.01)
    store = SqliteStore(StateDir(tmp_path / "state").create())
    with none_left():
        await asyncio.wait_for(store.save(Save(marks={NodeId("A"): (1, "ab" * 32)})), 5)
        saving = asyncio.create_task(store.save_manifest(1, b"{}"))
        await asyncio.sleep(0.05)
    await asyncio.wait_for(saving, 5)
    store.close()


def test_the_operator_is_told_when_few_are_left():
    assert nearly_out() is None
    with none_left():
        doubt = nearly_out()
    assert doubt is not None and doubt.code == "DESCRIPTORS_LOW"
    assert "LimitNOFILE" in doubt.hint
