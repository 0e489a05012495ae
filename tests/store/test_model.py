"""The two stores told the same story, whatever the story: refusals, restarts and all."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from p2pfed.core.effects import Checkpoint, Save
from p2pfed.core.types import NodeId
from p2pfed.errors import StateCorrupt
from p2pfed.store.base import MemoryDisk, MemoryStore, Restored
from p2pfed.store.history import StoredEvent
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir

MEMBERS = st.sampled_from([NodeId(c * 56) for c in "ABC"])
KINDS = st.sampled_from(["round_completed", "model_evaluated", "node_started"])


class TwoStores(RuleBasedStateMachine):
    """Every step goes to both; every answer must be equal."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.disk = MemoryDisk()
        self.loop = asyncio.new_event_loop()
        self.stores = self.opened()
        self.last = 0

    def opened(self):
        return MemoryStore(self.disk), SqliteStore(StateDir(self.folder))

    def both(self, method, *args):
        answers = []
        for store in self.stores:
            try:
                answers.append(self.loop.run_until_complete(getattr(store, method)(*args)))
            except (StateCorrupt, ValueError) as error:
                answers.append(str(error))
        assert answers[0] == answers[1]
        return answers[0]

    @rule(
        seq=st.integers(0, 4),
        digest=st.sampled_from("xy"),
        round_number=st.integers(0, 9),
        vector=st.lists(st.floats(width=32), max_size=3),
        threshold=st.none() | st.floats(0, 1),
        blobs=st.tuples(st.binary(max_size=4), st.binary(max_size=4), st.binary(max_size=4)),
        marks=st.dictionaries(MEMBERS, st.tuples(st.integers(0, 5), st.sampled_from("pq"))),
    )
    def save(self, seq, digest, round_number, vector, threshold, blobs, marks):
        numbers = np.array(vector, np.float32)
        self.both("save", Save(Checkpoint(round_number, seq, digest, numbers, *blobs, threshold, "m"), marks))

    @rule(frames=st.dictionaries(MEMBERS, st.binary(max_size=5)))
    def push(self, frames):
        self.both("save", Save(frames=frames))

    @rule(skip=st.sampled_from([0, 0, 0, 1, -1]), kinds=st.lists(KINDS, max_size=4), number=st.integers(0, 6))
    def append(self, skip, kinds, number):
        first = self.last + 1 + skip
        text = f'{{"round":{number}}}'
        refused = self.both("append", [StoredEvent(first + i, 0.1 * i, k, text) for i, k in enumerate(kinds)])
        assert bool(refused) == bool(skip and kinds)
        self.last += 0 if refused else len(kinds)

    @rule(version=st.integers(1, 12), signed=st.binary(max_size=5))
    def manifest(self, version, signed):
        self.both("save_manifest", version, signed)

    @rule(since=st.integers(0, 10), limit=st.integers(1, 5))
    def read(self, since, limit):
        self.both("events", since, limit)
        self.both("rounds", since, limit)

    @rule()
    def restart(self):
        for store in self.stores:
            store.close()
        self.stores = self.opened()
        first, second = (plain(store.restore()) for store in self.stores)
        first.pop("instance"), second.pop("instance")
        assert first == second

    @invariant()
    def chain_holds(self):
        assert self.both("verify_chain") == self.last

    def teardown(self):
        for store in self.stores:
            store.close()
        self.loop.close()
        shutil.rmtree(self.folder)


def plain(restored: Restored) -> dict:
    fields = dict(vars(restored))
    if restored.checkpoint is not None:
        fields["checkpoint"] = {**vars(restored.checkpoint), "vector": restored.checkpoint.vector.tobytes()}
    return fields


TestTwoStores = TwoStores.TestCase
TestTwoStores.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
