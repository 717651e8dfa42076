"""A host of many, in a process of its own, for measurements. Commands come in on stdin, answers go out, as JSON lines.

    {"do": "start", "first": 0, "n": 1000, "tag": TEXT} starts instances that wait for an event
    {"do": "raise", "tag": TEXT, "number": 7}           raises the event of one, and waits until it has ended
    {"do": "chains", "n": 1000, "c": 100}               chains of five activities, so many in flight: the time of each
    {"do": "owns"}                                      how many partitions it owns, and the memory that it has

It ends, in good order, when stdin does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from time import perf_counter
from typing import Any

import uvloop

from bench.figures import Load, closed_loop
from bench.hub import hub_options
from bench.machine import resident_mb
from bench.programs import app, order, waiter
from bench.workloads import run_chains
from durably import AppHost

Command = dict[str, Any]


async def obey(host: AppHost, command: Command) -> Command:
    """Do what a command says."""
    client = host.client
    match command["do"]:
        case "start":
            first = command["first"]
            names = [f"{command['tag']}-{number}" for number in range(first, first + command["n"])]

            async def start(name: str) -> None:
                await client.start(waiter, order(), instance_id=name)

            await closed_loop(names, start, 500)
            return {"started": len(names)}
        case "raise":
            name = f"{command['tag']}-{command['number']}"
            await client.raise_event(name, "go", {"go": True})
            return {"result": await client.handle(name).result()}
        case "chains":
            seconds, _ = await run_chains(client, Load(command["n"], command["c"], "", 600), 5, named=False)
            return {"seconds": [round(one, 6) for one in seconds]}
        case _:
            survey = await host.engine.store.survey()
            mine = sum(one.partitions for one in survey.hosts if one.is_me)
            return {"owns": mine, "hosts": len(survey.hosts), "rss_mb": round(resident_mb(os.getpid()), 1)}


async def serve(url: str, variant: str) -> None:
    """Serve the hub, and the parent."""
    began = perf_counter()
    async with app.host(url, options=hub_options(variant)) as host:
        commands = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
        )
        _answer({"ready": os.getpid(), "start_s": round(perf_counter() - began, 3)})
        while line := await commands.readline():
            _answer(await obey(host, json.loads(line)))


def _answer(answer: Command) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2]))
