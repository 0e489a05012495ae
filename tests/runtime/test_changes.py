"""Drivers and trainers while a manifest changes the model: what is trusted, and which manifest a trainer is given."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import StartTraining
from p2pfed.core.events import RoundCompleted
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.inputs import TrainerReady, TrainingFinished
from p2pfed.core.model import ModelSpec
from p2pfed.core.succession import earliest_change
from tests.consortia import GOSSIP, consortium, next_version, sign
from tests.runtime.test_driver import MemoryStore, running
from tests.runtime.test_trainers import MANIFEST, watched

HOUR = 3600


def other_model(manifest: Manifest, cycle: int, issued: float) -> Manifest:
    model = replace(manifest.model, hidden=(7,))
    return next_version(
        manifest,
        model=model,
        initial_sha256=model.initial_weights(manifest.seed).digest,
        generation=2,
        generation_cycle=cycle,
        from_cycle=cycle,
        issued=int(issued),
    )


def weights(model: ModelSpec) -> int:
    return model.schema().size


async def test_drivers_follow_a_change_of_the_model_without_a_restart() -> None:
    calendar = Calendar(int(time.time()) - 3 * HOUR + 600, HOUR, 20, 1.0)
    members = consortium(2, gossip=replace(GOSSIP, heartbeat_seconds=0.1), calendar=calendar)
    old = members.manifest
    new = other_model(old, earliest_change(old, time.time()), time.time())
    async with running(members, MemoryStore(), MemoryStore(), opens=True) as (banks, _):
        changed = await banks[0].driver.follow(sign(new, *members.admins[:2]))
        assert changed is not None
        banks[0].driver.put(changed)
        for bank in banks:
            await bank.until(lambda b=bank: b.driver.node.manifest.version == 2)
            trust = bank.driver.trust()
            assert trust.manifest.model == old.model and bank.driver.force.coming == new
            assert trust.accepted_versions == {1, 2} and trust.other_models == {new.model_digest}
        later = calendar.begins(new.from_cycle) - time.time() - 1
        for bank in banks:
            bank.driver.wall = lambda: time.time() + later
        for bank in banks:
            await bank.until(lambda b=bank: b.driver.node.manifest == new, 20)
            await bank.until(lambda b=bank: any(isinstance(e, RoundCompleted) and e.merged for e in b.told), 20)
            trust = bank.driver.trust()
            assert (trust.manifest, trust.accepted_versions) == (new, {2}) and trust.other_models == {old.model_digest}
            assert bank.driver.node.rounds.vector.size == weights(new.model)
            assert not bank.driver.node.reputation.quarantine


async def test_a_trainer_is_given_the_manifest_of_its_cycle(tmp_path: Path) -> None:
    old = replace(MANIFEST, calendar=Calendar(0, HOUR, 20, 1.0))
    new = other_model(old, 7, 0)
    async with watched(tmp_path) as bank:
        bank.trainers.use(old, new)
        for cycle, manifest in ((6, old), (7, new)):
            bank.trainers.open(cycle, accept=False)
            assert (await bank.next(TrainerReady)).cycle == cycle
            bank.trainers.submit(StartTraining(1, manifest.initial.vector, b"", cycle))
            assert (await bank.next(TrainingFinished)).vector.size == weights(manifest.model)
