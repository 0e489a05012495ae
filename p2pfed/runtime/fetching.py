"""Fetching the manifest that follows ours from a member who says that there is one, which may be a lie."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from p2pfed.core import wire
from p2pfed.core.consortium import ManifestError, SignedManifest
from p2pfed.core.effects import FetchManifest
from p2pfed.core.inputs import Input, Offended, TroubleSeen
from p2pfed.core.patience import Patience
from p2pfed.core.succession import open_successor
from p2pfed.core.types import NodeId, Reason
from p2pfed.net.transport import Unreachable

if TYPE_CHECKING:
    from p2pfed.runtime.driver import Driver

Asked = Callable[[NodeId, Awaitable[Input | None]], Awaitable[None]]
"""Awaits an answer of a peer and tells the node of it, or of what went wrong."""

WHY_SECONDS = 60.0
"""Who says that this node was removed is asked for the proof so often at first, and less often each time."""


class ManifestFetcher:
    """Does `FetchManifest` for `driver`, one at a time; what comes is opened in a thread of its own."""

    def __init__(self, driver: Driver, asked: Asked) -> None:
        self._driver, self._asked = driver, asked
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="manifest")
        self._one = asyncio.Semaphore()
        self._patience = Patience(WHY_SECONDS)

    async def fetch(self, ask: FetchManifest) -> None:
        """Ask, follow what the admins have signed, and blame the peer for anything else."""
        driver, offered = self._driver, list[SignedManifest]()

        async def answer() -> Input | None:
            data = await driver.transport.manifest(ask.peer, ask.addresses, ask.version)
            if not data:
                return None
            current = driver.trust().manifest
            loop = asyncio.get_running_loop()
            offered.append(await loop.run_in_executor(self._thread, open_successor, current, data))
            return await driver.follow(offered[0])

        try:
            async with self._one:
                await self._asked(ask.peer, answer())
        except ManifestError as error:
            driver.put(Offended(ask.peer, Reason.MALFORMED, f"the manifest it offers: {error}"[: wire.MAX_DETAIL]))
            if offered:  # an admin has signed it; else any member could trouble every operator
                driver.put(
                    TroubleSeen(
                        "MANIFEST_REFUSED",
                        f"manifest {ask.version} of {driver.node.name_of(ask.peer)} does not follow ours: {error}",
                        "compare fingerprints with the admins; the present manifest stays in force",
                        ask.peer,
                    )
                )

    def why(self, peer: NodeId, error: Unreachable) -> FetchManifest | None:
        """What to ask of who says that this node was removed: for the version that did it, which admins have signed."""
        driver = self._driver
        if error.cause != "removed" or self._one.locked() or not self._patience.allows(peer, driver.clock()):
            return None
        return FetchManifest(peer, driver.node.peers.endpoints(peer), driver.trust().manifest.version + 1)

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False)
