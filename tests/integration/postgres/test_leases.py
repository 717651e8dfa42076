"""Leases by the clock of the server: what loses one, and what does not."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from durably.core.commit import Batch, TaskRow
from durably.errors import HubLockedError, LeaseLostError
from durably.storage.api import HostReport, Lease
from durably.storage.postgres.store import PostgresStore
from durably.storage.shared_tasks import TaskResult
from durably.storage.slots import partition_of
from durably.testing.store_scene import WAIT_S, message
from tests.support.postgres import PostgresServer

Hub = Callable[..., PostgresStore]
REPORT = HostReport("a host", "1")


@asynccontextmanager
async def opened(hub: Hub, **options: Any) -> AsyncGenerator[PostgresStore]:
    store = hub(**options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def sql(store: PostgresStore) -> AsyncGenerator[Callable[..., Any]]:
    """Statements on a connection of their own."""
    connection = await asyncpg.connect(store._address.dsn)
    try:
        yield lambda text, *values: connection.fetch(text.replace("{s}", store._schema), *values)
    finally:
        await connection.close()


def losses(store: PostgresStore) -> asyncio.Queue[Lease]:
    queue: asyncio.Queue[Lease] = asyncio.Queue()
    store.on_lease_lost(queue.put_nowait)
    return queue


async def take_over(store: PostgresStore, partition: int = 0) -> Lease:
    """Acquire it as soon as somebody else's lease has run out."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await store.acquire(partition, "the next")
            except HubLockedError:
                await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)


# --- processes -------------------------------------------------------------------------------------------------------


class Owner:
    """The other process, see `owner.py`."""

    def __init__(self, url: str, lease_s: float) -> None:
        command = [sys.executable, str(Path(__file__).with_name("owner.py")), url, str(lease_s)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.slow_once
def test_a_host_that_was_paused_is_fenced_and_told(hub: Hub) -> None:
    async def main() -> None:
        async with opened(hub, partitions=1, lease_s=1.5) as store:
            owner = Owner(store._address.dsn + f"?hub={store._address.schema}", 1.5)
            try:
                assert owner.heard() == "owns"
                with pytest.raises(HubLockedError, match="the first"):
                    await store.acquire(0, "too early")
                owner.signal(signal.SIGSTOP)
                lease = await take_over(store)
                assert (lease.epoch, lease.orphaned) == (2, True)
                await store.commit(lease, Batch(2))
                owner.signal(signal.SIGCONT)
                owner.tell("commit")
                said = [await asyncio.to_thread(owner.heard) for _ in range(3)]
                assert sorted(said[:2]) == ["fenced", "lost 0"]
                assert said[2] == "closed"
                await store.renew(lease)
                assert (await store.survey()).partitions[0].epoch == 2
            finally:
                owner.end()

    asyncio.run(main())


@pytest.mark.slow_once
def test_the_partition_of_a_host_that_was_killed_is_taken_over(hub: Hub) -> None:
    async def main() -> None:
        async with opened(hub, partitions=1, lease_s=1.5) as store:
            owner = Owner(store._address.dsn + f"?hub={store._address.schema}", 1.5)
            try:
                assert owner.heard() == "owns"
                owner.signal(signal.SIGKILL)
                assert (await take_over(store)).orphaned
            finally:
                owner.end()

    asyncio.run(main())


# --- a busy loop -----------------------------------------------------------------------------------------------------


@pytest.mark.slow_once
def test_a_loop_that_is_blocked_keeps_its_leases(hub: Hub) -> None:
    async def main() -> None:
        async with opened(hub, partitions=2, lease_s=1) as store, opened(hub) as other:
            lost = losses(store)
            leases = [await store.acquire(number, "busy") for number in range(2)]
            time.sleep(7)  # noqa: ASYNC251 - that is what it is about
            for number in range(2):
                with pytest.raises(HubLockedError, match="busy"):
                    await other.acquire(number, "too early")
            for lease in leases:
                await store.commit(lease, Batch(1))
            assert lost.empty()

    asyncio.run(main())


@pytest.mark.slow_once
def test_a_loop_that_is_blocked_for_too_long_loses_its_leases(hub: Hub) -> None:
    taken: list[Lease] = []

    async def next_owner() -> None:
        async with opened(hub) as store:
            taken.append(await take_over(store))
            await store.release(taken[0])

    async def main() -> None:
        async with opened(hub, partitions=1, lease_s=1, heartbeat_s=1) as store:
            lost = losses(store)
            lease = await store.acquire(0, "stuck")
            heir = threading.Thread(target=lambda: asyncio.run(next_owner()))
            heir.start()
            heir.join()  # blocks the loop, as code that never awaits does
            assert taken[0].epoch == 2
            assert taken[0].orphaned
            assert await asyncio.wait_for(lost.get(), WAIT_S) == lease
            with pytest.raises(LeaseLostError):
                await store.commit(lease, Batch(1))
            again = await store.acquire(0, "awake")
            assert not again.orphaned
            await store.commit(again, Batch(1))
            assert lost.empty()

    asyncio.run(main())


# --- the server ------------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_server_that_comes_back_in_time_costs_no_lease(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "server")
    server.start()

    async def main() -> None:
        store = PostgresStore(server.url("hub"), partitions=2, lease_s=12)
        await store.open()
        lost = losses(store)
        lease = await store.acquire(0, "patient")
        server.kill()
        await asyncio.sleep(5)  # a renewal fails meanwhile
        await asyncio.to_thread(server.start)
        await asyncio.sleep(8)
        await store.commit(lease, Batch(1))
        assert lost.empty()
        assert (await store.survey()).partitions[0].epoch == 1
        await store.close()

    try:
        asyncio.run(main())
    finally:
        server.stop()


@pytest.mark.slow_once
def test_a_lease_that_cannot_be_renewed_is_lost_while_the_server_is_away(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "server")
    server.start()

    async def main() -> None:
        store = PostgresStore(server.url("hub"), partitions=1, lease_s=1)
        await store.open()
        lost = losses(store)
        lease = await store.acquire(0, "cut off")
        server.kill()
        assert await asyncio.wait_for(lost.get(), WAIT_S) == lease
        await asyncio.to_thread(server.start)
        again = await store.acquire(0, "back")
        assert (again.epoch, again.orphaned) == (2, True)
        await store.commit(again, Batch(1))
        await store.close()

    try:
        asyncio.run(main())
    finally:
        server.stop()


@pytest.mark.slow_once
def test_commits_without_a_pause_cost_no_lease(hub: Hub) -> None:
    async def busy(store: PostgresStore, lease: Lease) -> int:
        number, end = 0, time.monotonic() + 3
        while time.monotonic() < end:
            number += 1
            await store.commit(lease, Batch(number))
        return number

    async def main() -> None:
        async with opened(hub, partitions=8, lease_s=1) as store:
            lost = losses(store)
            leases = [await store.acquire(number, "busy") for number in range(8)]
            assert min(await asyncio.gather(*(busy(store, lease) for lease in leases))) > 1
            assert lost.empty()

    asyncio.run(main())


@pytest.mark.slow_once
def test_a_commit_that_hangs_costs_its_own_partition_only_and_no_claim(hub: Hub) -> None:
    async def main() -> None:
        async with opened(hub, partitions=2, lease_s=1) as store, sql(store) as run:
            lost = losses(store)
            stuck, fine = [await store.acquire(number, "half stuck") for number in range(2)]
            assert store.tasks is not None
            await store.commit(fine, Batch(1, tasks_offered=[TaskRow("a", "order", "work", 0, b"call")]))
            await store.tasks.claim({"work": 1}, 1)
            await run("BEGIN")
            await run("SELECT FROM {s}.partitions WHERE id = 0 FOR UPDATE")
            assert await asyncio.wait_for(lost.get(), WAIT_S) == stuck
            (left,) = await run("SELECT extract(epoch FROM due - clock_timestamp())::float8 FROM {s}.tasks")
            assert left[0] > 0.2, "it was renewed meanwhile; a round takes 0.4 of its 1 second"
            await asyncio.sleep(2)
            assert lost.empty()
            await run("ROLLBACK")
            await store.commit(fine, Batch(2))

    asyncio.run(main())


# --- wake-ups and statements -----------------------------------------------------------------------------------------


def test_a_listener_knows_whether_it_hears(hub: Hub) -> None:
    async def main() -> None:
        async with opened(hub, partitions=1) as store, sql(store) as run:
            assert not store.listening
            calls: list[None] = []
            store.on_arrival(lambda: calls.append(None))
            await until(lambda: store.listening)
            where = "FROM pg_stat_activity WHERE application_name = 'durably listener' AND query LIKE $1"
            await run(f"SELECT pg_terminate_backend(pid) {where}", f"%{store._address.schema}%")
            await until(lambda: not store.listening)
            await until(lambda: store.listening)
            calls.clear()
            async with opened(hub) as other:
                await other.post([message("m")])
                await until(lambda: bool(calls))

    asyncio.run(main())


def test_what_a_host_writes_itself_does_not_wake_it(hub: Hub) -> None:
    async def main() -> None:
        async with opened(hub, partitions=1) as store, opened(hub) as other:
            calls: list[str] = []
            store.on_arrival(lambda: calls.append("own"))
            other.on_arrival(lambda: calls.append("other"))
            await until(lambda: store.listening and other.listening)
            lease = await store.acquire(0, "owner")
            await asyncio.sleep(0.1)
            calls.clear()
            await store.commit(lease, Batch(1))
            await until(lambda: bool(calls))
            await asyncio.sleep(0.1)
            assert set(calls) == {"other"}

    asyncio.run(main())


@pytest.mark.soak
def test_idle_hosts_ask_little(tmp_path: Path) -> None:
    settings = {"shared_preload_libraries": "pg_stat_statements"}
    server = PostgresServer(tmp_path / "server", durable=False, settings=settings)
    server.start()
    lasts_s, lease_s = 20.0, 15.0

    async def poll(store: PostgresStore, leases: list[Lease]) -> None:
        for turn in range(int(lasts_s / 2)):
            if turn % 2:
                await store.survey(REPORT)
            await asyncio.gather(*(store.read_inbox(lease) for lease in leases))
            await asyncio.sleep(2)

    async def main() -> int:
        stores = [PostgresStore(server.url("hub"), lease_s=lease_s) for _ in range(4)]
        for store in stores:
            await store.open()
            store.on_arrival(lambda: None)
        await until(lambda: all(store.listening for store in stores))
        owned = [
            [await store.acquire(place + 4 * n, "idle") for n in range(8)]
            for place, store in enumerate(stores)
        ]
        async with sql(stores[0]) as run:
            await run("CREATE EXTENSION pg_stat_statements")
            await run("SELECT pg_stat_statements_reset()")
            await asyncio.gather(*(poll(store, leases) for store, leases in zip(stores, owned, strict=True)))
            ((calls,),) = await run("SELECT sum(calls)::int FROM pg_stat_statements")
        for store in stores:
            await store.close()
        return calls

    try:
        assert asyncio.run(main()) <= 5 * lasts_s
    finally:
        server.stop()


def test_inboxes_read_at_once_are_one_statement(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened(hub, partitions=16) as store:
            leases = [await store.acquire(number, "owner") for number in range(16)]
            ids = {partition_of(f"i{number}", 16): f"i{number}" for number in range(200)}
            await store.post([message(f"m{number}", ids[number]) for number in range(16)])
            asked: list[int] = []
            read = store._reader.read_inbox_of

            async def counted(connection: Any, wanted: Any) -> Any:
                asked.append(len(wanted))
                return await read(connection, wanted)

            monkeypatch.setattr(store._reader, "read_inbox_of", counted)
            found = await asyncio.gather(*(store.read_inbox(lease) for lease in leases))
            assert [[row.message_id for row in rows] for rows in found] == [[f"m{n}"] for n in range(16)]
            assert asked == [16]

    asyncio.run(main())


def test_a_busy_partition_does_not_hold_up_the_release_of_another(hub: Hub) -> None:
    async def main() -> None:
        async with opened(hub, partitions=2) as store:
            leases = [await store.acquire(number, "owner") for number in range(2)]
            ended = False

            async def busy() -> None:
                number = 0
                while not ended:
                    number += 1
                    await store.commit(leases[0], Batch(number))

            task = asyncio.create_task(busy())
            await asyncio.sleep(0.1)
            async with asyncio.timeout(WAIT_S):
                await store.release(leases[1])
                await store.load(await store.acquire(1, "again"), 0)
            ended = True
            await task

    asyncio.run(main())


@pytest.mark.slow_once
def test_claims_are_kept_by_the_thread_while_the_loop_is_blocked_also_without_a_partition(hub: Hub) -> None:
    async def main() -> None:
        async with opened(hub, partitions=1, lease_s=1.0) as owner:
            other = PostgresStore(owner.url, lease_s=1.0)
            await other.open()
            queue, theirs = owner.tasks, other.tasks
            assert queue is not None
            assert theirs is not None
            lease = await owner.acquire(0, "owner")
            offered = [TaskRow(name, "order", "work", 0, b"call") for name in ("a", "b")]
            await owner.commit(lease, Batch(1, tasks_offered=offered))
            (claim,) = await theirs.claim({"work": 1}, 1)
            time.sleep(2.5)  # noqa: ASYNC251 - as a function does that computes
            assert await queue.claim_interrupted(["work"], [9]) == []
            result = TaskResult(claim, message("~done", "order"))
            assert await theirs.finish([result]) == [True]
            (claim,) = await theirs.claim({"work": 1}, 1)
            other._keeper.stop()  # as when its loop gives no sign of life any more
            async with asyncio.timeout(WAIT_S):
                while not (taken := await queue.claim_interrupted(["work"], [9])):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert [one.delivery for one in taken] == [2]
            assert await theirs.finish([TaskResult(claim, message("~late", "order"))]) == [False]
            assert [row.message_id for row in await owner.read_inbox(lease)] == ["~done"]
            await other.close()

    asyncio.run(main())
