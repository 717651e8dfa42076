"""W5: counters, which are entities, and one-way signals that add to them."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Iterable
from time import perf_counter

from bench.figures import Load, MeasurementError, Record, closed_loop, latency
from bench.programs import Counter
from bench.workloads import HostedWorkload
from durably import Client, EntityId

_LAST = 10
"""How many counters are looked at again and again until they have their sum; reading should not weigh on the figure."""

_PATIENCE_S = 60.0


def w5(keys: int) -> HostedWorkload:
    """Signals over so many counters in turn; over when each counter has been seen to have all of its own."""

    async def workload(client: Client, load: Load) -> Record:
        names = [f"{load.tag}-{number}" for number in range(keys)]

        async def send(number: int) -> str:
            name = names[number % keys]
            await client.signal_entity(EntityId("counter", name), "add", 1)
            return name

        began = perf_counter()
        sent = await closed_loop(range(load.n), send, load.c, began + load.cap_s)
        sent_after = perf_counter() - began
        signalled: list[str] = [timing.result for timing in sent]
        expected = Tally(signalled)
        last = list(dict.fromkeys(reversed(signalled)))[:_LAST]
        await _reached(client, expected, last)
        wall = perf_counter() - began
        await _reached(client, expected, expected)
        return {
            "done": len(sent),
            "keys": keys,
            "wall_s": round(wall, 4),
            "send_s": round(sent_after, 4),
            "signals_per_s": round(len(sent) / wall, 2),
            **latency([timing.seconds for timing in sent]),
        }

    return workload


async def _reached(client: Client, expected: Tally[str], names: Iterable[str]) -> None:
    """Return when these counters have what they were sent; a counter that has more is an error at once."""
    deadline = perf_counter() + _PATIENCE_S
    for name in names:
        while (value := await _value(client, name)) != expected[name]:
            if value > expected[name] or perf_counter() > deadline:
                raise MeasurementError(f"counter {name!r} has {value}: expected {expected[name]}")
            await asyncio.sleep(0.001)


async def _value(client: Client, name: str) -> int:
    counter = await client.read_entity(EntityId("counter", name), Counter)
    return 0 if counter is None else counter.value
