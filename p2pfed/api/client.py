"""The admin API from outside: HTTP over the daemon's Unix socket, standard library only, so that it starts quickly."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from p2pfed.errors import LocalFault, Unavailable, UsageError
from p2pfed.store.state_dir import StateDir

TIMEOUT_SECONDS = 10


class NotRunning(Unavailable):
    """No daemon is there to be asked."""


class AdminClient:
    """Asks the daemon that keeps its state in `state_dir`."""

    def __init__(self, state_dir: Path) -> None:
        self.path = StateDir(state_dir).admin_socket

    def get(self, path: str) -> Any:
        """The decoded JSON answer to GET `path`; raises NotRunning if no daemon runs, Unavailable if it does
        not answer, UsageError if it knows nothing of that name, LocalFault if it refuses.
        """
        return self._request("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """The decoded JSON answer to POST `path` with `body` as JSON, or None if there is none; raises as `get`."""
        return self._request("POST", path, body)

    def answers(self) -> bool:
        """Whether a daemon is there."""
        try:
            connection, _ = self._send("GET", "/livez", {}, None, TIMEOUT_SECONDS)
        except Unavailable:
            return False
        connection.close()
        return True

    def stream(self, path: str) -> Iterator[Any]:
        """Events as they come (server-sent events); ends when the daemon does."""
        connection, response = self._send("GET", path, {"Accept": "text/event-stream"}, None, timeout=None)
        try:
            for line in response:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        except (ConnectionError, http.client.IncompleteRead):
            return
        finally:
            connection.close()

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        connection, response = self._send(method, path, {"Accept": "application/json"}, body, TIMEOUT_SECONDS)
        try:
            body = response.read()
            return json.loads(body) if body else None
        except (OSError, ValueError) as error:
            raise Unavailable(f"the daemon at {self.path} did not answer properly: {error}") from None
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: Any, timeout: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = _UnixConnection(self.path, timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            raise NotRunning(f"no daemon is running on {self.path.parent}; start it with `p2pfed start`") from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unavailable(f"the daemon at {self.path} does not answer: {error}") from None
        if response.status >= 400:
            detail = _problem(response.read())
            connection.close()
            if response.status == http.client.NOT_FOUND:
                raise UsageError(detail)
            raise LocalFault(f"the daemon refused that: {detail}")
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
