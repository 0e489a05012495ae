"""A founded consortium as processes: a keyless trainer spawner and a daemon a bank, watched over admin sockets."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from p2pfed.api.client import AdminClient
from p2pfed.cluster.founding import Bank, LocalCluster
from p2pfed.cluster.processes import Processes
from p2pfed.core.aggregation import is_foreign
from p2pfed.errors import LocalFault, Unavailable
from p2pfed.runtime.trainer import TrainerState

SPAWNER = "trainers"
LOG_TAIL = 2_000
"""Bytes of a dead daemon's log that its error message quotes."""
EVENTS_PAGE = 1_000
START_SECONDS = 10.0
"""The next daemon waits no longer than that for the one before it to listen."""
RESTARTS_IN_VAIN = 3
"""A trainer that was lost so often and is not there again will not come back by itself."""


@dataclass(frozen=True)
class NodeProgress:
    """How far one daemon has come; what it has not told yet is None."""

    name: str
    state: str
    """`starting`, then as the status says: `waiting`, `training`, `listening`, `finished`."""
    round: int
    auprc: float | None
    """Of its newest evaluated model on the pooled test rows."""
    exchanged: int
    """Updates accepted from others."""
    address: str | None
    """Where its status can be looked at."""
    trouble: str = ""
    """What the daemon says of a trainer that fails again and again."""

    @property
    def finished(self) -> bool:
        """Whether it has done its rounds and measured the last model."""
        return self.state == "finished"


class RunningCluster:
    """Starts every process on entry and stops every one on exit."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.processes = Processes()

    def __enter__(self) -> RunningCluster:
        try:
            poisoners = [f"{kind}={path}" for kind, path in self.cluster.poisoners.items()]
            module = "p2pfed.adversary.spawner" if poisoners else "p2pfed.runtime.spawner"
            command = ["-m", module, str(len(self.cluster.banks)), str(self.cluster.spawner_socket), *poisoners]
            self.processes.start(SPAWNER, command, self.cluster.log(SPAWNER))
            self._start_daemons()
        except BaseException:
            self.processes.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_daemons(self) -> None:
        """A few at a time while the spawner imports TensorFlow, which all of them wait for; then the rest at once."""
        for number, bank in enumerate(self.cluster.banks, 1):
            self.start(bank)
            deadline = time.monotonic() + START_SECONDS
            while self._hold_up_import(self.cluster.banks[:number]) and time.monotonic() < deadline:
                self.check()
                time.sleep(0.02)

    def _hold_up_import(self, started: Sequence[Bank]) -> bool:
        """Whether one more starting daemon would leave the spawner less than a core to import TensorFlow on."""
        with contextlib.suppress(Unavailable):
            if self.status(started[0])["self"]["trainer"]["state"] != TrainerState.STARTING.value:
                return False  # a trainer was forked: the import is over
        starting = sum(not bank.state.admin_socket.exists() for bank in started)
        return starting >= max(1, (os.cpu_count() or 1) - 1)

    def start(self, bank: Bank) -> int:
        """Start a bank's daemon, which may run the merge rule that this process was allowed to found a cluster with.

        Returns its process id.
        """
        command = ["p2pfed.adversary", bank.attack] if bank.attack else ["p2pfed", "start"]
        allowed = ["--allow-code"] if is_foreign(self.cluster.manifest.gossip.rule) else []
        return self.processes.start(
            bank.name, ["-m", *command, str(bank.config), *allowed], self.cluster.log(bank.name)
        )

    def stop(self) -> None:
        """Stop the daemons, which say good-bye to each other, and then what serves them all."""
        self.processes.stop(*(bank.name for bank in self.cluster.banks if self.processes.started(bank.name)))
        self.processes.stop()

    def status(self, bank: Bank) -> dict[str, Any]:
        """The daemon's status; raises Unavailable while it does not answer."""
        status: dict[str, Any] = AdminClient(bank.state.root).get("/api/v1/status")
        return status

    def events(self, bank: Bank) -> list[dict[str, Any]]:
        """The daemon's whole history; raises Unavailable."""
        client = AdminClient(bank.state.root)
        events: list[dict[str, Any]] = []
        while True:
            since = events[-1]["id"] if events else 0
            page = client.get(f"/api/v1/events?since={since}&limit={EVENTS_PAGE}")
            events += page
            if len(page) < EVENTS_PAGE:
                return events

    def progress(self) -> list[NodeProgress]:
        """Ask every daemon; raises LocalFault, with the end of its log, if a process has died."""
        self.check()
        return [self._progress(bank) for bank in self.cluster.banks]

    def check(self) -> None:
        """Raise LocalFault, with the end of its log, if a process has died."""
        for name, code in self.processes.ended().items():
            said = self.cluster.log(name).read_bytes()[-LOG_TAIL:].decode(errors="replace").strip()
            ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            end = f". The end of its log:\n{said}" if said else ", and its log is empty"
            raise LocalFault(f"{name} {ended}{end}")

    def wait(self, bank: Bank, seconds: float) -> dict[str, Any]:
        """The status as soon as the daemon answers; raises Unavailable after `seconds`, LocalFault if it has died."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            try:
                return self.status(bank)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _progress(self, bank: Bank) -> NodeProgress:
        try:
            status = self.status(bank)
        except Unavailable:
            return NodeProgress(bank.name, "starting", 0, None, 0, None)
        learning = status["learning"]
        return NodeProgress(
            name=bank.name,
            state=learning["state"],
            round=learning["round"],
            auprc=learning["metrics"].get("test", {}).get("auprc"),
            exchanged=learning["accepted_total"],
            address=status["node"]["admin_address"],
            trouble=trainer_trouble(status),
        )


def trainer_trouble(status: dict[str, Any]) -> str:
    """Why training has failed at least three times and does not go on, by a daemon's status; empty if it does."""
    if status["self"]["trainer"]["restarts"] < RESTARTS_IN_VAIN:
        return ""
    return next((problem["message"] for problem in status["problems"] if problem["code"] == "TRAINER_LOST"), "")
