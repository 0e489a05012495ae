"""What a node is started with: its operator's choices, and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pfed.core.effects import Checkpoint, KeptModel, KeptProof
from p2pfed.core.messages import ModelUpdate
from p2pfed.core.reputation.params import STANDARD, ReputationParams
from p2pfed.core.reputation.peer_record import PeerRecord, Scales
from p2pfed.core.types import NodeId


@dataclass(frozen=True)
class NodeSettings:
    """What one operator chose; everything that must be equal everywhere is the manifest's."""

    rounds: int = 0
    """Stop training after so many rounds, which with a calendar is at the end of that cycle; 0 never."""
    evaluate_every: int = 1
    endpoints: tuple[str, ...] = ()
    """Where this node can be dialled; empty if it can only dial out."""
    software: str = ""
    blocked: frozenset[NodeId] = frozenset()
    judging: ReputationParams = STANDARD
    """What its reputation goes by; other than the standard only in experiments."""


@dataclass(frozen=True)
class Memory:
    """What a restart remembers."""

    epoch: int
    """How often this state directory has been started."""
    instance: str
    checkpoint: Checkpoint | None = None
    marks: dict[NodeId, tuple[int, str]] = field(default_factory=dict)
    updates: tuple[ModelUpdate, ...] = ()
    """Others' updates that a push was acknowledged for, verified again."""
    peers: dict[NodeId, PeerRecord] = field(default_factory=dict)
    """The newest `Save.peers` of every member."""
    scales: Scales | None = None
    """The newest `Save.scales`."""
    proofs: dict[str, KeptProof] = field(default_factory=dict)
    """Every `Save.proofs`."""
    champion: KeptModel | None = None
    """The newest `KeepModel`."""
    bests: tuple[KeptModel, ...] = ()
    """Those of the newest `KeepModel`."""
    pardoned: tuple[NodeId, ...] = ()
    """Whose quarantine was forgotten with this start: it came from before there was a calendar."""

    def outdated(self, model_digest: str) -> bool:
        """Whether what is remembered of models is about another one than that of this `Manifest.model_digest`."""
        return self.checkpoint is not None and self.checkpoint.model != model_digest
