"""HTTP over the running daemon's Unix socket, with the standard library only, so that `status` starts quickly."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from p2pfed.cli.terminal import read_config
from p2pfed.errors import LocalFault, Unavailable

SOCKET_NAME = "admin.sock"
TIMEOUT_SECONDS = 10


class AdminClient:
    """Asks the daemon that keeps its state in `state_dir`."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / SOCKET_NAME

    def get(self, path: str) -> Any:
        """The decoded JSON answer to GET `path`; raises Unavailable if no daemon runs, LocalFault if it refuses."""
        return self._request("GET", path)

    def post(self, path: str) -> Any:
        """The decoded JSON answer to POST `path`, or None if there is none; raises as `get`."""
        return self._request("POST", path)

    def stream(self, path: str) -> Iterator[Any]:
        """Events as they come (server-sent events); ends when the daemon does."""
        connection, response = self._send("GET", path, {"Accept": "text/event-stream"}, timeout=None)
        try:
            for line in response:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        except (ConnectionError, http.client.IncompleteRead):
            return
        finally:
            connection.close()

    def _request(self, method: str, path: str) -> Any:
        connection, response = self._send(method, path, {"Accept": "application/json"}, TIMEOUT_SECONDS)
        try:
            body = response.read()
            return json.loads(body) if body else None
        except (OSError, ValueError) as error:
            raise Unavailable(f"the daemon at {self.path} did not answer properly: {error}") from None
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, headers: dict[str, str], timeout: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = _UnixConnection(self.path, timeout)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            raise Unavailable(f"no daemon is running on {self.path.parent}; start it with `p2pfed start`") from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unavailable(f"the daemon at {self.path} does not answer: {error}") from None
        if response.status >= 400:
            detail = _problem(response.read())
            connection.close()
            raise LocalFault(f"the daemon refused {method} {path}: {detail}")
        return connection, response


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path instead of a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _problem(body: bytes) -> str:
    try:
        problem = json.loads(body)
        return str(problem.get("detail") or problem.get("title") or problem)
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")


def client_of(config: Path, settings: Sequence[str] | None) -> AdminClient:
    """The client of the daemon that `config` describes; raises ConfigError as reading the configuration does."""
    return AdminClient(_state_dir(config) if not settings else read_config(config, settings).node.state_dir)


def _state_dir(config: Path) -> Path:
    # checking the whole configuration takes ten times as long as the question; on any doubt it is checked after all
    try:
        node = yaml.safe_load(config.read_text(encoding="utf-8"))["node"]
        state_dir = os.environ.get("P2PFED_NODE__STATE_DIR", node["state_dir"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return read_config(config, None).node.state_dir
    if not isinstance(state_dir, str):
        return read_config(config, None).node.state_dir
    return config.resolve().parent / state_dir
