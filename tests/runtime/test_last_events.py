"""What the history lacks when a daemon ends: it is stored if that is quick, and hides no other error if it is not."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from p2pfed.errors import DiskFault
from p2pfed.runtime import daemon as module
from p2pfed.runtime.daemon import Daemon


async def _locked() -> None:
    await asyncio.sleep(300)


async def _full() -> None:
    raise DiskFault("the disk is full")


@pytest.mark.parametrize(("flush", "said"), [(_locked, "too slow"), (_full, "the disk is full")])
async def test_a_disk_that_refuses_at_the_end_is_logged(flush, said, monkeypatch, caplog):
    monkeypatch.setattr(module, "LAST_SECONDS", 0.05)
    ending = SimpleNamespace(_events=SimpleNamespace(flush=flush), _log=logging.getLogger("ending"))
    await asyncio.wait_for(Daemon._store_the_last(ending), 10)
    assert "the last events could not be stored" in caplog.text and said in caplog.text
