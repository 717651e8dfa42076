"""The engine of W6, in a process that can be killed. Commands come in on stdin and are answered on stdout, as JSON lines.

    {"do": "start", "keys": […], "log": PATH}    start an instance per key; answered once all are durable
    {"do": "raise", "keys": […]}                 raise the event of each; answered once all are durable
    {"do": "wait", "keys": […], "prefix": TEXT, "limit_s": 100}
                                                 answered once all have completed, or the time is over: how many have,
                                                 from committed rows; the prefix is that of all keys

It ends when stdin does, so it never outlives its parent.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from bench.figures import closed_loop
from bench.hub import check_durable
from bench.loops import run
from bench.programs import app, noted_waiter, order
from durably import Client, RuntimeStatus

IN_FLIGHT = 50
_LAST = 10
_LOOK_S = 0.01
_LINE_BYTES_MAX = 64 << 20

Command = dict[str, Any]


async def start(client: Client, command: Command) -> Command:
    async def one(key: str) -> None:
        await client.start(noted_waiter, {"data": order(), "log": command["log"]}, instance_id=key)

    await closed_loop(command["keys"], one, IN_FLIGHT)
    return {"started": len(command["keys"])}


async def raise_all(client: Client, command: Command) -> Command:
    async def one(key: str) -> None:
        await client.raise_event(key, "go", {"go": True})

    await closed_loop(command["keys"], one, IN_FLIGHT)
    return {"raised": len(command["keys"])}


async def wait(client: Client, command: Command) -> Command:
    """The last ones first, without polling: counting all of them too early would weigh on what is measured."""
    keys: list[str] = command["keys"]
    completed = 0
    try:
        async with asyncio.timeout(command["limit_s"]):
            for key in keys[-_LAST:]:
                await client.wait_for_completion(key)
            while True:
                completed = await _completed(client, command["prefix"])
                if completed == len(keys):
                    break
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        completed = await _completed(client, command["prefix"])
    return {"completed": completed}


async def _completed(client: Client, prefix: str) -> int:
    found, token = 0, None
    while True:
        page = await client.query_instances(
            instance_id_prefix=prefix,
            runtime_status=RuntimeStatus.Completed,
            page_size=1_000,
            continuation_token=token,
        )
        found += len(page.instances)
        token = page.continuation_token
        if token is None:
            return found


COMMANDS = {"start": start, "raise": raise_all, "wait": wait}


async def serve(url: str) -> None:
    """Serve the hub, and the parent."""
    async with app.host(url) as host:
        check_durable("sqlite", host.engine.store)
        commands = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
        )
        _answer({"ready": os.getpid()})
        while line := await commands.readline():
            command: Command = json.loads(line)
            _answer(await COMMANDS[command["do"]](host.client, command))


def _answer(answer: Command) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    run(serve(sys.argv[1]), sys.argv[2])
