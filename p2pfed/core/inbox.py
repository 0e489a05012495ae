"""Admission of updates, and one slot per member for the newest admitted one.

However often and by whatever way a member's models arrive, it has one slot and so one vote. A slot keeps counting in
merge after merge; how long, the calendar's rounds say, and where nodes run freely `expiry` of their own merges. One
merge takes the slots that arrived last: in a large consortium most are old, and averaging many old models in costs more
than it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice, takewhile

from p2pfed.core.messages import ModelUpdate
from p2pfed.core.types import NodeId, Reason, Verdict

SLOT_EXPIRY = 8
"""Own merges after which a free-running node, which has no other clock, forgets a model."""


@dataclass(frozen=True)
class Slot:
    """The newest update of a member, and how many merges this node had done when it arrived."""

    update: ModelUpdate
    arrived_merge: int
    relayed: bool = False
    """Whether another member than its sender handed it over."""
    merged_in: int | None = None
    """The round whose merge took it first, of a free-running node the merge; None while it is new."""


class Inbox:
    """One slot per member, and the replay marks that outlive the slots.

    `marks` holds, per member, the highest admitted (seq, statement digest); after a restart give the checkpoint's.
    """

    def __init__(
        self, me: NodeId, marks: Mapping[NodeId, tuple[int, str]] | None = None, expiry: int = SLOT_EXPIRY
    ) -> None:
        self._me = me
        self._expiry = expiry
        self._marks = dict(marks or {})
        self._slots: dict[NodeId, Slot] = {}  # in order of arrival
        self._risen: dict[NodeId, tuple[int, str]] = {}
        # Members whose marked update was lost with the memory of the process before: that one may come once more.
        self._lost = set(self._marks)

    @property
    def marks(self) -> dict[NodeId, tuple[int, str]]:
        """Highest admitted (seq, statement digest) per member."""
        return dict(self._marks)

    def risen_marks(self) -> dict[NodeId, tuple[int, str]]:
        """The marks that have risen since they were last asked for: what `Save` makes durable."""
        risen, self._risen = self._risen, {}
        return risen

    def offer(self, update: ModelUpdate, now_merge: int, relayed: bool = False) -> tuple[Verdict, Reason | None]:
        """Admit a verified update into its sender's slot, or say why not; `now_merge` counts this node's merges."""
        reason = self._refusal(update)
        if reason is not None:
            return reason.verdict, reason
        sender = update.statement.sender
        self._marks[sender] = self._risen[sender] = (update.statement.seq, update.digest)
        self._slots.pop(sender, None)
        self._slots[sender] = Slot(update, now_merge, relayed)
        self._lost.discard(sender)
        return Verdict.ACCEPT, None

    def fresh(self, allowed: Callable[[NodeId], bool], most: int | None = None) -> list[Slot]:
        """The slots of `allowed` members, those that arrived last first; the first `most` of them."""
        return list(islice((slot for member, slot in reversed(self._slots.items()) if allowed(member)), most))

    def merged(self, members: Iterable[NodeId], number: int) -> None:
        """The updates of `members`, which were new, are so no more: the merge of round `number` took them."""
        for member in members:
            self._slots[member] = replace(self._slots[member], merged_in=number)

    def keep(self, most: int) -> list[NodeId]:
        """Forget all but the `most` slots that arrived last, and answer whose they were."""
        old = list(islice(self._slots, max(len(self._slots) - most, 0)))
        for member in old:
            del self._slots[member]
        return old

    def expire(self, now_merge: int) -> list[NodeId]:
        """Forget the slots of so many merges ago, and answer whose they were."""
        oldest_first = self._slots.items()
        expired = [m for m, _ in takewhile(lambda one: now_merge - one[1].arrived_merge >= self._expiry, oldest_first)]
        for member in expired:
            del self._slots[member]
        return expired

    def slot(self, member: NodeId) -> Slot | None:
        """The slot of `member`, if anything of it is there."""
        return self._slots.get(member)

    def newest_seq(self, member: NodeId) -> int:
        """The highest sequence number ever admitted of `member`, which it must never reuse; 0 is none."""
        return self._marks.get(member, (0, ""))[0]

    def pull_after(self, member: NodeId) -> int:
        """The sequence number above which to ask for updates: after a restart the newest one is asked for again."""
        return self.newest_seq(member) - (member in self._lost)

    def _refusal(self, update: ModelUpdate) -> Reason | None:
        sender, seq = update.statement.sender, update.statement.seq
        if sender == self._me:
            return Reason.OWN_UPDATE
        marked_seq, marked_digest = self._marks.get(sender, (0, ""))
        if seq < marked_seq:
            return Reason.OLDER_SEQUENCE
        if seq == marked_seq and update.digest != marked_digest:
            return Reason.EQUIVOCATION
        if seq == marked_seq and sender not in self._lost:
            return Reason.DUPLICATE
        if not update.finite:
            return Reason.NOT_FINITE
        return None
