"""Background tasks that may not die silently: one that fails is logged, counted and started again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from p2pfed.logs import NodeLogger

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0


class Supervisor:
    """Keeps tasks running until `stop`."""

    def __init__(self, log: NodeLogger) -> None:
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []
        self.restarts: Counter[str] = Counter()

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work()`, again after a growing pause whenever it fails; one that returns is done."""
        self._tasks.append(asyncio.create_task(self._keep(name, work), name=name))

    async def _keep(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                return await work()
            except Exception:  # whatever it was: the task is started again and the log has the traceback
                self.restarts[name] += 1
                self._log.exception("task %s failed; started again in %.0f s", name, pause)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def stop(self) -> None:
        """Cancel them all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
