"""A member that follows the protocol but where its attack says otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from p2pfed.adversary.attack import View
from p2pfed.adversary.attacks import Campaign
from p2pfed.adversary.coalition import Coalition
from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect, Publish, Push, Save, SetTimer, StartTraining
from p2pfed.core.identity import Signer
from p2pfed.core.inputs import Input, Started, TimerFired, TrainingFinished
from p2pfed.core.messages import ModelUpdate
from p2pfed.core.node import GossipNode
from p2pfed.core.phase import Phase
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.succession import InForce
from p2pfed.core.types import NodeId
from p2pfed.core.updates import NEAR_ROUNDS
from p2pfed.core.weights import Vector
from p2pfed.core.wire import seal_update

FLOOD = "flood"
"""Name of the timer of an attack that pushes."""
LARGEST = np.finfo(np.float32).max
SPARE = 2**20
"""Sequence numbers left out after a restart: what was signed for one asker alone is in no checkpoint."""


class AttackingNode(GossipNode):
    """A GossipNode whose attack poisons what it publishes, or what it hands to whom, while its campaign is on.

    It trains, merges, and signs its own sequence numbers like everybody else; what it saves is what it published, so
    that a restart does not convict it of signing two models with one number. An attack on its training rows is not its
    business: whoever gives it its trainer calls `Attack.rows`.
    """

    def __init__(
        self,
        signer: Signer,
        manifest: Manifest,
        settings: NodeSettings,
        memory: Memory,
        rng: np.random.Generator,
        campaign: Campaign,
        coalition: Coalition | None = None,
        force: InForce | None = None,
    ) -> None:
        """`coalition` is what it knows together with others of the same process; without, it is alone."""
        super().__init__(signer, manifest, settings, memory, rng, force)
        self.signer, self._instance, self._campaign = signer, memory.instance, campaign
        self._coalition = Coalition() if coalition is None else coalition
        self._coalition.members.add(self.me)
        self._attack_rng = rng.spawn(1)[0]
        self._begun = self.rounds.vector
        self._trained: tuple[Vector, Vector] | None = None
        """What the newest round began from, and what it made of that."""
        self._previous = ""
        """Digest of the statement before the newest published one."""

    # --- what an attack may ask ---------------------------------------------------------------------------------------

    def view(self, asking: NodeId | None = None) -> View | None:
        """See `Attacker`; with nobody asking, what is known when a model is published."""
        if self._trained is None:
            return None
        begun, honest = self._trained
        return View(
            self.manifest,
            honest,
            begun,
            self._attack_rng,
            self._coalition.honest(),
            self._coalition.others(self.me),
            self.reputation.yardstick.probe,
            None if asking is None else self._coalition.model(asking),
            asking is not None and self._behind(asking),
        )

    def _behind(self, member: NodeId) -> bool:
        """Whether `member` has published, but nothing that is near this node's round."""
        heartbeat = self.peers.heartbeat(member)
        if heartbeat is None or not heartbeat.seq:
            return False
        return self.manifest.calendar.number(heartbeat.cycle, heartbeat.round) + NEAR_ROUNDS < self.rounds.round

    def sign_next(self, vector: Vector) -> ModelUpdate:
        """See `Attacker`."""
        rounds = self.rounds
        update = self._sealed(rounds.seq + 1, rounds.statement_digest, vector)
        rounds.seq, rounds.statement_digest = rounds.seq + 1, update.digest
        return update

    def sign_again(self, vector: Vector) -> ModelUpdate:
        """See `Attacker`."""
        return self._sealed(self.rounds.seq, self._previous, vector)

    def _sealed(self, seq: int, previous: str, vector: Vector) -> ModelUpdate:
        return seal_update(
            self.signer,
            manifest=self.manifest,
            instance=self._instance,
            seq=seq,
            previous=previous,
            round=self.rounds.round,
            rows=self.rounds.train_rows,
            vector=vector.clip(-LARGEST, LARGEST),  # a poisoned model that is not finite would be seen at once
        )

    # --- what it does otherwise ---------------------------------------------------------------------------------------

    @property
    def _on(self) -> bool:
        return self._campaign.on(self.rounds.round)

    def serve(self, asking: NodeId, member: NodeId, frame: bytes) -> bytes:
        """As `GossipNode.serve`, but for what the attack answers."""
        return self._campaign.attack.answer(self, asking, member, frame) if self._on else frame

    def handle(self, given: Input, now: float, wall: float | None = None) -> list[Effect]:
        """As `GossipNode.handle`; what leaves the node carries what the attack makes of it."""
        if given == TimerFired(FLOOD):
            return self._flood(now)
        before, previous = self.rounds.seq, self.rounds.statement_digest
        effects = super().handle(given, now, wall)
        if isinstance(given, TrainingFinished):
            self._learn(given)
            if self.rounds.seq > before:
                self._previous = previous
                effects = self._poisoned(effects)
        if isinstance(given, Started):
            self.rounds.seq += SPARE if self.rounds.seq else 0
            effects += self._next_flood(now)
        for effect in effects:
            if isinstance(effect, StartTraining):
                self._begun = effect.vector
        return [self._handed(effect) for effect in effects]

    def _learn(self, done: TrainingFinished) -> None:
        """Tell the coalition what this node trained and received."""
        self._trained = self._begun, done.vector
        self._coalition.trained(self.me, done.vector)
        for slot in self.updates.slots():
            self._coalition.heard(slot.update)

    def _poisoned(self, effects: list[Effect]) -> list[Effect]:
        """The effects with the poisoned model in the place of the one that was to be published."""
        view, rounds = self.view(), self.rounds
        if not self._on or view is None:
            return effects
        with np.errstate(over="ignore"):
            vector = self._campaign.attack.poison(view)
        if vector is view.honest:
            return effects
        update = self.sign_again(vector)
        honest, rounds.frame, rounds.statement_digest = rounds.frame, update.frame, update.digest

        def forged(effect: Effect) -> Effect:
            match effect:
                case Publish(_, _, frame) | Push(_, _, frame) if frame is honest:
                    return replace(effect, frame=update.frame)
                case Save(checkpoint) if checkpoint is not None:
                    kept = replace(checkpoint, published=update.frame, statement_digest=update.digest)
                    return replace(effect, checkpoint=kept)
            return effect

        return [forged(effect) for effect in effects]

    def _handed(self, effect: Effect) -> Effect:
        """A push is an answer to who did not ask."""
        return (
            replace(effect, frame=self.serve(effect.peer, self.me, effect.frame))
            if isinstance(effect, Push)
            else effect
        )

    def _flood(self, now: float) -> list[Effect]:
        if self.rounds.phase is Phase.STOPPED:
            return []
        effects = self._next_flood(now)
        if self._trained is not None and self.rounds.frame and self._on:
            frame = self.sign_next(self._trained[1]).frame
            others = [m for m in sorted(self.members) if m != self.me and self.peers.dialable(m, now)]
            effects += [Push(m, self.peers.endpoints(m), frame) for m in others]
        return effects

    def _next_flood(self, now: float) -> list[Effect]:
        seconds = self._campaign.attack.floods
        return [SetTimer(FLOOD, now + seconds)] if seconds else []
