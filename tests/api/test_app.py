"""The admin API over real sockets: routes, refusals, streams."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import stat

import aiohttp
import pytest
from pydantic import TypeAdapter

from p2pfed.api import app
from p2pfed.api.app import ROUTES, AdminServer
from p2pfed.api.guard import HEADERS
from p2pfed.api.reading import event_row
from p2pfed.core.events import (
    ModelEvaluated,
    NodeStarted,
    ProblemCleared,
    ProblemRaised,
    RoundCompleted,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.types import DAY, Address, NodeId, Reason
from p2pfed.errors import StateLocked, Unavailable
from p2pfed.store.base import MemoryDisk, MemoryStore
from p2pfed.store.history import Retention, StoredEvent
from tests.api.conftest import TOKEN, Admin, source

pytestmark = pytest.mark.network

A, B = NodeId("A" * 56), NodeId("B" * 56)
READS = [r for r in ROUTES if not r.writes]
WRITES = [r.path.format(member="bank-b") for r in ROUTES if r.writes]


def completed(number: int, loss: float = 0.5) -> RoundCompleted:
    return RoundCompleted(number, number, loss, 20, 0.7, 0.4, (source(B),), 0.25)


@pytest.mark.parametrize("route", READS, ids=lambda r: r.path)
async def test_every_route_answers_what_its_table_row_says_on_both_listeners(admin, route):
    admin.log.emit(completed(1))
    for client in (admin.tcp, admin.unix):
        async with client.request(route.method, route.path.format(member="bank-b")) as answer:
            body = await answer.read()
            assert answer.status == 200, body
            assert answer.content_type in route.media
            assert HEADERS.items() <= {**answer.headers}.items()
            assert "Access-Control-Allow-Origin" not in answer.headers
        if route.reply is not None:
            TypeAdapter(list[route.reply] if route.many else route.reply).validate_json(body)


async def test_status_shows_problems_until_they_are_over(admin):
    raised = ProblemRaised("ALONE", "warning", "nobody met", "check peers.seeds", B)
    admin.log.emit(raised)
    admin.log.emit(raised)
    async with admin.unix.get("/api/v1/status") as answer:
        status = await answer.json()
    assert status["health"] == "degraded"
    [problem] = status["problems"]
    assert (problem["code"], problem["count"], problem["subject"]) == ("ALONE", 2, "bank-b")
    assert problem["hint"] == "check peers.seeds"
    admin.log.emit(ProblemCleared("ALONE", B))
    async with admin.unix.get("/api/v1/status") as answer:
        status = await answer.json()
    assert (status["health"], status["problems"]) == ("ok", [])


@pytest.mark.parametrize(("body", "accept"), [(b"", "False"), (b'{"accept": true}', "True"), (b"{}", "False")])
async def test_payments_are_read_anew(admin, body, accept):
    async with admin.unix.post("/api/v1/data/refresh", data=body) as answer:
        assert answer.status == 200
    assert admin.node.told == [("refresh", accept)]
    [acted] = await admin.log.since(0, 10)
    assert json.loads(acted.json)["action"] == ("refresh --accept" if accept == "True" else "refresh")


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"acept": true}', b'{"accept": 7}'])
async def test_a_refresh_that_says_something_else_is_refused(admin, body):
    async with admin.unix.post("/api/v1/data/refresh", data=body) as answer:
        assert answer.status == 400
        assert '{"accept": true}' in (await answer.json(content_type=None))["detail"]
    assert admin.node.told == []


async def test_updates_count_what_each_member_sent(admin):
    admin.log.emit(UpdateAccepted(B, 4, A, 1000))
    admin.log.emit(UpdateRefused(B, B, Reason.DUPLICATE, ""))
    admin.log.emit(UpdateRefused(B, A, Reason.NOT_FINITE, ""))
    async with admin.unix.get("/api/v1/updates") as answer:
        [row] = await answer.json()
    assert (row["name"], row["seq"], row["via"], row["bytes"]) == ("bank-b", 4, "bank-a", 1000)
    assert (row["accepted"], row["ignored"], row["rejected"]) == (1, 1, 1)
    assert row["last_refusal"] == "not_finite"


async def test_rounds_carry_their_evaluation_once_it_is_there(admin):
    admin.log.emit(completed(1))
    admin.log.emit(completed(2, loss=float("nan")))
    admin.log.emit(ModelEvaluated(1, {"validation": {"auprc": 0.75}}, 0.4))
    async with admin.tcp.get("/api/v1/rounds") as answer:
        first, second = await answer.json()
    assert (first["round"], first["metrics"], first["threshold"]) == (1, {"validation": {"auprc": 0.75}}, 0.4)
    assert first["merged"] == [B]
    assert first["sources"] == [dataclasses.asdict(source(B))]
    assert (second["round"], second["metrics"], second["loss"]) == (2, None, None)
    async with admin.tcp.get("/api/v1/rounds?since=1") as answer:
        assert [r["round"] for r in await answer.json()] == [2]


async def test_events_are_paged_by_id(admin):
    for number in range(1, 6):
        admin.log.emit(completed(number))
    async with admin.tcp.get("/api/v1/events?since=2&limit=2") as answer:
        rows = await answer.json()
    assert [r["id"] for r in rows] == [3, 4]
    assert rows[0]["kind"] == "round_completed"
    assert rows[0]["fields"]["round"] == 3
    assert rows[0]["text"].startswith("round 3:")


@pytest.mark.parametrize("query", ["since=-1", "since=x", "limit=0", "limit=1001", "since=1e3", "since=" + "9" * 30])
async def test_a_wrong_number_is_a_client_error_that_says_so(admin, query):
    async with admin.tcp.get(f"/api/v1/events?{query}") as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"
        assert query.split("=")[0] in (await answer.json(content_type=None))["detail"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/api/v1/stop", 405)])
async def test_unknown_paths_and_methods_are_problems_too(admin, method, path, status):
    async with admin.tcp.request(method, path) as answer:
        assert answer.status == status
        problem = await answer.json(content_type="application/problem+json")
        assert problem["status"] == status


async def test_readyz_follows_the_node_and_livez_does_not(admin):
    admin.node.is_ready = False
    async with admin.tcp.get("/readyz") as answer:
        assert answer.status == 503
    async with admin.tcp.get("/livez") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", WRITES)
async def test_writes_over_tcp_need_the_token(admin, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic a token of this test"}):
        async with admin.tcp.post(path, headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert admin.node.stopped == 0
    async with admin.tcp.post(path, headers={"Authorization": "Bearer a token of this test"}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("token", [b"caf\xc3\xa9", b"\xff\xfe", b"\xed\xa0\x80"])
async def test_a_token_that_is_not_ascii_is_a_wrong_one(admin, token):
    reader, writer = await asyncio.open_connection(admin.server.address.host, admin.server.address.port)
    writer.write(b"POST /api/v1/stop HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + b"\r\n\r\n")
    assert b" 401 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def test_a_member_that_is_none_is_not_found(admin):
    for method, path in (("GET", "reputation"), ("POST", "block"), ("POST", "unblock"), ("POST", "pardon")):
        async with admin.unix.request(method, f"/api/v1/members/nobody/{path}") as answer:
            assert answer.status == 404
            assert (await answer.json())["detail"] == "'nobody' is not a member; `p2pfed members` lists the members"


async def test_another_web_site_cannot_write_even_with_the_token(admin):
    headers = {"Authorization": "Bearer a token of this test", "Sec-Fetch-Site": "cross-site"}
    async with admin.tcp.post("/api/v1/stop", headers=headers) as answer:
        assert answer.status == 403
    assert admin.node.stopped == 0


async def test_the_unix_socket_needs_no_token_and_is_for_the_owner_only(admin):
    assert stat.S_IMODE(os.stat(admin.socket_path).st_mode) == 0o600
    async with admin.unix.post("/api/v1/stop") as answer:
        assert (await answer.json())["detail"] == "stopping"
    assert admin.node.stopped == 1
    (acted,) = [event_row(e) for e in await admin.log.since(0, 9)]
    assert acted.fields == {"action": "stop", "subject": "", "by": f"uid {os.getuid()}"}


async def test_what_an_operator_did_is_in_the_history_and_what_was_refused_is_not(admin):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with admin.tcp.post("/api/v1/members/bank-b/block", headers=headers) as answer:
        assert answer.status == 200
    for member, bearer in (("nobody", headers), ("bank-b", {"Authorization": "Bearer guess"})):
        async with admin.tcp.post(f"/api/v1/members/{member}/pardon", headers=bearer) as answer:
            assert answer.status in (401, 404)
    (acted,) = [event_row(e) for e in await admin.log.since(0, 9)]
    assert (acted.kind, acted.text) == ("operator_acted", "block bank-b: asked for by token")


async def test_a_reload_answers_what_changed_or_what_is_wrong(admin):
    async with admin.unix.post("/api/v1/reload") as answer:
        assert (await answer.json())["changes"] == ["log.level is debug now"]
    admin.node.reload_fails = True
    async with admin.unix.post("/api/v1/reload") as answer:
        assert answer.status == 409
        assert "unknown key 'lisen'" in (await answer.json(content_type=None))["detail"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:7480", 200),
        ("[::1]:7480", 200),
        ("node.bank.example:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:7480", 403),
        ("[", 403),
        ("", 403),
    ],
)
async def test_only_known_host_names_are_answered_over_tcp(admin, host, status):
    async with admin.tcp.get("/api/v1/status", headers={"Host": host}) as answer:
        assert answer.status in (status, 400 if status == 403 else status)  # the HTTP parser refuses some of them first
    async with admin.unix.get("/api/v1/status", headers={"Host": "evil.example"}) as answer:
        assert answer.status == 200


async def test_a_fault_inside_is_logged_and_not_shown(admin, monkeypatch, caplog):
    def fail():
        raise RuntimeError("secret detail")

    monkeypatch.setattr(admin.node, "status", fail)
    async with admin.tcp.get("/api/v1/status") as answer:
        assert answer.status == 500
        assert "secret detail" not in await answer.text()
    assert "secret detail" in caplog.text


async def test_the_openapi_document_has_exactly_the_routes_of_the_table(admin):
    async with admin.tcp.get("/api/v1/openapi.json") as answer:
        found = await answer.json()
    assert found["openapi"].startswith("3.1")
    operations = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    assert operations == {(r.method, r.path) for r in ROUTES}
    text = json.dumps(found)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in found["components"]["schemas"]


async def test_starting_says_what_is_in_the_way(admin, tmp_path):
    def server(**changes):
        options = {"socket_path": tmp_path / "other.sock", "listen": None, "hosts": [], "token": "t", "version": "1"}
        options["refused"] = print
        return AdminServer(admin.node, admin.log, admin.metrics, **(options | changes))

    with pytest.raises(Unavailable, match="admin.listen"):
        await server(listen=admin.server.address).start()
    assert not (tmp_path / "other.sock").exists()
    with pytest.raises(StateLocked, match="admin socket"):
        await server(socket_path=tmp_path / "missing" / "admin.sock").start()


async def test_a_socket_left_by_a_killed_daemon_is_replaced(admin, tmp_path):
    stale = tmp_path / "stale.sock"
    stale.touch()
    server = AdminServer(
        admin.node, admin.log, admin.metrics, socket_path=stale, listen=None, hosts=[], token="t", version="1",
        refused=print,
    )  # fmt: skip
    await server.start()
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(stale))) as client,
        client.get("http://p2pfed/livez") as answer,
    ):
        assert answer.status == 200
    assert server.address is None
    await server.stop()
    assert not stale.exists()


async def read_events(answer: aiohttp.ClientResponse, count: int) -> list[dict[str, str]]:
    """The next `count` server-sent events; comments are left out."""
    found: list[dict[str, str]] = []
    lines: dict[str, str] = {}
    while len(found) < count:
        line = (await asyncio.wait_for(answer.content.readline(), 5)).decode().rstrip("\n")
        assert line or lines or found is not None
        if not line and lines:
            found.append(lines)
            lines = {}
        elif not line.startswith(":") and line:
            name, _, value = line.partition(": ")
            lines[name] = value
    return found


SSE = {"Accept": "text/event-stream"}


async def test_a_stream_tells_what_is_new_as_it_happens(admin):
    admin.log.emit(NodeStarted(0, 2))
    async with admin.tcp.get("/api/v1/events", headers=SSE) as answer:
        assert answer.content_type == "text/event-stream"
        admin.log.emit(completed(1))
        admin.log.emit(completed(2))
        first, second = await read_events(answer, 2)
    assert (first["id"], first["event"]) == ("2", "round_completed")
    assert json.loads(second["data"])["fields"]["round"] == 2


async def test_a_reader_that_comes_back_misses_nothing(admin):
    for number in range(1, 4):
        admin.log.emit(completed(number))
    async with admin.tcp.get("/api/v1/events", headers=SSE | {"Last-Event-ID": "1"}) as answer:
        assert [e["id"] for e in await read_events(answer, 2)] == ["2", "3"]
        admin.log.emit(completed(4))
        assert [e["id"] for e in await read_events(answer, 1)] == ["4"]
    async with admin.tcp.get("/api/v1/events?since=2", headers=SSE) as answer:
        assert [e["id"] for e in await read_events(answer, 2)] == ["3", "4"]


async def test_a_reader_is_told_what_is_no_longer_kept(tmp_path):
    disk, oldest = MemoryDisk(), 9
    for i in range(1, oldest + 2):
        await MemoryStore(disk, Retention(record_days=1), lambda: 0.0).append(
            [StoredEvent(i, i * DAY, "training_alone", '{"round":1,"text":"t"}')]
        )
    admin = Admin(tmp_path, MemoryStore(disk))
    await admin.start()
    async with admin.tcp.get("/api/v1/events?since=3", headers=SSE) as answer:
        gap, first = await read_events(answer, 2)
    assert (gap["event"], json.loads(gap["data"])) == ("gap", {"next": oldest})
    assert "id" not in gap, "the reader's place must not move"
    assert first["id"] == str(oldest)
    await admin.stop()


async def test_rounds_of_the_first_format_tell_whose_models_were_merged(tmp_path):
    disk = MemoryDisk()
    old = {f.name: getattr(completed(1), f.name) for f in dataclasses.fields(RoundCompleted) if f.name != "sources"}
    event = StoredEvent(1, 1.0, "round_completed", json.dumps(old | {"merged": [A, B], "text": "t"}))
    await MemoryStore(disk).append([event])
    admin = Admin(tmp_path, MemoryStore(disk))
    await admin.start()
    async with admin.tcp.get("/api/v1/rounds") as answer:
        (told,) = await answer.json()
    assert (told["merged"], told["sources"]) == ([A, B], [])
    await admin.stop()


async def test_a_wrong_last_event_id_is_refused(admin):
    async with admin.tcp.get("/api/v1/events", headers=SSE | {"Last-Event-ID": "x"}) as answer:
        assert answer.status == 400


async def test_open_streams_do_not_hold_up_the_stop(admin):
    async with admin.tcp.get("/api/v1/events", headers=SSE) as answer:
        assert answer.status == 200
        await asyncio.wait_for(admin.server.stop(), 3)


async def test_a_reader_that_takes_nothing_is_let_go(admin, monkeypatch):
    monkeypatch.setattr(app, "WRITE_SECONDS", 0.1)
    detail = "x" * 100_000
    for _ in range(100):
        admin.log.emit(ProblemRaised("TALKATIVE", "warning", detail, ""))
    with socket.create_connection((admin.server.address.host, admin.server.address.port)) as stuck:
        stuck.sendall(b"GET /api/v1/events?since=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        async with asyncio.timeout(5):
            while not admin.log.subscribers:
                await asyncio.sleep(0.01)
            while admin.log.subscribers:
                await asyncio.sleep(0.01)


async def test_listening_over_tcp_can_be_left_out(admin):
    assert admin.server.address == Address("127.0.0.1", admin.server.address.port)
    assert admin.server.address.port > 0
