"""What the admin API asks of the running node; `runtime` implements it."""

from __future__ import annotations

from typing import Protocol

from p2pfed.api.schemas import EvidenceRow, MemberRow, ReputationReply, Status, UpdateRow


class NodeView(Protocol):
    """Answers at once and without I/O: the event loop waits for nobody."""

    def status(self) -> Status:
        """The whole status."""
        ...

    def members(self) -> list[MemberRow]:
        """All members of the manifest, this node among them."""
        ...

    def updates(self) -> list[UpdateRow]:
        """All other members of the manifest."""
        ...

    def reputation(self, member: str) -> ReputationReply:
        """What is thought of another member, given by name or id; raises UsageError if there is none."""
        ...

    def evidence(self) -> list[EvidenceRow]:
        """All proofs of equivocation, oldest first."""
        ...

    def ready(self) -> bool:
        """Whether state and listener are open and the node is not stopping; peers do not matter."""
        ...

    def stop(self) -> None:
        """Begin a graceful stop and return."""
        ...

    def reload(self) -> list[str]:
        """Read the configuration again as on SIGHUP: one line for each thing changed or in need of a restart.

        Raises ConfigError, and the old configuration stays.
        """
        ...

    async def block(self, member: str, blocked: bool) -> str:
        """Have nothing to do with another member, or again; durable on return. Says what is so now.

        Raises UsageError if there is none of that name or id, LocalFault if the configuration says otherwise.
        """
        ...

    async def refresh(self, accept: bool) -> str:
        """Have the payments read anew, with `accept` also if they look wrong. Says what follows."""
        ...

    async def pardon(self, member: str) -> str:
        """Forget what speaks against another member; durable on return. Says what was forgotten; raises UsageError."""
        ...
