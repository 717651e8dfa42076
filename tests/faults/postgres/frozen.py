"""A process that owns a partition and commits: `python -m tests.faults.postgres.frozen URL LEASE_S`.

It prints ``owns EPOCH`` once, and what became of each commit: ``done NUMBER`` or ``refused TYPE NUMBER``. It begins with the
batches that it is told on its standard input, a line each.
"""

from __future__ import annotations

import asyncio
import sys

from durably.core.commit import Batch
from durably.errors import DurablyError
from durably.storage.postgres.store import PostgresStore
from durably.testing.store_scene import history_row, instance_row


def batch_of(number: int, word: str) -> Batch:
    """A batch that says whose it is."""
    row = history_row(1, number - 1, data=f"{word} {number}".encode())
    return Batch(number=number, history=[row], instances=[instance_row("a", 1)] if number == 1 else [])


async def main() -> None:
    url, lease_s = sys.argv[1:]
    store = PostgresStore(url, partitions=1, lease_s=float(lease_s))
    await store.open()
    lease = await store.acquire(0, "frozen")
    print("owns", lease.epoch, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        number = int(line)
        try:
            await store.commit(lease, batch_of(number, "frozen"))
            print("done", number, flush=True)
        except DurablyError as error:
            print("refused", type(error).__name__, number, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
