"""Replaying a journal: a node made of the same parts is given the same inputs, and must do what the recorded one did.

Where it does not, the code, the machine's arithmetic or the recorded daemon's memory was another.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import threadpoolctl

from p2pfed.core.aggregation import is_foreign, rule_problem
from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect, Emit
from p2pfed.core.events import RoundCompleted
from p2pfed.core.identity import SIGNATURE_BYTES, verify
from p2pfed.core.inputs import Input, ManifestChanged
from p2pfed.core.node import GossipNode
from p2pfed.errors import ConfigError, UsageError
from p2pfed.runtime.journal import JournalReader, Record
from p2pfed.runtime.journal_values import ValueReader, digest
from p2pfed.runtime.recording import Birth, state_digest, taken_apart

INPUTS: dict[str, type] = {kind.__name__: kind for kind in get_args(Input)}

UNREADABLE = (LookupError, TypeError, ValueError, ArithmeticError, RecursionError)
"""What values raise that no recording wrote."""
BRIEF = 200
"""Characters of such an error that are told."""
MOST_THREADS = 4096

Done = tuple[tuple[str, str], ...]
"""Kind and digest of each effect, in order."""


class ReplayedSigner:
    """Holds no key: gives out recorded signatures in order, and notices when they do not belong to what is signed."""

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key
        self.strayed = False
        """Whether something was to be signed that the recorded node did not sign."""
        self._recorded: deque[bytes] = deque()

    def expect(self, signatures: list[bytes]) -> None:
        """The signatures to give out from now on."""
        self._recorded, self.strayed = deque(signatures), False

    def sign(self, message: bytes) -> bytes:
        """The next recorded signature, whether or not it is one of `message`."""
        signature = self._recorded.popleft() if self._recorded else bytes(SIGNATURE_BYTES)
        self.strayed |= not verify(self.public_key, message, signature)
        return signature


@dataclass(frozen=True)
class Entry:
    """One input of the recorded node, and what came of it."""

    number: int
    """From 1."""
    at: float
    """The node's time, Unix seconds."""
    wall: float | None
    """What the machine's clock showed, Unix seconds; None is the node's time."""
    given: Input
    signatures: list[bytes]
    done: Done
    raised: str | None
    """The exception that the recorded daemon died of, if it did."""


@dataclass(frozen=True)
class Difference:
    """The first thing that the replayed node did otherwise."""

    entry: int
    at: float
    input: str
    what: str


@dataclass
class Replay:
    """What a replay found, up to the first difference."""

    member: str
    made_by: dict[str, Any]
    entries: int = 0
    effects: int = 0
    rounds: int = 0
    """Rounds completed since the recording began."""
    seconds: float = 0.0
    """Of the node's time, from the first entry to the last."""
    inputs: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    """`recording.state_digest` of the node in the end."""
    ending: Literal["whole", "open", "cut", "until"] = "open"
    """`whole`: the daemon stopped by itself; `open`: it was killed between two entries, `cut`: within one; `until`: the
    rest was not asked for."""
    difference: Difference | None = None


Watch = Callable[[Entry, list[Effect], GossipNode], None]


class Journal:
    """A journal being read: the node it is about, and its entries."""

    def __init__(self, reader: JournalReader) -> None:
        """Read the header; raises StateCorrupt, or ConfigError where the file ends before or within it.

        A journal may come from anybody, and may name any module as its merge rule: outside `code_allowed` nothing is
        imported and UsageError raised.
        """
        self._reader, self._values = reader, ValueReader()
        self._records = reader.records()
        header = next(self._records, None)
        if header is None:
            raise ConfigError(f"{reader.path} ends before it says of which node it is: there is nothing to replay")
        self.end: str | None = None
        """State digest in the end, once it has been read."""
        head = header.head
        try:
            self.made_by = dict(head["made_by"])
            self.threads = _threads(self.made_by.get("threads", 1))
            self.signer = ReplayedSigner(bytes.fromhex(head["public_key"]))
            self.signer.expect(_signatures(head))
            self.birth: Birth = self._values.build(Birth, head["birth"], header.blobs)
            for signed in self.birth.chain:
                self._check_rule(signed.manifest)
            self.node = GossipNode(self.signer, *self.birth.parts())
        except UNREADABLE as error:
            raise self._unreadable(error, "the header") from None

    def entries(self) -> Iterator[Entry]:
        """In order; raises StateCorrupt at one that is damaged."""
        for number, record in enumerate(self._records, 1):
            try:
                if record.head["kind"] == "end":
                    self.end = str(record.head["state"])
                    return
                yield self._entry(number, record)
            except UNREADABLE as error:
                raise self._unreadable(error, f"entry {number}") from None

    def _check_rule(self, manifest: Manifest) -> None:
        rule = manifest.gossip.rule
        if is_foreign(rule) and (problem := rule_problem(rule)):
            raise UsageError(f"{self._reader.path}: {problem}")

    def _entry(self, number: int, record: Record) -> Entry:
        head = record.head
        given = self._values.build(INPUTS[head["input"]], head["given"], record.blobs)
        if isinstance(given, ManifestChanged):
            self._check_rule(given.manifest)
        done = tuple((str(kind), str(of)) for kind, of in head["effects"])
        at, raised = float(head["at"]), head["raised"]
        wall = None if head["wall"] is None else float(head["wall"])
        if not math.isfinite(at) or not math.isfinite(wall or 0.0) or not isinstance(raised, str | None):
            raise ValueError(f"at {at}, wall {wall}, raised {raised!r}")
        return Entry(number, at, wall, given, _signatures(head), done, raised)

    def _unreadable(self, error: Exception, what: str) -> Exception:
        said = str(error)
        brief = said if len(said) <= BRIEF else f"{said[:BRIEF]}..."
        return self._reader.damaged(f"{what} is not one that this version reads ({brief})")


def replay(path: Path, until: int | None = None, watch: Watch | None = None) -> Replay:
    """Replay the journal in `path`, or its entries up to number `until`, and compare.

    `watch` sees each entry, what the replayed node made of it, and the node. Raises what JournalReader and Journal do.
    """
    with JournalReader(path) as reader:
        journal = Journal(reader)
        node = journal.node
        # a sum of many numbers differs in its last bits with the number of threads that share it
        with threadpoolctl.threadpool_limits(journal.threads, "blas"):
            result = Replay(node.name_of(node.me), journal.made_by)
            if journal.signer.strayed:
                result.difference = Difference(0, 0.0, "start", "it signs something else when it is made")
            else:
                _follow(journal, result, until, watch)
        result.digest = state_digest(node)
        if reader.cut:
            result.ending = "cut"
        if journal.end is not None:
            result.ending = "whole"
            if journal.end != result.digest:
                what = "all effects are the same, but not the node's state in the end"
                result.difference = Difference(result.entries, 0.0, "end", what)
    return result


def _follow(journal: Journal, result: Replay, until: int | None, watch: Watch | None) -> None:
    began = None
    for entry in journal.entries():
        began = entry.at if began is None else began
        effects, what = _step(journal, entry)
        if watch is not None:
            watch(entry, effects, journal.node)
        kind = type(entry.given).__name__
        result.entries, result.seconds = entry.number, entry.at - began
        result.inputs[kind] = result.inputs.get(kind, 0) + 1
        result.effects += len(effects)
        result.rounds += sum(isinstance(e, Emit) and isinstance(e.event, RoundCompleted) for e in effects)
        if what is not None:
            result.difference = Difference(entry.number, entry.at, kind, what)
            return
        if entry.number == until:
            result.ending = "until"
            return


def _step(journal: Journal, entry: Entry) -> tuple[list[Effect], str | None]:
    """What the replayed node does with an entry, and how that differs."""
    journal.signer.expect(entry.signatures)
    effects: list[Effect] = []
    raised = None
    try:
        effects = journal.node.handle(entry.given, entry.at, entry.wall)
    except Exception as error:  # whatever the node fails on, here or when it was recorded, is what is being looked for
        raised = repr(error)
    if raised != entry.raised:
        return effects, f"it ends with {raised or 'no error'}; recorded was {entry.raised or 'no error'}"
    done = tuple((kind, digest(value, blobs)) for kind, value, blobs in map(taken_apart, effects))
    return effects, _difference(entry.done, done, journal.signer.strayed)


def _difference(recorded: Done, done: Done, strayed: bool) -> str | None:
    aside = "; what it signs differs too" if strayed else ""
    for number, (before, now) in enumerate(zip(recorded, done, strict=False), 1):
        place = f"effect {number} of {len(recorded)}"
        if before[0] != now[0]:
            return f"{place} is {now[0]}; recorded was {before[0]}{aside}"
        if before[1] != now[1]:
            return f"{place}, {now[0]}, has another content{aside}"
    if len(recorded) != len(done):
        longer, word = (recorded, "missing") if len(recorded) > len(done) else (done, "too many")
        kinds = ", ".join(kind for kind, _ in longer[min(len(recorded), len(done)) :])
        return f"{len(done)} effects; recorded were {len(recorded)}: {word} {kinds}{aside}"
    return "it signs something else" if strayed else None


def _threads(given: Any) -> int:
    if not isinstance(given, int) or not 1 <= given <= MOST_THREADS:
        raise ValueError(f"{given!r} threads")
    return given


def _signatures(head: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(signature) for signature in head["signatures"]]
