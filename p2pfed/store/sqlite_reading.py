"""The history for whoever looks at it: read through a connection of its own, in a thread of its own.

A long answer delays neither the node's commits nor anything else that the store does.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from p2pfed.store.faults import faults
from p2pfed.store.history import StoredEvent
from p2pfed.store.schema import KINDS

_EVENTS = "SELECT id, time, kind, json, salt FROM events WHERE id > ? AND json IS NOT NULL ORDER BY id LIMIT ?"
_ROUNDS = f"""
    SELECT id, time, kind, json, salt FROM events WHERE kind IN ({KINDS}) AND json_extract(json, '$.round') IN
        (SELECT DISTINCT json_extract(json, '$.round') FROM events
         WHERE kind IN ({KINDS}) AND json_extract(json, '$.round') > ? ORDER BY 1 LIMIT ?)
    ORDER BY json_extract(json, '$.round'), id
"""


class HistoryReader:
    """Reads a database of the newest schema at `path`, which another connection may write to."""

    def __init__(self, path: Path) -> None:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        self._path = path
        self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5)
        self._db.execute("PRAGMA temp_store = MEMORY")
        self._db.execute("PRAGMA cache_size = -512")
        self._db.execute("SELECT count(*) FROM node").fetchone()  # opens the file now, while there are descriptors
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")

    async def events(self, since: int, limit: int) -> list[StoredEvent]:
        """See Store."""
        return await self._run(_EVENTS, since, limit)

    async def rounds(self, since: int, limit: int) -> list[StoredEvent]:
        """See Store."""
        return await self._run(_ROUNDS, since, limit)

    def close(self) -> None:
        """Finish what was asked for and let go."""
        self._thread.shutdown(wait=True)
        self._db.close()

    async def _run(self, query: str, since: int, limit: int) -> list[StoredEvent]:
        def read() -> list[StoredEvent]:
            with faults(self._path):
                return [StoredEvent(*row) for row in self._db.execute(query, (since, limit))]

        return await asyncio.get_running_loop().run_in_executor(self._thread, read)
