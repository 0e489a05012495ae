"""The command line: one table of commands, one module a noun; what is heavy is imported inside the commands."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import p2pfed
from p2pfed.errors import DiskFault, P2PFedError

VERSION = f"p2pfed {p2pfed.__version__}"

CLOSED_PIPE = 141
"""Exit code, as shells give it for SIGPIPE, when the reader of our output has gone: the work may be half done."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a file behind standard output may answer; commands make a DiskFault of such errors with files of their own."""

COMMANDS = (
    # command, where it is
    ("init", "bank:init"),
    ("join", "bank:join"),
    ("check", "bank:check"),
    ("start", "bank:start"),
    ("stop", "daemon:stop"),
    ("status", "daemon:status"),
    ("members", "daemon:members"),
    ("events", "history:events"),
    ("peer show", "peer:about"),
    ("peer block", "peer:block"),
    ("peer unblock", "peer:unblock"),
    ("peer pardon", "peer:pardon"),
    ("score", "score:score"),
    ("simulate", "simulate:simulate"),
    ("replay", "replay:replay"),
    ("evidence list", "evidence:every"),
    ("evidence show", "evidence:about"),
    ("evidence export", "evidence:export"),
    ("evidence verify", "evidence:verify"),
    ("consortium key", "consortium:key"),
    ("consortium create", "founding:create"),
    ("consortium add", "consortium:add"),
    ("consortium remove", "consortium:remove"),
    ("consortium change", "change:change"),
    ("consortium renew", "consortium:renew"),
    ("consortium sign", "consortium:sign"),
    ("consortium verify", "consortium:verify"),
    ("consortium show", "consortium:view"),
    ("data make", "data:make"),
    ("data partition", "data:partition"),
    ("data describe", "data:describe"),
    ("data refresh", "payments:refresh"),
    ("data status", "payments:status"),
    ("cluster run", "cluster:run"),
)

GROUPS = {
    "peer": "What this node thinks of a member, and the operator's word on it.",
    "evidence": "Proofs that a member signed two different updates with one number.",
    "consortium": "Found a consortium, admit and remove banks, change what they agreed on, sign its manifest.",
    "data": "Make, divide and look at payments; have the running node read its own anew.",
    "cluster": "Many real daemons on this machine.",
}


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return the exit code; errors are one sentence on standard error."""
    try:
        code = _carry_out(arguments)
        if sys.stdout is not None:  # as with `>&-`
            sys.stdout.flush()  # here, where a closed pipe is met, and not as the interpreter ends
    except BrokenPipeError:  # the reader of our output has gone, as in `p2pfed events | head`
        _flush_nowhere()
        return CLOSED_PIPE
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        _flush_nowhere()
        print(f"p2pfed: what the command says cannot be written: {error.strerror}", file=sys.stderr)
        return DiskFault.exit_code
    return code


def _flush_nowhere() -> None:
    """Keep the interpreter from flushing, as it ends, into what takes nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _carry_out(arguments: Sequence[str]) -> int:
    if list(arguments) == ["--version"]:  # answered before any command is imported
        print(VERSION)
        return 0
    streams, as_json = (sys.stdout, sys.stderr), "--json" in arguments
    try:
        application(arguments[0] if arguments else "")(args=list(arguments), prog_name="p2pfed")
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # typer makes an exit of it, and wraps the output
            sys.stdout, sys.stderr = streams
            raise stop.__context__ from None
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if as_json and (said := getattr(stop.__context__, "format_message", None)):  # of a wrong command line
            _tell_scripts(said(), code)
        return code
    except P2PFedError as error:
        from p2pfed.cli.terminal import printable

        print(f"p2pfed: {printable(str(error))}", file=sys.stderr)
        if as_json:
            _tell_scripts(str(error), error.exit_code)
        return error.exit_code
    return 0


def _tell_scripts(error: str, code: int) -> None:
    """What --json prints where the command has failed, in one line; people read the same on standard error."""
    import json

    print(json.dumps({"error": error, "exit": code}))


def application(first: str = "") -> typer.Typer:
    """The typer application of the table; of the commands of one name only, if `first` is one: imports take time."""
    chosen = [row for row in COMMANDS if row[0].split()[0] == first] or COMMANDS
    top = _group()
    top.callback()(_options)
    groups = {name: _group() for name in GROUPS}
    for command, place in chosen:
        module, _, function = place.partition(":")
        group, _, verb = command.rpartition(" ")
        register = groups[group] if group else top
        register.command(verb)(getattr(importlib.import_module(f"p2pfed.cli.{module}"), function))
    for name, help_text in GROUPS.items():
        top.add_typer(groups[name], name=name, help=help_text)
    return top


def _group() -> typer.Typer:
    return typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        print(VERSION)
        raise typer.Exit()


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Banks learn a fraud model together, peer to peer: no server, no raw rows leave a bank."""
