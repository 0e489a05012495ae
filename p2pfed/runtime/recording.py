"""Recording a node: what it was made of, every input, and a digest of every effect, into a file that can be replayed.

The file holds no private key: the node's signatures are recorded, and the replayed node is given them back. It does
hold this bank's models, whatever its peers sent, and the scaled payments that the node looks at models with (`Probe`):
keep it as you keep the payments.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import platform
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import threadpoolctl

from p2pfed import __version__, newfile
from p2pfed.config import NodeSection
from p2pfed.core.consortium import Manifest, SignedManifest
from p2pfed.core.effects import Effect
from p2pfed.core.identity import Signer
from p2pfed.core.inputs import Input
from p2pfed.core.node import GossipNode
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.succession import InForce, in_force
from p2pfed.errors import ConfigError
from p2pfed.logs import NodeLogger
from p2pfed.runtime.journal import MAGIC, Blob, framed
from p2pfed.runtime.journal_values import digest, plain

FLUSH_SECONDS = 1.0

TakenApart = tuple[str, Any, list[Blob]]
"""An effect's kind, and what `plain` makes of it."""


@dataclass(frozen=True)
class Birth:
    """Everything a node is made of but its key: the same birth, inputs and signatures give the same node."""

    chain: tuple[SignedManifest, ...]
    """The newest manifest last, and before it those that say what was in force before; see `last_trained`."""
    settings: NodeSettings
    memory: Memory
    seed: int
    """Of the generator that every random decision is drawn from."""
    wall: float = 0.0
    """What the machine's clock showed, Unix seconds: it says which version is in force."""

    def parts(self) -> tuple[Manifest, NodeSettings, Memory, np.random.Generator, InForce]:
        """What GossipNode takes besides its signer."""
        checkpoint = self.memory.checkpoint
        force = in_force([s.manifest for s in self.chain], self.wall, checkpoint.model if checkpoint else "")
        return force.manifest, self.settings, self.memory, np.random.default_rng(self.seed), force


class RecordingSigner:
    """Signs with another signer and remembers the signatures."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._made: list[bytes] = []

    @property
    def public_key(self) -> bytes:
        """See Signer."""
        return self._signer.public_key

    def sign(self, message: bytes) -> bytes:
        """See Signer."""
        signature = self._signer.sign(message)
        self._made.append(signature)
        return signature

    def taken(self) -> list[str]:
        """The signatures made since the last call, hex."""
        made, self._made = self._made, []
        return [signature.hex() for signature in made]


class RecordedNode(GossipNode):
    """A GossipNode that decides exactly as one, and notes what it was given and what came of it."""

    def __init__(self, signer: Signer, birth: Birth, recording: Recording) -> None:
        self._recording, self._signing = recording, RecordingSigner(signer)
        super().__init__(self._signing, *birth.parts())
        recording.begin(birth, signer.public_key, self._signing.taken())

    def handle(self, given: Input, now: float, wall: float | None = None) -> list[Effect]:
        """See GossipNode; an input that it fails on is noted too."""
        try:
            effects = super().handle(given, now, wall)
        except Exception as error:
            self._recording.note(given, now, wall, self._signing.taken(), (), raised=repr(error))
            raise
        self._recording.note(given, now, wall, self._signing.taken(), effects)
        return effects


class Recording:
    """One journal being written. What is noted waits in memory; `run` hashes and writes it beside the event loop.

    A recording that cannot go on, say on a full disk, says so once in the log and ends; the node does not notice.
    """

    def __init__(self, path: Path, log: NodeLogger) -> None:
        """Make the file, which must not exist; raises ConfigError."""
        self.path = path
        self._log = log
        self._waiting: deque[_Noted] = deque()
        self._writing = threading.Lock()
        self._ended = False
        self._file = _new_file(path)

    def begin(self, birth: Birth, public_key: bytes, signatures: list[str]) -> None:
        """Note what the node is made of, and what it signed while it was made."""
        blobs: list[Blob] = []
        head = {"kind": "header", "made_by": made_by(), "public_key": public_key.hex(), "signatures": signatures}
        self._waiting.append(_Noted(head | {"birth": plain(birth, blobs)}, blobs))

    def note(
        self,
        given: Input,
        now: float,
        wall: float | None,
        signatures: list[str],
        effects: Sequence[Effect],
        raised: str | None = None,
    ) -> None:
        """Note an input that was handled at `now`, when the clock on the wall showed `wall`, what was signed, and the
        effects or the error that came of it.
        """
        if self._ended:
            return
        blobs: list[Blob] = []
        head = {"kind": "entry", "at": now, "wall": wall, "input": type(given).__name__, "signatures": signatures}
        head["raised"] = raised
        try:
            head["given"] = plain(given, blobs)
            # taken apart now, because what an effect holds may change later; hashed in `flush`, because that takes time
            self._waiting.append(_Noted(head, blobs, [taken_apart(effect) for effect in effects]))
        except (TypeError, ValueError) as error:
            self._end(error)

    async def run(self) -> None:
        """Write what waits, every second, for ever."""
        while True:
            await asyncio.to_thread(self.flush)
            await asyncio.sleep(FLUSH_SECONDS)

    async def close(self, node: GossipNode) -> None:
        """Write what waits and how `node` is in the end; nothing is noted afterwards."""
        if not self._ended:
            self._waiting.append(_Noted({"kind": "end", "state": state_digest(node)}, []))
            self._ended = True
        await asyncio.to_thread(self.flush)
        with contextlib.suppress(OSError):  # a full disk, which `flush` has told of
            self._file.close()

    def flush(self) -> None:
        """Hand everything noted before to the operating system."""
        with self._writing:
            if not self._waiting:
                return
            try:
                while self._waiting:
                    noted = self._waiting.popleft()
                    self._file.writelines(framed(noted.finished(), noted.blobs))
                self._file.flush()
            except OSError as error:
                self._waiting.clear()
                self._end(error)

    def _end(self, error: Exception) -> None:
        self._ended = True
        self._log.error("the journal %s ends here: %s; the node goes on", self.path, error)


@dataclass(frozen=True)
class _Noted:
    """A record to write: its head but for what must be hashed, its byte strings, and the effects to hash."""

    head: dict[str, Any]
    blobs: list[Blob]
    effects: Sequence[TakenApart] = ()

    def finished(self) -> dict[str, Any]:
        if self.head["kind"] != "entry":
            return self.head
        return self.head | {"effects": [[kind, digest(value, blobs)] for kind, value, blobs in self.effects]}


def taken_apart(effect: Effect) -> TakenApart:
    """An effect as JSON values and byte strings, ready to hash."""
    blobs: list[Blob] = []
    return type(effect).__name__, plain(effect, blobs), blobs


def state_digest(node: GossipNode) -> str:
    """SHA-256 (hex) of what a node is at: model, optimiser, round, sequence number, statement, manifest version."""
    rounds = node.rounds
    words = f"{rounds.phase.name} {rounds.round} {rounds.seq} {rounds.statement_digest} {node.manifest.version}"
    state = hashlib.sha256(words.encode())
    state.update(np.ascontiguousarray(rounds.vector, "<f4").tobytes())
    state.update(rounds.optimiser)
    return state.hexdigest()


def made_by() -> dict[str, Any]:
    """What may make a difference in the last bits of a sum: versions, processor, BLAS and its number of threads."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    blas = [" ".join(str(pool.get(k)) for k in ("internal_api", "version", "architecture")) for pool in pools]
    return {
        "p2pfed": __version__,
        "numpy": np.__version__,
        "blas": ", ".join(blas),
        "machine": platform.machine(),
        "threads": max((pool["num_threads"] for pool in pools), default=1),
    }


def born(birth: Birth, signer: Signer, config: NodeSection, log: NodeLogger) -> tuple[GossipNode, Recording | None]:
    """The node, recorded if the configuration asks for it, in a file of its own for each start.

    Raises ConfigError if that file cannot be made.
    """
    if config.journal_dir is None:
        return GossipNode(signer, *birth.parts()), None
    recording = Recording(config.journal_dir / f"{config.name}-{birth.memory.epoch}.journal", log)
    return RecordedNode(signer, birth, recording), recording


def _new_file(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = newfile.create(path, 0o600)
        file.write(MAGIC)
        file.flush()
    except OSError as error:
        raise ConfigError(f"node.journal_dir: {path} cannot be made: {error.strerror}; name another folder") from None
    return file
