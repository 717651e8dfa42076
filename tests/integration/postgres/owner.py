"""A process that owns a partition, and commits once more when it gets a line. Line by line it says what happens.

python owner.py URL LEASE_S
"""

import asyncio
import sys

from durably.core.commit import Batch
from durably.errors import LeaseLostError
from durably.storage.postgres.store import PostgresStore


def say(text: str) -> None:
    print(text, flush=True)


async def main(url: str, lease_s: float) -> None:
    store = PostgresStore(url, lease_s=lease_s)
    await store.open()
    lost = asyncio.Event()
    store.on_lease_lost(lambda lease: (say(f"lost {lease.partition}"), lost.set()))
    lease = await store.acquire(0, "the first")
    await store.commit(lease, Batch(1))
    say("owns")
    await asyncio.to_thread(sys.stdin.readline)
    try:
        await store.commit(lease, Batch(2))
        say("committed")
    except LeaseLostError:
        say("fenced")
    await lost.wait()
    await store.close()
    say("closed")


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
