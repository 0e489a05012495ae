"""Admission: one slot per member, newest wins, two updates under one number are equivocation."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.inbox import Inbox
from p2pfed.core.messages import ModelUpdate, Statement
from p2pfed.core.types import NodeId, Reason, Verdict

ME, A, B = NodeId("ME"), NodeId("A"), NodeId("B")
ACCEPTED = (Verdict.ACCEPT, None)


def update(sender: NodeId, seq: int, variant: str = "", value: float = 1.0) -> ModelUpdate:
    statement = Statement("c", 1, "m", sender, "i", seq, "", seq, 64, "float32", 8, variant)
    digest = hashlib.sha256(f"{sender}/{seq}/{variant}".encode()).hexdigest()
    return ModelUpdate(statement, np.full(2, value, np.float32), f"{sender}{seq}{variant}".encode(), digest)


def refused(reason: Reason) -> tuple[Verdict, Reason]:
    return reason.verdict, reason


def test_the_newest_update_of_a_member_takes_its_one_slot() -> None:
    inbox = Inbox(ME)
    assert inbox.offer(update(A, 1), 1) == ACCEPTED
    assert inbox.offer(update(B, 7), 1) == ACCEPTED
    assert inbox.offer(update(A, 4), 2) == ACCEPTED  # gaps are fine: a member may have published while we were away
    assert [
        (s.update.statement.sender, s.update.statement.seq, s.arrived_merge) for s in inbox.fresh({A, B}.__contains__)
    ] == [
        (A, 4, 2),
        (B, 7, 1),
    ]
    assert (inbox.newest_seq(A), inbox.newest_seq(B), inbox.newest_seq(NodeId("C"))) == (4, 7, 0)
    assert inbox.marks == {A: (4, update(A, 4).digest), B: (7, update(B, 7).digest)}


def test_what_is_not_new_is_ignored_and_what_is_wrong_rejected() -> None:
    inbox = Inbox(ME)
    inbox.offer(update(A, 5), 0)
    before = inbox.marks
    assert inbox.offer(update(ME, 9), 0) == refused(Reason.OWN_UPDATE)
    assert inbox.offer(update(A, 5), 0) == refused(Reason.DUPLICATE)
    assert inbox.offer(update(A, 4), 0) == refused(Reason.OLDER_SEQUENCE)
    assert inbox.offer(update(A, 5, "other"), 0) == refused(Reason.EQUIVOCATION)
    assert inbox.offer(update(A, 6, value=float("nan")), 0) == refused(Reason.NOT_FINITE)
    assert inbox.offer(update(A, 6, value=float("inf")), 0) == refused(Reason.NOT_FINITE)
    assert inbox.marks == before
    assert [s.update for s in inbox.fresh({A, ME}.__contains__)] == [update(A, 5)]
    assert (Reason.EQUIVOCATION.verdict, Reason.DUPLICATE.verdict) == (Verdict.REJECT, Verdict.IGNORE)


@pytest.mark.parametrize("expiry", [1, 8])
def test_a_slot_is_merged_that_many_times_and_then_forgotten(expiry: int) -> None:
    inbox = Inbox(ME, expiry=expiry)
    inbox.offer(update(A, 1), 10)
    merges, forgotten = [], []
    for now in range(10, 40):
        forgotten += [(now, member) for member in inbox.expire(now)]
        merges += [now] if inbox.fresh({A}.__contains__) else []
    assert merges == list(range(10, 10 + expiry))
    assert forgotten == [(10 + expiry, A)]
    assert inbox.newest_seq(A) == 1
    assert inbox.offer(update(A, 1), 40) == refused(Reason.DUPLICATE)  # an expired model does not come back as new
    assert inbox.offer(update(A, 2), 40) == ACCEPTED


def test_an_update_is_new_until_a_merge_has_taken_it() -> None:
    inbox = Inbox(ME)
    inbox.offer(update(A, 1), 0)
    assert [s.merged_in for s in inbox.fresh({A}.__contains__)] == [None]
    inbox.merged([A], 7)
    assert [s.merged_in for s in inbox.fresh({A}.__contains__)] == [7]
    inbox.offer(update(A, 2), 0)
    assert [s.merged_in for s in inbox.fresh({A}.__contains__)] == [None]


def test_only_allowed_members_are_merged_but_others_keep_their_slots() -> None:
    inbox = Inbox(ME)
    inbox.offer(update(A, 1), 0)
    inbox.offer(update(B, 1), 0)
    assert [s.update.statement.sender for s in inbox.fresh({B}.__contains__)] == [B]
    assert len(inbox.fresh({A, B}.__contains__)) == 2


def test_after_a_restart_the_marks_hold_and_the_lost_slot_can_be_filled_once_more() -> None:
    before = Inbox(ME)
    before.offer(update(A, 5), 3)
    after = Inbox(ME, before.marks)
    assert after.fresh({A}.__contains__) == []
    assert (after.newest_seq(A), after.pull_after(A)) == (5, 4)  # so that a pull brings it again
    assert after.offer(update(A, 4), 0) == refused(Reason.OLDER_SEQUENCE)
    assert after.offer(update(A, 5, "other"), 0) == refused(Reason.EQUIVOCATION)
    assert after.offer(update(A, 5), 0) == ACCEPTED
    assert after.pull_after(A) == 5
    assert after.offer(update(A, 5), 0) == refused(Reason.DUPLICATE)
    assert after.marks == before.marks


def test_the_marks_handed_out_are_a_copy() -> None:
    inbox = Inbox(ME)
    inbox.offer(update(A, 1), 0)
    inbox.marks.clear()
    assert inbox.newest_seq(A) == 1


def test_marks_are_handed_to_the_disk_once_each_time_they_rise() -> None:
    inbox = Inbox(ME, {B: (3, "b3")})
    assert inbox.risen_marks() == {}
    for seq in (1, 2):
        inbox.offer(update(A, seq), 0)
    inbox.offer(update(B, 2), 0)
    assert inbox.risen_marks() == {A: (2, update(A, 2).digest)}
    assert inbox.risen_marks() == {}
    assert set(inbox.marks) == {A, B}


offers = st.lists(
    st.tuples(st.sampled_from([A, B, ME]), st.integers(1, 6), st.sampled_from(["", "x"]), st.booleans()), max_size=40
)


@given(offers=offers)
def test_whatever_is_offered_marks_only_rise_and_slots_hold_what_was_marked(
    offers: list[tuple[NodeId, int, str, bool]],
) -> None:
    inbox = Inbox(ME)
    for sender, seq, variant, restart in offers:
        if restart:
            inbox = Inbox(ME, inbox.marks)
        before = inbox.marks
        offered = update(sender, seq, variant)
        verdict, reason = inbox.offer(offered, 0)
        assert (reason is None) == (verdict is Verdict.ACCEPT)
        assert reason is None or reason.verdict is verdict
        old_seq, old_digest = before.get(sender, (0, ""))
        assert inbox.newest_seq(sender) == (seq if verdict is Verdict.ACCEPT else old_seq)
        assert (reason is Reason.EQUIVOCATION) == (sender != ME and seq == old_seq and offered.digest != old_digest)
        for slot in inbox.fresh({A, B, ME}.__contains__):
            admitted = slot.update.statement
            assert inbox.marks[admitted.sender] == (admitted.seq, slot.update.digest)
            assert admitted.sender != ME
