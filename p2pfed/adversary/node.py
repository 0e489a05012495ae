"""A member that follows the protocol to the letter and signs poisoned models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from p2pfed.adversary.attacks import Attack
from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect, Publish, Push, Save, StartTraining
from p2pfed.core.identity import Signer
from p2pfed.core.inputs import Input, TrainingFinished
from p2pfed.core.node import GossipNode
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.wire import seal_update


@dataclass(frozen=True)
class Campaign:
    """An attack in the attacker's rounds from `start` up to, but without, `stop`; None is to the end."""

    attack: Attack
    start: int = 1
    stop: int | None = None

    def on(self, round_number: int) -> bool:
        """Whether the model of this round is poisoned."""
        return self.start <= round_number and (self.stop is None or round_number < self.stop)


class AttackingNode(GossipNode):
    """A GossipNode whose frames are sealed over poisoned models while its campaign is on.

    It trains, merges, and signs its own sequence numbers like everybody else; what it saves is what it published, so
    that a restart does not convict it of signing two models with one number.
    """

    def __init__(
        self,
        signer: Signer,
        manifest: Manifest,
        settings: NodeSettings,
        memory: Memory,
        rng: np.random.Generator,
        campaign: Campaign,
    ) -> None:
        super().__init__(signer, manifest, settings, memory, rng)
        self._signer, self._instance, self._campaign = signer, memory.instance, campaign
        self._poison_rng = rng.spawn(1)[0]
        self._begun = self.rounds.vector

    def handle(self, given: Input, now: float) -> list[Effect]:
        """As `GossipNode.handle`; the effects of a finished round carry the poisoned frame."""
        before, previous = self.rounds.seq, self.rounds.statement_digest
        effects = super().handle(given, now)
        if isinstance(given, TrainingFinished) and self.rounds.seq > before and self._campaign.on(self.rounds.round):
            effects = self._poisoned(effects, given, previous)
        for effect in effects:
            if isinstance(effect, StartTraining):
                self._begun = effect.vector
        return effects

    def _poisoned(self, effects: list[Effect], done: TrainingFinished, previous: str) -> list[Effect]:
        rounds = self.rounds
        update = seal_update(
            self._signer,
            manifest=self.manifest,
            instance=self._instance,
            seq=rounds.seq,
            previous=previous,
            round=rounds.round,
            rows=rounds.train_rows,
            vector=self._campaign.attack.poison(done.vector, self._begun, self._poison_rng),
        )
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
