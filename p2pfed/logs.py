"""What the daemon writes to standard error: one line an event, for people or as JSON; one adapter a node."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any, Literal

ROOT = "p2pfed"
"""Name of the one logger that `setup` configures; a library must leave the root logger to its application."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class NodeLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds `node=NAME` to each record, so that many nodes in one process can be told apart."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge the node's name into the call's own `extra`."""
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


def for_node(name: str) -> NodeLogger:
    """The logger of one node; fields go in `extra`, for example `log.info("round", extra={"round": 3})`."""
    return NodeLogger(logging.getLogger(ROOT), {"node": name})


def setup(level: str, form: Literal["text", "json"]) -> None:
    """Write records of at least `level` to standard error; calling it again replaces level and format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logger = logging.getLogger(ROOT)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """`2026-11-22T10:04:11.123Z info bank-a: message peer=bank-b round=3`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; control characters of foreign strings are escaped so that nobody can forge a line."""
        fields = _fields(record)
        node = fields.pop("node", None)
        who = f" {node}:" if node else ""
        rest = "".join(f" {name}={_shown(value)}" for name, value in fields.items())
        line = f"{_stamp(record)} {record.levelname.lower()}{who} {_printable(record.getMessage())}{rest}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """`{"time": ..., "level": "info", "message": ..., "node": ..., ...}`, one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object; values JSON does not know are written as text."""
        entry = {"time": _stamp(record), "level": record.levelname.lower(), "message": record.getMessage()}
        entry |= _fields(record)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def _stamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _shown(value: Any) -> str:
    text = _printable(f"{value:.4g}" if isinstance(value, float) else str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
