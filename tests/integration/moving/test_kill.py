"""An import into PostgreSQL that dies leaves nothing, and is in nobody's way."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from durably.core.dump import DumpHead, DumpRows, OwnedHistory, PlacedInstance, Positions
from durably.errors import HubNotFoundError
from durably.storage.export_file import ExportWriter
from durably.storage.moving import Counted, import_hub
from durably.storage.open import moved_store
from durably.testing.store_scene import history_row, instance_row

COUNT = 2_000


def export() -> bytes:
    file = io.BytesIO()
    writer = ExportWriter(file.write, 0, "0.1")
    writer.add(DumpHead(bytes(16), {}, 1, 1, [COUNT], Positions(COUNT, 0, 0)))
    for first in range(1, COUNT, 100):
        numbers = range(first, first + 100)
        rows = [PlacedInstance(n, instance_row(f"i{n}", n, input=os.urandom(500))) for n in numbers]
        writer.add(DumpRows("instances", rows))
    writer.add(DumpRows("history", [OwnedHistory(f"i{n}", history_row(n, 0)) for n in range(1, COUNT + 1)]))
    writer.end()
    return file.getvalue()


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0], ids=["early", "amid", "late"])
def test_an_import_that_is_killed_leaves_no_hub(postgres_url: Callable[[], str], share: float) -> None:
    url, file = postgres_url(), export()
    given = file[: int(share * (len(file) - 10))]
    command = [sys.executable, "-m", "durably", "hub", "import", "-", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(given)  # more than the pipe holds: most of it has been read
        process.stdin.flush()
        process.kill()
        process.wait()

    async def look() -> None:
        with pytest.raises(HubNotFoundError):
            await moved_store(url).open(create=False)
        counted = Counted()
        await import_hub(io.BytesIO(file).read, "the export", moved_store(url), counted)
        assert counted.rows["instances"] == COUNT
        store = moved_store(url)
        await store.open(create=False)
        assert await store.get_instance(f"i{COUNT}") is not None
        assert await store.read_history(f"i{COUNT}") == [history_row(COUNT, 0)]
        await store.delete()

    asyncio.run(look())


def test_a_cut_off_file_leaves_no_hub(postgres_url: Callable[[], str]) -> None:
    url, file = postgres_url(), export()
    command = [sys.executable, "-m", "durably", "hub", "import", "-", url]
    done = subprocess.run(command, input=file[:-1], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"stdin is cut off behind 2,000 instances, 2,000 history" in done.stderr

    async def look() -> None:
        with pytest.raises(HubNotFoundError):
            await moved_store(url).open(create=False)

    asyncio.run(look())
