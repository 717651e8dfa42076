"""Other processes: what they do is named on the command line; they speak by lines on their output."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from durably.core.commit import Batch
from durably.errors import OperationError
from durably.storage.sqlite.store import SqliteStore
from durably.testing.store_scene import history_row, instance_row, message


@contextmanager
def child(command: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command of this file in a process of its own; it is killed when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.sqlite.children", command, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], line: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _say(line: object) -> None:
    os.write(1, f"{line}\n".encode())  # in one piece, and at once


async def host(path: str) -> None:
    """Own the hub until the parent says so, or kills it."""
    store = SqliteStore(path)
    await store.open()
    await store.acquire(0, "the child")
    _say("owner")
    await asyncio.to_thread(sys.stdin.readline)
    await store.close()
    _say("closed")


async def write(path: str) -> None:
    """Commit batch after batch; say the number of each one that was acknowledged."""
    store = SqliteStore(path)
    await store.open()
    lease = await store.acquire(0, "the child")
    number = (await store.load(lease, 0)).batch
    while True:
        number += 1
        rows = [history_row(execution, number - 1, data=b"x" * 300) for execution in range(1, 9)]
        instances = [instance_row(f"{execution}", execution, in_flight=True) for execution in range(1, 9)]
        await store.commit(lease, Batch(number, history=rows, instances=instances if number == 1 else []))
        _say(number)


async def post(path: str) -> None:
    """Post a message for each line of the parent."""
    store = SqliteStore(path)
    await store.open(create=False)
    _say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        await store.post([message(line.strip())])
        _say("posted")
    await store.close()


async def open_as_nobody(path: str) -> None:
    """Say what opening the hub without rights raises."""
    if os.geteuid() == 0:
        os.setuid(65_534)
    try:
        await SqliteStore(path).open()
        _say("opened")
    except OperationError as error:
        _say(f"{type(error).__name__}: {error}")


async def outgrow(path: str) -> None:
    """Reach a limit on the size of files, and go on when it is lifted."""
    store = SqliteStore(path)
    await store.open()
    lease = await store.acquire(0, "the child")
    await store.commit(lease, Batch(1, instances=[instance_row("small")]))
    size = os.stat(f"{path}-wal").st_size  # noqa: PTH116 - nothing else runs here
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, resource.RLIM_INFINITY))
    large = Batch(2, instances=[instance_row("large", 2, input=b"x" * 100_000)])
    for _ in range(2):
        try:
            await store.commit(lease, large)
            _say("committed")
        except OperationError as error:
            _say(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.commit(lease, large)
    _say((await store.load(lease, 0)).batch)
    await store.close()


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
