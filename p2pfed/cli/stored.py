"""What can be told of a node whose daemon does not run: what its state directory holds, which is only read."""

from __future__ import annotations

import sys
import time
from typing import Any

from p2pfed.api.client import NotRunning
from p2pfed.cli.terminal import plural, printable, show
from p2pfed.core.types import DAY
from p2pfed.runtime.enrolment import trusted_chain
from p2pfed.runtime.lineage import name_of
from p2pfed.runtime.scoring import read_bundle
from p2pfed.store.contents import read_left
from p2pfed.store.credentials import load_member_key
from p2pfed.store.state_dir import StateDir


def show_left(state: StateDir, error: NotRunning, as_json: bool) -> None:
    """Print what a daemon has left there, and on standard error why no more; raises `error` if there is nothing."""
    left, chain = read_left(state), trusted_chain(state)
    if left is None or not chain:
        raise error
    manifest, me = chain[-1].manifest, load_member_key(state).node_id
    names = {node: member.name for node, member in manifest.by_id.items()}
    serves = name_of(read_bundle(state.model)) if state.model.exists() else None
    stored: dict[str, Any] = {
        "name": names.get(me),
        "id": me,
        "consortium": manifest.name,
        "manifest_version": manifest.version,
        "expires_in_days": (manifest.expires - time.time()) / DAY,
        "members": len(names),
        "quarantined": [names[node] for node in left.quarantined if node in names],
        "starts": left.starts,
        "round": left.round,
        "seq": left.seq,
        "serves": serves,
        "last_event": left.last and {"id": left.last.id, "time": left.last.time, "kind": left.last.kind},
    }
    show(as_json, {"error": str(error), "exit": error.exit_code, "stored": stored}, _text(stored))
    print(f"p2pfed: {printable(str(error))}", file=sys.stderr)


def _text(stored: dict[str, Any]) -> str:
    last = stored["last_event"]
    lines = [
        f"{stored['name'] or 'this bank'} ({stored['id'][:7]}) is not running; its state directory says:",
        f"consortium  {stored['consortium']}, manifest {stored['manifest_version']}, expires in "
        f"{stored['expires_in_days']:.0f} days",
        f"members     {stored['members']}, {len(stored['quarantined'])} quarantined",
        f"learning    round {stored['round']}, update {stored['seq']}, after {plural(stored['starts'], 'start')}",
        f"serves      {'model ' + stored['serves'] if stored['serves'] else 'no model yet'}",
    ]
    if last:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(last["time"]))
        lines.append(f"last event  {last['id']}, {last['kind']}, {when}; `p2pfed events --tail 20` shows more")
    return "\n".join(lines)
