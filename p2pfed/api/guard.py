"""Who may ask what of the admin API, and how refusals look: problem+json, whatever went wrong."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from aiohttp import web

from p2pfed.api.openapi import PROBLEM_JSON
from p2pfed.api.schemas import ErrorReply
from p2pfed.core.types import Address
from p2pfed.errors import P2PFedError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer; there are no CORS headers, so no other web page can read one."""

_log = logging.getLogger("p2pfed")


class Guard:
    """Checks that stand before every handler. A Unix socket's file mode has already decided who may write there."""

    def __init__(self, hosts: Sequence[str], token: str) -> None:
        """`hosts`: names a Host header may carry besides localhost. `token`: what writes over TCP must bear."""
        self._hosts = LOCAL_HOSTS | {h.lower() for h in hosts}
        self._token = token.encode()

    @web.middleware
    async def errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer every failure with problem details."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            headers = {k: v for k, v in error.headers.items() if k in ("Allow", "Retry-After", "WWW-Authenticate")}
            return problem(error.status, error.text or "", headers)
        except P2PFedError as error:
            return problem(HTTPStatus.CONFLICT, str(error))
        except Exception:  # a fault of one handler must neither end the daemon nor show its insides
            _log.exception("admin request %s %s failed", request.method, request.path)
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the daemon's log has the cause")

    @web.middleware
    async def hosts(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a browser that was led here under another name (DNS rebinding), or by another web site."""
        if not over_unix_socket(request):
            if _host(request.headers.get("Host", "")) not in self._hosts:
                raise web.HTTPForbidden(text="the Host header is none of localhost and admin.hosts")
            if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
                raise web.HTTPForbidden(text="another web site may neither read from this node nor command it")
        return await handler(request)

    async def check_write(self, request: web.Request) -> str:
        """Who asks; raises unless it came over the Unix socket or bears the token."""
        if over_unix_socket(request):
            return f"uid {_user(request)}"
        if not self.trusts(request):
            await asyncio.sleep(0.1 + secrets.randbelow(100) / 1000)  # guessing stays slow and tells no timing
            raise web.HTTPUnauthorized(
                text="send `Authorization: Bearer TOKEN` with the text of admin.token in the state directory",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return "token"

    def trusts(self, request: web.Request) -> bool:
        """Whether the operator asks: over the Unix socket, or with the token."""
        if over_unix_socket(request):
            return True
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        # bytes that are no UTF-8 come out of the HTTP parser as surrogates
        given = token.strip().encode("utf-8", "surrogateescape")
        return scheme.lower() == "bearer" and hmac.compare_digest(given, self._token)


def over_unix_socket(request: web.Request) -> bool:
    """Whether the request came through the state directory's socket."""
    if request.transport is None:
        return False  # the client has gone; nobody will read the answer
    connection = request.transport.get_extra_info("socket")
    return connection is not None and connection.family == socket.AF_UNIX


def _user(request: web.Request) -> int:
    """The uid at the other end of the Unix socket, as the kernel saw it connect; -1 if it has gone."""
    if request.transport is None:
        return -1
    connection = request.transport.get_extra_info("socket")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """An RFC 9457 answer."""
    reply = ErrorReply(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return web.Response(status=status, text=reply.model_dump_json(), content_type=PROBLEM_JSON, headers=headers)


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """`on_response_prepare` signal: the security headers."""
    response.headers.update(HEADERS)
    response.headers["Server"] = "p2pfed"


def _host(header: str) -> str:
    try:
        return Address.parse(header if header.rpartition(":")[2].isdigit() else f"{header}:80").host.lower()
    except ValueError:
        return ""
