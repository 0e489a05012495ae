"""What the daemon writes to standard error: one line an event, for people or as JSON; one adapter a node."""

from __future__ import annotations

import copy
import json
import logging
import sys
import time
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Literal, TextIO

ROOT = "p2pfed"
"""Name of the one logger that `setup` configures; a library must leave the root logger to its application."""

LIBRARIES = ("aiohttp", "asyncio", "zeroconf")
"""Libraries whose warnings and errors are told in our format: a stranger can cause some as often as it likes."""
SPARING_SECONDS = 60.0
"""An exception, or a library's complaint, is told so often at most for each place in the code that it comes from."""

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
    handler = SparingHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logger = logging.getLogger(ROOT)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
    for library in LIBRARIES:
        logging.getLogger(library).handlers[:] = [handler]


class SparingHandler(logging.StreamHandler[TextIO]):
    """Writes our own lines all; exceptions and what libraries complain of once a minute for each cause.

    What was held back is counted in the next line. A library's complaint is one line; a fault of ours keeps its
    traceback.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._told: dict[tuple[object, ...], tuple[float, int]] = {}
        """Of each cause when it was told last, and how often it was held back since; causes are places in code."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`, or count it."""
        foreign = record.name.partition(".")[0] != ROOT
        if not foreign and not record.exc_info:
            super().emit(record)
            return
        where = _origin(record)
        cause = (record.name, record.pathname, record.lineno, *where)
        at, held = self._told.get(cause, (float("-inf"), 0))
        if abs(record.created - at) < SPARING_SECONDS:
            self._told[cause] = at, held + 1
            return
        self._told[cause] = record.created, 0
        told = copy.copy(record)
        if foreign:
            error = record.exc_info[1] if record.exc_info else None
            what = (f"{record.name}: {record.getMessage()}".splitlines()[0], *_described(error), *where[1:])
            told.msg, told.args, told.exc_info, told.exc_text = ": ".join(what), None, None, None
        if held:
            told.not_told = held
        super().emit(told)


def _origin(record: logging.LogRecord) -> tuple[str, ...]:
    """The kind of the exception in `record`, and the place that raised it."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return ()
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    return type(error).__name__, *(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


def _described(error: BaseException | None) -> tuple[str, ...]:
    return () if error is None else (" ".join([type(error).__name__, *str(error).split()])[:200],)


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
