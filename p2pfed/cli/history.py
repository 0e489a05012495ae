"""`p2pfed events`: what has happened on a node, asked of its daemon or, where none runs, read where it keeps it."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from p2pfed.api.client import AdminClient, NotRunning
from p2pfed.cli.daemon import client_of
from p2pfed.cli.terminal import DEFAULT_CONFIG, AsJson, ConfigPath, printable
from p2pfed.cli.times import earlier
from p2pfed.errors import Interrupted, UsageError
from p2pfed.store.state_dir import StateDir

PAGE = 1000
Row = dict[str, Any]


def events(
    config: ConfigPath = DEFAULT_CONFIG,
    since: Annotated[
        str,
        typer.Option(
            metavar="ID|TIME",
            help="After the event of this id, or from a time on, such as 2026-12-01T08:00 or 2h ago, `2h`.",
        ),
    ] = "0",
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="Only events of this kind; repeatable.")
    ] = None,
    tail: Annotated[int, typer.Option(min=0, help="Only the last so many of them; 0 is all.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for new ones until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """What has happened on this node, oldest first; with --json one object a line."""
    wanted, first = _wanted(since, kind or [])
    client = client_of(config)
    try:
        for row in _chosen(client, first, wanted, tail, follow):
            if "id" not in row:  # the API's word for a gap
                print(f"some of what happened before event {row['next']} is no longer kept", file=sys.stderr)
            else:
                print(json.dumps(row) if as_json else _text(row), flush=follow)
    except KeyboardInterrupt:
        raise Interrupted("stopped following") from None


def _wanted(since: str, kinds: list[str]) -> tuple[Callable[[Row], bool], int]:
    """Whether an event is one that was asked for, and the id after which such events are; raises UsageError."""
    known = _kinds() if kinds else ()
    if unknown := [kind for kind in kinds if kind not in known]:
        raise UsageError(f"--kind {unknown[0]}: there are no such events; known are {', '.join(known)}")
    plain = since.strip()
    by_id = plain.isascii() and plain.isdigit() and len(plain) < 16
    begin = 0.0 if by_id else earlier(plain, "--since", time.time())

    def wanted(row: Row) -> bool:
        return "id" not in row or (row["time"] >= begin and (not kinds or row["kind"] in kinds))

    return wanted, int(plain) if by_id else 0


def _kinds() -> list[str]:
    from typing import get_args

    from p2pfed.api.stream import kind_name
    from p2pfed.core.events import Event
    from p2pfed.store.history import FORMAT_CHANGED

    return sorted([FORMAT_CHANGED, *(kind_name(event) for event in get_args(Event))])


def _chosen(client: AdminClient, since: int, wanted: Callable[[Row], bool], tail: int, follow: bool) -> Iterator[Row]:
    if follow:
        before = list(_asked(client, since)) if tail else []
        yield from list(filter(wanted, before))[-tail:]
        since = before[-1]["id"] if before else since
        yield from filter(wanted, client.stream(f"/api/v1/events?since={since}"))
        return
    rows = filter(wanted, _history(client, since))
    yield from deque(rows, tail) if tail else rows


def _history(client: AdminClient, since: int) -> Iterator[Row]:
    """The stored events after `since`: the daemon's, or those that one which does not run has left."""
    try:
        yield from _asked(client, since)
    except NotRunning as error:
        state = StateDir(client.path.parent)
        if not state.database.exists():
            raise
        print(f"p2pfed: {printable(str(error))}; this is what its state directory has", file=sys.stderr)
        yield from _stored(state, since)


def _asked(client: AdminClient, since: int) -> Iterator[Row]:
    while page := client.get(f"/api/v1/events?since={since}&limit={PAGE}"):
        yield from page
        since = page[-1]["id"]


def _stored(state: StateDir, since: int) -> Iterator[Row]:
    from p2pfed.store.contents import read_events

    for event in read_events(state, since):
        fields = json.loads(event.json)
        text = fields.pop("text", "")
        yield {"id": event.id, "time": event.time, "kind": event.kind, "text": text, "fields": fields}


def _text(row: Row) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["time"]))
    return f"{row['id']:>6}  {when}  {row['kind']:<18}  {row['text']}"
