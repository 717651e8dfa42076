"""Bringing the schema of a hub to another version: by one process at a time, beside hosts that work."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from durably.core.commit import Batch
from durably.errors import HubNotFoundError, HubVersionError, StoreUnavailableError
from durably.storage.postgres.migrations import STEPS, VERSION, Step
from durably.storage.postgres.store import PostgresStore
from durably.testing.store_scene import FOREVER, history_row, instance_row
from tests.integration.postgres.schemes import LATER, NEXT, NUMBERS, asked, migrated, shape
from tests.support.postgres import PostgresServer

Hub = Callable[..., PostgresStore]


class Made:
    """A hub that is there."""

    def __init__(self, hub: Hub, **options: Any) -> None:
        self._store = hub(**options or {"partitions": 1})

    async def __aenter__(self) -> str:
        await self._store.open()
        return self._store.url

    async def __aexit__(self, *_: object) -> None:
        await self._store.close()


def test_ten_at_once_make_one_hub(hub: Hub) -> None:
    async def main() -> None:
        stores = [hub(partitions=3) for _ in range(10)]
        await asyncio.gather(*(store.open() for store in stores))
        assert {(await store.identity()).hub_id for store in stores} == {(await stores[0].identity()).hub_id}
        url = stores[0].url
        assert await asked(url, "SELECT count(*) FROM {s}.partitions") == [(3,)]
        assert await asked(
            url, "SELECT array_agg(step ORDER BY step), bool_and(done_at IS NOT NULL) FROM {s}.migrations"
        ) == [([step.number for step in STEPS], True)]
        await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(main())


def test_ten_at_once_do_each_step_once(hub: Hub) -> None:
    async def main() -> None:
        store = hub(partitions=3)
        await store.open()
        done: list[int] = []
        found = await asyncio.gather(
            *(
                migrated(
                    store.url, post=True, told=lambda step, text: None if text else done.append(step.number)
                )
                for _ in range(10)
            )
        )
        assert {one.done for one in found} == {NUMBERS}
        assert done == sorted(NUMBERS - {step.number for step in STEPS})
        await store.close()

    asyncio.run(main())


def test_a_hub_that_grew_is_like_one_that_was_made_anew(hub: Hub, server: PostgresServer) -> None:
    async def main() -> None:
        store = hub(partitions=2)
        await store.open()
        await migrated(store.url, post=True)
        anew = server.url(f"{store.url.rpartition('=')[2]}_anew")
        found = await migrated(anew)
        assert found.done == NUMBERS  # those that wait for the end of older hosts, too: there are none
        assert await shape(anew) == await shape(store.url)
        await store.close()

    asyncio.run(main())


async def _work(store: PostgresStore, lease: Any, number: int) -> None:
    row = instance_row(f"i{number}", number)
    await store.commit(lease, Batch(number=number, instances=[row], history=[history_row(number, 0)]))


def test_a_host_of_this_version_works_while_the_next_one_is_prepared(hub: Hub) -> None:
    async def main() -> None:
        store = hub(partitions=1)
        await store.open()
        lease = await store.acquire(0, "the old one")
        await _work(store, lease, 1)
        found = await migrated(store.url)
        assert (found.version, found.oldest) == (VERSION + 1, 0)
        await _work(store, lease, 2)
        await store.close()
        again = hub()  # an old host that is started anew
        await again.open()
        lease = await again.acquire(0, "the old one again")
        assert (await again.load(lease, FOREVER)).batch == 2
        await again.close()

    asyncio.run(main())


def test_a_hub_that_is_finished_for_the_next_version_refuses_this_one(hub: Hub) -> None:
    async def main() -> None:
        async with Made(hub) as url:
            await migrated(url, post=True)
            with pytest.raises(HubVersionError, match=f"below version {VERSION + 1} need is gone"):
                await hub().open()
            await migrated(url, LATER)
            with pytest.raises(
                HubVersionError, match=f"has schema version {VERSION + 2}, this durably knows up to {VERSION}"
            ):
                await hub(partitions=1).open(create=False)

    asyncio.run(main())


def test_two_versions_at_once_are_made_of_a_hub_that_nobody_serves(hub: Hub) -> None:
    async def main() -> None:
        store = hub(partitions=1)
        await store.open()
        lease = await store.acquire(0, "too old to survive it")
        with pytest.raises(
            HubVersionError, match="'too old to survive it' still serves it: deploy the versions between"
        ):
            await migrated(store.url, LATER)
        assert await asked(store.url, "SELECT max(step) FROM {s}.migrations") == [(len(STEPS),)]
        await store.release(lease)
        found = await migrated(store.url, LATER)
        assert found.done == frozenset(step.number for step in LATER)
        await store.close()

    asyncio.run(main())


def test_who_only_looks_changes_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with pytest.raises(HubNotFoundError, match="start a host, or run durably hub migrate"):
            await hub().open(create=False)
        async with Made(hub) as url:
            await asked(url, "DELETE FROM {s}.migrations WHERE step = $1", len(STEPS))
            with pytest.raises(
                HubVersionError,
                match=rf"start a host of this version, or run durably hub migrate.*step {len(STEPS)} ",
            ):
                await hub().open(create=False)

    asyncio.run(main())


def test_a_table_that_is_in_use_is_changed_later(hub: Hub, server: PostgresServer) -> None:
    async def main() -> None:
        async with Made(hub) as url:
            reader = await asyncpg.connect(url.partition("?")[0])
            reading = reader.transaction()
            await reading.start()
            await reader.fetch(f"SELECT * FROM {url.rpartition('=')[2]}.instances")
            migrating = asyncio.create_task(migrated(url))
            # While the reader is there, writers are not kept out for good: the change gives way again and again.
            async with asyncio.timeout(60):
                while not await asked(  # noqa: ASYNC110 - it happens on the server
                    url, "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
                ):
                    await asyncio.sleep(0.02)
                await asked(url, "SELECT * FROM {s}.instances")
            assert not migrating.done()
            await reading.rollback()
            await reader.close()
            assert (await migrating).version == VERSION + 1

    asyncio.run(main())


# --- death -----------------------------------------------------------------------------------------------------------

_CHILD = """
import asyncio, os, signal, sys
from tests.integration.postgres.schemes import NEXT, migrated
left = int(sys.argv[2])
def told(step, text):
    global left
    if text:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(migrated(sys.argv[1], post=True, told=told))
"""


def _killed(url: str, after: int) -> bool:
    """Migrate in a child that dies behind a statement; False when it had no more than that."""
    code = subprocess.run([sys.executable, "-c", _CHILD, url, str(after)], check=False).returncode
    assert code in {0, -signal.SIGKILL}
    return code != 0


def test_a_process_that_dies_behind_any_statement_leaves_what_the_next_one_finishes(hub: Hub) -> None:
    store = hub(partitions=2)
    asyncio.run(_open_and_close(store))
    for after in count():
        name = f"{store.url}_{after}"
        asyncio.run(_open_and_close(PostgresStore(name, partitions=2)))
        killed = _killed(name, after)
        found = asyncio.run(migrated(name, post=True))
        assert found.done == NUMBERS
        assert all(valid for _, valid in asyncio.run(shape(name))[1])
        if not killed:
            break
    assert after >= len([text for step in NEXT[len(STEPS) :] for text in step.statements])


async def _open_and_close(store: PostgresStore) -> None:
    await store.open()
    await store.close()


def test_a_hub_is_made_wholly_or_not_at_all(hub: Hub) -> None:
    url = hub().url
    for after in (0, 1, 20):
        assert _killed(url, after)
        with pytest.raises(HubNotFoundError):
            asyncio.run(hub().open(create=False))
    asyncio.run(_open_and_close(hub(partitions=2)))


@pytest.mark.parametrize("after", range(9))
def test_a_connection_that_is_cut_behind_any_statement_leaves_what_the_next_one_finishes(
    hub: Hub, after: int
) -> None:
    left = after

    async def main() -> None:
        async with Made(hub) as url:
            tasks: list[asyncio.Task[Any]] = []

            def told(step: Step, text: str) -> None:
                nonlocal left
                left -= bool(text)
                if left == 0:
                    tasks.append(asyncio.create_task(_cut(url)))

            with suppress(StoreUnavailableError):
                await migrated(url, post=True, told=told)
            await asyncio.gather(*tasks)
            assert (await migrated(url, post=True)).done == NUMBERS
            assert all(valid for _, valid in (await shape(url))[1])

    asyncio.run(main())


async def _cut(url: str) -> None:
    await asked(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'durably migrating'",
    )


def test_a_server_that_dies_while_it_migrates_leaves_what_the_next_one_finishes(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "server")
    server.start()
    try:
        for after in range(1, 9):
            url = server.url(f"dies_{after}")
            asyncio.run(_open_and_close(PostgresStore(url, partitions=2)))
            left = after

            def told(step: Step, text: str) -> None:
                nonlocal left
                left -= bool(text)
                if left == 0:
                    server.kill()

            with suppress(StoreUnavailableError):
                asyncio.run(migrated(url, post=True, told=told))
            if left <= 0:
                server.start()
            assert asyncio.run(migrated(url, post=True)).done == NUMBERS
    finally:
        server.stop()
