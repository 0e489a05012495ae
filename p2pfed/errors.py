"""Every exception p2pfed raises on purpose, and the exit code each one ends a process with.

    P2PFedError                 1   something failed that no class below names
    ├── LocalFault              1   we, our machine or our operator did it
    │   ├── UsageError          2   the command line makes no sense
    │   ├── StateCorrupt       65   the state directory, or a file, contradicts itself
    │   ├── Unavailable        69   a port, a database or the daemon is not there
    │   │   └── NoDescriptors  69   too many files and connections are open; the daemon waits for it to be over
    │   ├── StateLocked        73   another daemon holds the state directory, or it cannot be made
    │   ├── DiskFault          74   the disk is full or refuses to write
    │   ├── NotPermitted       77   a key file, or the state directory, is open to others; or no member
    │   ├── ConfigError        78   the configuration is wrong (carries every problem at once)
    │   └── DataError          78   the bank's rows do not fit its configuration
    ├── RemoteFault             1   a peer broke the rules: costs that peer, never this node
    └── Interrupted           130   Ctrl-C

A message says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pfed.core.types import NodeId, Reason


class P2PFedError(Exception):
    """Root of every deliberate error; `exit_code` is what the process ends with."""

    exit_code = 1


class LocalFault(P2PFedError):
    """Something on this side is wrong: never held against a peer."""


class UsageError(LocalFault):
    """The command line makes no sense."""

    exit_code = 2


class StateCorrupt(LocalFault):
    """The state directory, or a file, contradicts itself; an operator must decide."""

    exit_code = 65


class Unavailable(LocalFault):
    """A port, a database or the daemon is not there."""

    exit_code = 69


class NoDescriptors(Unavailable):
    """Too many files and connections are open to open one more; nothing was done, and it may work later."""


class StateLocked(LocalFault):
    """Another daemon holds the state directory, or it cannot be created."""

    exit_code = 73


class DiskFault(LocalFault):
    """The disk is full or refuses to write."""

    exit_code = 74


class NotPermitted(LocalFault):
    """A key file is readable by others, or the state directory writable; or this node is not a member."""

    exit_code = 77


class ConfigError(LocalFault):
    """The configuration is wrong; `problems` holds one line each, `file:line:col: what` where known."""

    exit_code = 78

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DataError(LocalFault):
    """The bank's rows do not fit its configuration or the feature contract."""

    exit_code = 78


class RemoteFault(P2PFedError):
    """A peer's bytes or behaviour broke a rule; `reason` names the rule.

    `signer` is who signed the offending content, to be blamed for it; without one, blame whoever handed over the bytes.
    """

    def __init__(self, reason: Reason, detail: str = "", signer: NodeId | None = None) -> None:
        super().__init__(f"{reason.sentence}{f' ({detail})' if detail else ''}")
        self.reason = reason
        self.detail = detail
        self.signer = signer


class Interrupted(P2PFedError):
    """The operator pressed Ctrl-C."""

    exit_code = 130
