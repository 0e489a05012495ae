#!/usr/bin/env python3
"""Pulling, verifying and admitting 150,000 parameters, beside the same bytes over plain aiohttp with mutual TLS.

    python scripts/bench_exchange.py [--repeats 300] [--processes 5] [--hidden 400,368] [--json]

Both servers and both clients run in one process and take turns; a pair of neighbours gives a ratio, a process the
median of its pairs. Where a process happens to lie in memory moves that by several percent, so the figure is the median
over several fresh ones, and their range stands beside it. The bar is 1.5, in processor time: everything happens on one
thread, and on a busy machine whoever needs longer than a time slice also waits for the others. Elapsed time stands
beside it, and is the same on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import aiohttp
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent.parent))  # the consortium is the tests'

from p2pfed.core.inbox import Inbox
from p2pfed.core.types import Address, Verdict
from p2pfed.net import limits
from p2pfed.net.tls import certificate_of, client_context, server_context
from tests.net.nodes import Bank, make_consortium, serve, transport_of

BAR = 1.5
WARM_UP = 20
CLOCKS = {"cpu": time.process_time, "elapsed": time.perf_counter}


async def serve_plain(bank: Bank, member: Bank, frame: bytes) -> tuple[web.AppRunner, Address]:
    """aiohttp as it comes, with mutual TLS: answers every GET with `frame`."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=frame)

    app = web.Application()
    app.router.add_get("/update", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(bank.pem, [certificate_of(member.pem)]))
    await site.start()
    return runner, Address("127.0.0.1", runner.addresses[0][1])


def measure(repeats: int, hidden: tuple[int, ...]) -> dict[str, float]:
    """Median milliseconds of both ways, and the median ratio of neighbours."""
    limits.REQUESTS_PER_SECOND = 1e9
    return asyncio.run(exchange_beside_plain(repeats, hidden))


async def exchange_beside_plain(repeats: int, hidden: tuple[int, ...]) -> dict[str, float]:
    """What `measure` gives, of this process."""
    with tempfile.TemporaryDirectory() as directory:
        a, b = make_consortium(Path(directory), 2, hidden)
        me, peer = a.id, b.id
        frame = b.handler.frames[peer].frame
        listener, address = await serve(b)
        transport = transport_of(a)
        runner, plain_address = await serve_plain(b, a, frame)
        context = client_context(a.pem, [certificate_of(b.pem)])

        async with aiohttp.ClientSession() as session:

            async def plain() -> None:
                async with session.get(f"https://{plain_address}/update", ssl=context) as response:
                    assert len(await response.read()) == len(frame)

            async def exchange() -> None:
                update = await transport.pull(peer, [address], peer, 0)
                assert update is not None
                assert Inbox(me).offer(update, 0)[0] is Verdict.ACCEPT

            ours, theirs = await take_turns([exchange, plain], repeats)
        await transport.close()
        await listener.close()
        await runner.cleanup()
    return {
        "parameters": a.handler.trusted.schema.size,
        "bytes": len(frame),
        **{f"exchange_{clock}_ms": 1000 * statistics.median(ours[clock]) for clock in CLOCKS},
        **{f"plain_{clock}_ms": 1000 * statistics.median(theirs[clock]) for clock in CLOCKS},
        **{f"{clock}_ratio": ratio(ours[clock], theirs[clock]) for clock in CLOCKS},
    }


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median ratio of calls that were made one after the other."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


async def take_turns(calls: list[Callable[[], Awaitable[None]]], repeats: int) -> list[dict[str, list[float]]]:
    """Seconds of each call on each clock, the first ones left out."""
    times: list[dict[str, list[float]]] = [{clock: [] for clock in CLOCKS} for _ in calls]
    order = list(zip(calls, times, strict=True))
    for _ in range(repeats + WARM_UP):
        order.reverse()
        for call, taken in order:
            started = {clock: read() for clock, read in CLOCKS.items()}
            await call()
            for clock, read in CLOCKS.items():
                taken[clock].append(read() - started[clock])
    return [{clock: taken[clock][WARM_UP:] for clock in CLOCKS} for taken in times]


def measure_afresh(processes: int, repeats: int, hidden: tuple[int, ...]) -> dict[str, float]:
    """The median of what `measure` gives in each of several new processes, and the range of their ratios."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        runs = list(pool.map(measure, [repeats] * processes, [hidden] * processes))
    ratios = [run["cpu_ratio"] for run in runs]
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {**medians, "cpu_ratio_lowest": min(ratios), "cpu_ratio_highest": max(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300, help="pairs in each process")
    parser.add_argument("--processes", type=int, default=5, help="one after another")
    parser.add_argument("--hidden", default="400,368", help="hidden layers of the model that is exchanged")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    hidden = tuple(int(n) for n in options.hidden.split(","))
    result = measure_afresh(options.processes, options.repeats, hidden)
    if options.json:
        print(json.dumps(result))
        return
    size = f"{result['parameters']:,.0f} parameters, {result['bytes']:,.0f} bytes"
    print(f"{size}, {options.processes} x {options.repeats} pairs, medians: CPU (elapsed)")
    for name, what in ("exchange", "pull + verify + admit"), ("plain", "plain aiohttp, mTLS"):
        print(f"{what:22} {result[f'{name}_cpu_ms']:6.2f} ms ({result[f'{name}_elapsed_ms']:.2f})")
    span = f"processes {result['cpu_ratio_lowest']:.2f} to {result['cpu_ratio_highest']:.2f}"
    print(f"{'ratio':22} {result['cpu_ratio']:6.2f}    ({result['elapsed_ratio']:.2f})   bar {BAR}, {span}")


if __name__ == "__main__":
    main()
