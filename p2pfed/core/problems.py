"""What an operator should know right now: raised once, cleared once."""

from __future__ import annotations

from collections.abc import Collection

from p2pfed.core.effects import Effect, Emit
from p2pfed.core.events import ProblemCleared, ProblemRaised


class Problems:
    """The open problems of a node under (code, subject)."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], ProblemRaised] = {}

    def raise_(self, code: str, severity: str, message: str, hint: str, subject: str = "") -> list[Effect]:
        """Open the problem; nothing happens if it is open already with the same message."""
        problem = ProblemRaised(code, severity, message, hint, subject)
        if self._open.get((code, subject)) == problem:
            return []
        self._open[(code, subject)] = problem
        return [Emit(problem)]

    def clear(self, code: str, subject: str | None = None) -> list[Effect]:
        """Close the problem about `subject`, or whoever it is about; nothing happens if it is not open."""
        closed = [key for key in self._open if key[0] == code and subject in (None, key[1])]
        for key in closed:
            del self._open[key]
        return [Emit(ProblemCleared(*key)) for key in closed]

    def open(self, codes: Collection[str]) -> tuple[ProblemRaised, ...]:
        """Those of `codes` that are open, in the order in which they were raised."""
        return tuple(problem for (code, _), problem in self._open.items() if code in codes)

    def __contains__(self, code: str) -> bool:
        return any(c == code for c, _ in self._open)


def restart_needed(problems: Problems, version: int) -> list[Effect]:
    """Free-running nodes know no cycle from which a change could hold for all."""
    return problems.raise_(
        "RESTART_NEEDED",
        "error",
        f"manifest {version} changes what is trained, or how",
        "restart the daemon to train under the new version",
    )


def removed(problems: Problems, version: int) -> list[Effect]:
    """The admins removed this bank."""
    return problems.raise_(
        "REMOVED",
        "error",
        f"the admins removed this bank in version {version}",
        "what it learned goes on scoring; ask the admins, and if they admit it again, join and restart",
    )
