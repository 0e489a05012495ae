"""What `p2pfed check` tries, in the order in which `start` needs it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pfed.core.types import DAY
from p2pfed.errors import ConfigError, DataError, NotPermitted, P2PFedError, StateLocked, Unavailable

if TYPE_CHECKING:
    from p2pfed.config import NodeConfig
    from p2pfed.core.consortium import Manifest
    from p2pfed.store.state_dir import StateDir

ACCEPT = "mend the source, or, if they are right, start the daemon and let `p2pfed data refresh --accept` take them"


@dataclass(frozen=True)
class Result:
    """What came of one check; `error` is None if it passed, `doubtful` if only just."""

    name: str
    text: str
    error: P2PFedError | None = None
    doubtful: bool = False
    details: dict[str, Any] = field(default_factory=dict)


def run_checks(config: Path, settings: Sequence[str] | None, with_data: bool) -> list[Result]:
    """All checks that can be made; one that failed leaves out those that need it."""
    from p2pfed.cli.terminal import read_config
    from p2pfed.store.state_dir import StateDir

    results: list[Result] = []
    node: NodeConfig | None = _try(
        results, "configuration", lambda: (f"{config} is valid", read_config(config, settings))
    )
    if node is None:
        return results
    state = StateDir(node.node.state_dir)
    if _try(results, "state", lambda: _state(state)):
        results.append(_disk(state))
        _try(results, "history", lambda: _history(state))
        _try(results, "keys", lambda: _keys(state))
        if (journals := node.node.journal_dir) is not None:
            _try(results, "journals", lambda: _journals(journals))
        manifest: Manifest | None = _try(results, "manifest", lambda: _manifest(state, node))
        if (agreed := manifest) is not None:
            _try(results, "reputation", lambda: _reputation(state, agreed))
            results += _too_slow(state, agreed)
    else:
        manifest = None
    _try(results, "ports", lambda: _ports(state, node))
    if with_data and (found := _try(results, "data", lambda: _data(node, state, manifest))):
        results += _doubts(found)
    return results


def _try(results: list[Result], name: str, action: Callable[[], tuple[str, Any]]) -> Any:
    try:
        text, value = action()
    except P2PFedError as error:
        results.append(Result(name, "; ".join(str(error).splitlines()), error))
        return None
    results.append(Result(name, text, details=value if name == "data" else {}))
    return value


def _state(state: StateDir) -> tuple[str, bool]:
    state.check_depth()
    if not state.root.is_dir():
        raise StateLocked(f"{state.root} does not exist; `p2pfed init` makes it")
    if not os.access(state.root, os.R_OK | os.W_OK | os.X_OK):
        raise StateLocked(f"{state.root} cannot be written to by this user; change its owner or node.state_dir")
    state.check_private()
    return f"{state.root} is there", True


def _disk(state: StateDir) -> Result:
    from p2pfed.store import disk

    doubts = [d for d in (disk.not_local(state.root), disk.nearly_full(state.root)) if d is not None]
    if doubts:
        return Result("disk", "; ".join(f"{d.message}: {d.hint}" for d in doubts), doubtful=True)
    return Result("disk", f"local, {disk.free_bytes(state.root) / 1e9:,.1f} GB free")


def _history(state: StateDir) -> tuple[str, bool]:
    from p2pfed.cli.terminal import plural
    from p2pfed.store.contents import verify_history
    from p2pfed.store.lock import holder

    running = holder(state)
    text = f"{plural(verify_history(state), 'event')}, none changed since it was written"
    return f"{text}; read while in use by {running}" if running else text, True


def _reputation(state: StateDir, manifest: Manifest) -> tuple[str, bool]:
    from p2pfed.cli.terminal import plural
    from p2pfed.store.contents import read_reputation

    peers, _ = read_reputation(state)
    judged = [record for member, record in peers.items() if member in manifest.by_id and record.looks]
    quarantined = sum(record.standing == "quarantined" for record in judged)
    text = f"{plural(len(judged), 'member')} judged, {quarantined} quarantined"
    return text if manifest.gossip.reputation else f"{text}; the manifest turns reputation off", True


def _too_slow(state: StateDir, manifest: Manifest) -> list[Result]:
    """A warning if a round that `init` timed here takes longer than the calendar's."""
    from p2pfed.core.joining import needed_seconds
    from p2pfed.runtime.enrolment import made_before
    from p2pfed.store.credentials import load_member_key

    try:
        request = made_before(state.root / "join-request.json", load_member_key(state))
    except P2PFedError:  # it is only a hint, and keys have a check of their own
        return []
    needed = needed_seconds(request, manifest.training.local_steps) if request else None
    if manifest.calendar.free or needed is None or needed <= manifest.calendar.round_seconds:
        return []
    text = (
        f"a round of training took {needed:.1f} s here when init timed it, and the calendar's take "
        f"{manifest.calendar.round_seconds:g} s: this bank will skip rounds; ask the admins for longer ones"
    )
    return [Result("calendar", text, doubtful=True)]


def _journals(folder: Path) -> tuple[str, bool]:
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"node.journal_dir: {nearest} is no folder that this user may write to; name another")
    return f"will be written to {folder}; they hold some of this bank's payments, scaled: keep them as private", True


def _keys(state: StateDir) -> tuple[str, bool]:
    from p2pfed.core.identity import grouped
    from p2pfed.net.tls import certificate_of
    from p2pfed.store.credentials import load_member_key

    identity = load_member_key(state)
    certificate_of(state.tls)
    return f"this bank is {grouped(identity.node_id)}", True


def _manifest(state: StateDir, node: NodeConfig) -> tuple[str, Manifest]:
    from p2pfed.core.aggregation import is_foreign
    from p2pfed.runtime.enrolment import blocked_ids, check_member, check_rounds, trusted_chain
    from p2pfed.store.credentials import load_member_key

    chain = trusted_chain(state)
    if not chain:
        raise NotPermitted("no manifest yet; `p2pfed join --manifest M --fingerprint F` stores it")
    manifest = chain[-1].manifest
    check_member(manifest, load_member_key(state), node, state)
    check_rounds(manifest, node)
    blocked_ids(node.peers.blocklist, manifest)
    text = f"version {manifest.version} of {manifest.name}, {len(manifest.members)} members"
    left = (manifest.expires - time.time()) / DAY
    text += f", expires in {left:.0f} days" if left > 0 else ", expired: ask the admins for a new version"
    if is_foreign(manifest.gossip.rule):
        text += f"; its merge rule {manifest.gossip.rule} is code, which `start` runs with --allow-code only"
    return text, manifest


def _ports(state: StateDir, node: NodeConfig) -> tuple[str, bool]:
    from p2pfed.api.client import AdminClient
    from p2pfed.core.types import Address
    from p2pfed.net.binding import bound

    if AdminClient(state.root).answers():
        return "in use by this node's running daemon", True
    addresses = [a for a in (node.peers.listen, node.admin.listen) if a is not None]
    with contextlib.ExitStack() as both:  # at once, as the daemon does
        for text in addresses:
            try:
                both.enter_context(bound(Address.parse(text))).listen()
            except OSError as error:
                raise Unavailable(f"cannot listen on {text}: {error.strerror}; choose another address") from None
    return f"free: {', '.join(addresses)}" if addresses else "none: this node only dials out", True


def _data(node: NodeConfig, state: StateDir, manifest: Manifest | None) -> tuple[str, dict[str, Any]]:
    from p2pfed.core.misfit import columns_said
    from p2pfed.core.probe import Probe
    from p2pfed.data import features, report, sources
    from p2pfed.data.reading import Reading, reading_problems
    from p2pfed.learning import threshold

    if manifest is None:
        names = sources.column_names(node.data.source)
        sources.require(node.data.source, [node.data.label])
        return f"{len(names)} columns; the rows can be checked once there is a manifest", {"columns": names}
    loaded = features.load_bank(node.data, manifest.contract, time.time())
    settled = threshold.settle(node.learning.threshold, manifest.model.kind, loaded.rows.legitimate_per_day)
    if settled.kind is not None and (said := threshold.note(settled.kind, loaded.rows.validation.frauds)):
        loaded.report["notes"].append(said)
    try:
        last = Reading.from_plain(json.loads(state.reading.read_bytes()))
    except (OSError, ValueError):  # there is none, or the daemon will say that it is damaged
        last = None
    unlike = columns_said(manifest.contract, Probe.of(loaded.rows))
    found = {"refused": reading_problems(loaded.reading, last), "unlike": [unlike] if unlike else []}
    return report.read(loaded.report), loaded.report | found


def _doubts(found: dict[str, Any]) -> list[Result]:
    """What looks wrong in the payments that `_data` has read; a node trains on none that it refuses."""
    from p2pfed.core.misfit import COMPARE

    results = [Result("payments", note, doubtful=True) for note in found.get("notes", ())]
    results += [Result("columns", f"{unlike}; {COMPARE}", doubtful=True) for unlike in found.get("unlike", ())]
    for problem in found.get("refused", ()):
        text = f"a node refuses these payments and does not train on them: {problem}; {ACCEPT}"
        results.append(Result("reading", text, DataError(text)))
    return results
