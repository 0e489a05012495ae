"""Who reads without the token has a share of the node's time, and another web site's page has none."""

from __future__ import annotations

import asyncio

import pytest

from p2pfed.api import reading
from p2pfed.api.app import ROUTES
from p2pfed.core.events import RoundCompleted
from tests.api.conftest import TOKEN

pytestmark = pytest.mark.network
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("path", [route.path for route in ROUTES if route.method == "GET"])
async def test_another_web_site_cannot_read(admin, path):
    for site in ("cross-site", "same-site"):
        async with admin.tcp.get(path.format(member="bank-b"), headers={"Sec-Fetch-Site": site}) as answer:
            assert answer.status == 403
    async with admin.tcp.get(path.format(member="bank-b"), headers={"Sec-Fetch-Site": "same-origin"}) as answer:
        assert answer.status == 200


@pytest.fixture
async def little(admin, monkeypatch):
    """Few bytes may be read."""
    monkeypatch.setattr(reading, "BYTES_AT_ONCE", 3 * reading.REQUEST_BYTES)
    monkeypatch.setattr(reading, "BYTES_PER_SECOND", 1)
    await admin.stop()
    await admin.start()
    return admin


async def get(client, path, **headers):
    async with client.get(path, headers=headers) as answer:
        await answer.read()
        return answer.status


async def test_reads_without_the_token_have_a_budget(little):
    for number in range(1, 100):
        little.log.emit(RoundCompleted(number, number, 0.5, 20, 0.7, 0.4, (), 0.25))
    asked = [get(little.tcp, "/api/v1/rounds?limit=1000") for _ in range(10)]
    assert sorted(await asyncio.gather(*asked)) == [200, *[429] * 9], "one answer, which is more than the budget"
    assert await get(little.tcp, "/metrics") == 429
    assert await get(little.tcp, "/livez") == await get(little.tcp, "/readyz") == 200
    assert await get(little.tcp, "/api/v1/rounds", **BEARER) == 200
    assert await get(little.unix, "/api/v1/rounds") == 200


async def test_small_reads_are_counted_too(little):
    assert [await get(little.tcp, "/api/v1/updates") for _ in range(4)] == [200, 200, 429, 429]


async def test_the_history_of_a_stream_comes_no_faster(little):
    for number in range(1, 1100):
        little.log.emit(RoundCompleted(number, number, 0.5, 20, 0.7, 0.4, (), 0.25))
    await little.log.flush()
    for client, complete in ((little.tcp, False), (little.unix, True)):
        async with client.get("/api/v1/events?since=0", headers={"Accept": "text/event-stream"}) as answer:
            text = b""
            try:
                async with asyncio.timeout(2 if complete else 0.5):
                    while b"id: 1099\n" not in text:
                        text += await answer.content.readany()
            except TimeoutError:
                pass
            assert b"id: 1000\n" in text
            assert (b"id: 1099\n" in text) is complete
