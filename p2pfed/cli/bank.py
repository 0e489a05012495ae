"""One bank's own verbs: make its keys, trust a manifest, check the set-up, run the daemon."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from p2pfed.cli.terminal import DEFAULT_CONFIG, AllowCode, AsJson, ConfigPath, Settings, read_config, read_file, show
from p2pfed.core.types import DAY
from p2pfed.errors import ConfigError, Unavailable, UsageError

if TYPE_CHECKING:
    from p2pfed.config import NodeConfig
    from p2pfed.core.consortium import Manifest, SignedManifest
    from p2pfed.core.identity import Identity
    from p2pfed.core.joining import JoinRequest
    from p2pfed.data.features import Told
    from p2pfed.store.state_dir import StateDir

SAMPLE = """\
# One bank's node. Every key is described in the README; `p2pfed check` says what is wrong.
version: 1
node:
  name: {name}
  state_dir: state            # keys, database and model; relative to this file
peers:
  listen: 0.0.0.0:7443        # mutual TLS; null for a bank that can only dial out
  advertise: [{advertise}]    # where the other banks dial this one
data:
  source:
    kind: csv                 # or parquet, or sql with query and url_file
    path: payments.csv
  label: is_fraud             # this bank's fraud column
  event_time: event_time      # payment time with zone, or seconds
  label_maturity_days: 45     # chargebacks arrive late
"""


def init(
    config: ConfigPath = DEFAULT_CONFIG,
    name: Annotated[str | None, typer.Option(help="The bank's name, for a new configuration file.")] = None,
    advertise: Annotated[
        str | None, typer.Option(help="host:port the other banks dial, for a new configuration file.")
    ] = None,
    contract: Annotated[
        Path | None, typer.Option(help="The consortium's draft contract: adds the moments of this bank's data.")
    ] = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="With --contract: do not time a round of training, some 20 s.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a join-request.json that init did not make for this key.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Make configuration, keys and join request.

    What exists is kept: run it again, with --contract, once the data and the consortium's draft contract are there.
    """
    from p2pfed.core.identity import grouped
    from p2pfed.runtime import enrolment
    from p2pfed.store.state_dir import StateDir

    made = []
    if not config.exists():
        _write_sample(config, name, advertise)
        made.append(config)
    elif name or advertise:
        raise UsageError(f"{config} exists: set node.name and peers.advertise there instead of --name and --advertise")
    node = read_config(config, settings)
    state = StateDir(node.node.state_dir).create()
    identity, keys = enrolment.make_keys(state, node.node.name, time.time())
    path = state.root / "join-request.json"
    request, written, doubts = _request(node, state, identity, contract, not no_measure, force)
    lines = [
        *(f"made {one}" for one in (*made, *keys)),
        *([f"{written} {path}"] if written else []),
        f"{node.node.name} is {grouped(identity.node_id)}",
        f"Send {path} to an admin of the consortium and read the line above out over the phone.",
        *(f"look at this bank's data before you send it: {doubt}" for doubt in doubts),
    ]
    if request.moments is None:
        lines.append("It says nothing of the data yet: run init again with --contract DRAFT to add its moments.")
    value = {
        "name": node.node.name,
        "id": identity.node_id,
        "join_request": path,
        "moments": request.moments is not None,
        "seconds_per_round": request.seconds_per_round,
        "legitimate_per_fraud": request.legitimate_per_fraud,
        "training_rows": request.training_rows,
        "doubts": doubts,
    }
    show(as_json, value, "\n".join(lines))


def _request(
    node: NodeConfig, state: StateDir, identity: Identity, contract: Path | None, timed: bool, force: bool
) -> tuple[JoinRequest, str, tuple[str, ...]]:
    """The bank's join request and, if the file was written, in a word how: what it said of the data stays unless new.

    Then what looks wrong in the data, where these were read. Raises UsageError if another file is in its place, unless
    `force`.
    """
    from p2pfed.core.consortium import Declared
    from p2pfed.core.joining import open_join_request
    from p2pfed.runtime import enrolment
    from p2pfed.store.state_dir import write_atomically

    path = state.root / "join-request.json"
    try:
        before = enrolment.made_before(path, identity)
    except ConfigError as error:
        if not force:
            raise UsageError(f"{path} is not what init made here ({error}): move it away, or use --force") from None
        before = None
    moments, told, seconds, doubts = None, Declared(), None, tuple[str, ...]()
    if before is not None:
        moments, seconds = before.moments, before.seconds_per_round
        told = Declared(before.legitimate_per_fraud, before.training_rows)
    if contract is not None:
        moments, told, doubts = _declared(node, contract)
        seconds = (_timed_round(node, contract) if timed else None) or seconds
    last = before.made if before is not None else None
    if last is not None and last > time.time() + DAY:  # of a clock that was ahead: no admin has taken it
        last = None
    now = max(time.time(), (last or 0) + 1)  # a new request is newer than the last one, whatever the clock shows
    sealed = enrolment.join_request(node, state, identity, moments, told, seconds, made=now)
    request = open_join_request(sealed)
    if before is not None and last and before == replace(request, made=last, consortium=before.consortium):
        return before, "", doubts
    write_atomically(path, sealed, 0o644)
    return request, "made" if before is None else "wrote anew, send it again:", doubts


def _write_sample(config: Path, name: str | None, advertise: str | None) -> None:
    from p2pfed.core.types import Address
    from p2pfed.store.state_dir import write_atomically

    if name is None:
        raise UsageError(f"{config} does not exist; `p2pfed init --name BANK` makes it")
    try:
        advertise = str(Address.parse(advertise)) if advertise else ""
    except ValueError as error:
        raise UsageError(f"--advertise: {error}") from None
    config.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config, SAMPLE.format(name=name, advertise=advertise).encode(), 0o644)


def _declared(node: NodeConfig, contract: Path) -> Told:
    from p2pfed.cli.manifests import read_contract
    from p2pfed.data import features

    return features.declared(node.data, read_contract(contract).columns, time.time())


def _timed_round(node: NodeConfig, contract: Path) -> float | None:
    """Seconds of a round on this machine; None, and why on standard error, where that cannot be measured."""
    from p2pfed.cli.manifests import read_contract
    from p2pfed.core.joining import MEASURED_STEPS
    from p2pfed.runtime.measuring import measure

    say = partial(print, file=sys.stderr, flush=True)
    say(f"timing a round of {MEASURED_STEPS} steps on this bank's rows: some 20 s, or --no-measure")
    try:
        seconds = measure(node, read_contract(contract))
    except Unavailable as error:
        say(f"the round could not be timed, and the join request says nothing of it: {error}")
        return None
    say(f"a round of training takes {seconds:.2f} s here")
    return seconds


def join(
    manifest: Annotated[Path, typer.Option(help="The signed manifest.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="Its fingerprint, told by an admin; needed the first time only.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Trust a manifest: the first by its fingerprint, later versions by the signatures of the admins before them."""
    from p2pfed.api.client import AdminClient
    from p2pfed.cli.founding import rate_said, rows_said, units_said
    from p2pfed.core.consortium import parse_signed
    from p2pfed.core.names import deceptive
    from p2pfed.core.succession import verify_root
    from p2pfed.runtime.enrolment import check_member, made_before, trusted_chain
    from p2pfed.store import credentials
    from p2pfed.store.state_dir import StateDir

    node = read_config(config, settings)
    state = StateDir(node.node.state_dir)
    identity = credentials.load_member_key(state)
    signed = parse_signed(read_file(manifest, "the manifest"))
    chain = trusted_chain(state)
    if chain:
        _verify_next(signed, chain[-1].manifest, manifest, state)
    elif fingerprint is None:
        raise UsageError("the first manifest needs --fingerprint, told by an admin: `p2pfed consortium show` prints it")
    elif problem := deceptive(verify_root(signed, fingerprint).name):
        raise ConfigError(f"{manifest}: the consortium's name {signed.manifest.name!a} {problem}: ask its admins")
    new = signed.manifest
    check_member(new, identity, node, state)
    state.save_manifest(new.version, signed.to_bytes())
    text = f"joined {new.name}, version {new.version}, with {len(new.members)} members"
    client = AdminClient(state.root)
    if client.answers():
        client.post("/api/v1/reload")
        text += "; the running daemon takes it over"
    request = made_before(state.root / "join-request.json", identity)
    units = units_said(new.contract, request) if request is not None else []
    key, told = identity.public_key.hex(), new.declared[identity.node_id]
    rate, few = rate_said(new, key, told.legitimate_per_fraud), rows_said(new, key, told.training_rows)
    lines = [text, *(f"look at this bank's data, as `init` read them: {sentence}" for sentence in units)]
    lines += [f"look at this bank's entry in the manifest: {sentence}" for sentence in (*rate, *few)]
    value = {"consortium": new.name, "version": new.version, "members": len(new.members), "other_units": units}
    value |= {"other_base_rate": rate, "few_rows": few}
    show(as_json, value, "\n".join(lines))


def _verify_next(signed: SignedManifest, current: Manifest, path: Path, state: StateDir) -> None:
    """Raise ConfigError unless what `path` holds is the version that this bank has joined, or the next one."""
    from p2pfed.core.succession import verify_succession

    if signed.manifest.consortium != current.consortium:
        raise ConfigError(
            f"{path} is of another consortium than the one that this bank has joined ({current.name!r}). To leave that "
            f"for good: if this bank was never started, remove {state.root / 'manifests'} and join again; else stop "
            f"it, move {state.root} away, run `p2pfed init`, and have its new key put into the manifest"
        )
    if signed.manifest.version != current.version:
        verify_succession(current, signed)
    elif signed.manifest != current:
        raise ConfigError(
            f"{path} is another version {current.version} than the one that this bank has joined: ask the admins which "
            "one is in force"
        )


def check(
    config: ConfigPath = DEFAULT_CONFIG,
    data: Annotated[bool, typer.Option("--data/--no-data", help="Also read the data, as the trainer will.")] = True,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Try everything that `start` needs, without changing anything; ends with the exit code of the first failure."""
    from p2pfed.cli.checks import run_checks

    results = run_checks(config, settings, data)
    lines = [f"{'FAIL' if r.error else 'warn' if r.doubtful else 'ok':<4}  {r.name:<14}  {r.text}" for r in results]
    failed = [r.error for r in results if r.error is not None]
    value = {
        "ok": not failed,
        "checks": [
            {"name": r.name, "ok": r.error is None, "warning": r.doubtful, "message": r.text, **r.details}
            for r in results
        ],
    }
    show(as_json, value, "\n".join(lines))
    if failed:
        raise typer.Exit(failed[0].exit_code)


def start(
    config: Annotated[Path, typer.Argument(help="The node's configuration file.")] = DEFAULT_CONFIG,
    allow_code: AllowCode = False,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Log JSON, one object a line: log.format=json.")] = False,
) -> None:
    """Run the daemon in the foreground until it is told to stop."""
    from p2pfed.runtime.process import for_life, without_authorities

    with for_life(collect_every=20_000), without_authorities():
        from p2pfed.core.aggregation import code_allowed
        from p2pfed.runtime import daemon

        settings = [*(settings or ()), *(["log.format=json"] if as_json else ())]
        node = read_config(config, settings)
    with code_allowed(allow_code):
        raise typer.Exit(daemon.run(node, lambda: read_config(config, settings)))
