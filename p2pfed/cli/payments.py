"""What the running node has read of the bank's payments, and having it read them anew."""

from __future__ import annotations

from typing import Annotated

import typer

from p2pfed.cli.daemon import client_of, payments_text
from p2pfed.cli.terminal import DEFAULT_CONFIG, AsJson, ConfigPath, show


def refresh(
    accept: Annotated[
        bool, typer.Option("--accept", help="Take the payments even if they do not look like this bank's.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Have the running node read its payments anew, for the cycle under way or the next one."""
    reply = client_of(config).post("/api/v1/data/refresh", {"accept": accept})
    show(as_json, reply, reply["detail"])


def status(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """What the running node has read of its payments; exit code 1 if they were refused or cannot be read."""
    reply = client_of(config).get("/api/v1/status")
    problems = [p for p in reply["problems"] if p["code"] in ("READING_REFUSED", "DATA_UNREADABLE")]
    data = reply["learning"]["data"]
    lines = [payments_text(data, problems), *(f"{p['message']}\n{p['hint']}" for p in problems)]
    show(as_json, data | {"problems": problems}, "\n".join(lines))
    if problems:
        raise typer.Exit(1)
