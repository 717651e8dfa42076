"""Scenario 37 on real processes: one poison among a thousand, under a supervisor that starts the host again."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durably import Client, ParkedItem
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import CallEntity, StartInstance
from durably.executors.stalls import STALL_EXIT_CODE
from durably.storage.sqlite.store import SqliteStore
from tests.support.shares import once_but

ROOT = Path(__file__).parents[3]
INNOCENTS = 999
DELIVERIES = 5
PATIENCE_S = 60
EXIT_CODES = {
    "loop": 3,
    "thread": 3,
    "turn": 3,
    "segfault": -signal.SIGSEGV,
    "hang": STALL_EXIT_CODE,
}


class Supervisor:
    """Starts the host again when it dies."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program

    def life(self, *, cured: bool = False) -> int:
        """The exit code of one host."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write("cured\n" if cured else "life\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())

    def until_well(self) -> list[int]:
        """The exit codes of hosts until one ends in order."""
        codes: list[int] = []
        while not codes or (codes[-1] != 0 and len(codes) < 3 * DELIVERIES):
            codes.append(self.life())
        return codes


@contextmanager
def supervised(hub: Path, kind: str) -> Iterator[Supervisor]:
    with (hub.parent / "stderr").open("wb") as errors:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.poison.program", str(hub), kind],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield Supervisor(program)
    finally:
        program.kill()
        program.communicate(timeout=PATIENCE_S)


def start(name: str, instance_id: str, given: bytes | None = None) -> InboxRow:
    body = encode_body(StartInstance(name, given, f"execution of {instance_id}"))
    return InboxRow(f"start {instance_id}", instance_id, 0, body)


async def seed(hub: Path, rows: list[InboxRow]) -> None:
    store = SqliteStore(str(hub))
    await store.open()
    await store.post(rows)
    await store.close()


def thousand(*poison: InboxRow) -> list[InboxRow]:
    """The poison is in the middle, beside something that takes long."""
    rows = [start("innocent", f"i{number}", b"%d" % number) for number in range(INNOCENTS - 1)]
    return [*rows[:500], start("innocent_long", "long"), *poison, *rows[500:]]


async def look(hub: Path) -> tuple[dict[str, int], list[ParkedItem]]:
    """How many instances are in which status, and what is parked."""
    counts: dict[str, int] = {}
    async with Client(f"sqlite:///{hub}") as client:
        token: str | None = None
        while True:
            page = await client.query_instances(page_size=1_000, continuation_token=token)
            for found in page.instances:
                counts[found.runtime_status] = counts.get(found.runtime_status, 0) + 1
            token = page.continuation_token
            if token is None:
                return counts, (await client.query_parked()).items


@pytest.mark.parametrize("kind", once_but(EXIT_CODES, {"thread"}))
def test_poison_is_parked_after_five_deaths_and_the_other_999_finish(kind: str, tmp_path: Path) -> None:
    hub = tmp_path / "hub.db"
    asyncio.run(seed(hub, thousand(start("poison", "bad"))))
    with supervised(hub, kind) as supervisor:
        codes = supervisor.until_well()
        assert codes[:-1] == [EXIT_CODES[kind]] * DELIVERIES, (tmp_path / "stderr").read_text()[-4_000:]
        if kind == "hang":
            assert "Activity 'on_loop' (#0 of instance 'bad'), " in (tmp_path / "stderr").read_text()
        counts, (item,) = asyncio.run(look(hub))
        assert counts == {"Completed": INNOCENTS, "Pending" if kind == "turn" else "Running": 1}
        assert (item.kind, item.id, item.deliveries) == ("instance", "bad", DELIVERIES)
        assert ("its code" if kind == "turn" else "activity") in item.cause
        asyncio.run(redrive(hub, "bad"))
        assert supervisor.life(cured=True) == 0
    counts, items = asyncio.run(look(hub))
    assert counts == {"Completed": INNOCENTS + 1}
    assert items == []
    assert not Path(f"{hub}.running").exists()


ENTITY_EXIT_CODES = {"exit": 3, "kill": -signal.SIGKILL, "hang": STALL_EXIT_CODE}
LEDGER = "@ledger@shared"


def operation(number: int, name: str, given: bytes | None = None, entity: str = LEDGER) -> InboxRow:
    return InboxRow(f"{name} {number}", entity, number, encode_body(CallEntity(name, given)))


def written(numbers: range) -> list[InboxRow]:
    return [operation(number, "write", b"%d" % number) for number in numbers]


@pytest.mark.parametrize("kind", once_but(ENTITY_EXIT_CODES, {"exit"}))
def test_an_operation_is_set_aside_after_five_deaths_and_its_neighbours_are_performed_in_order(
    kind: str, tmp_path: Path
) -> None:
    async def entries() -> list[int]:
        async with Client(f"sqlite:///{hub}") as client:
            return (await client.read_entity(LEDGER))["entries"]

    hub = tmp_path / "hub.db"
    shared = [*written(range(100)), operation(0, "bite"), *written(range(100, 200))]
    asyncio.run(seed(hub, [*shared, *(start("innocent", f"i{number}", b"1") for number in range(20))]))
    with supervised(hub, kind) as supervisor:
        codes = supervisor.until_well()
        assert codes[:-1] == [ENTITY_EXIT_CODES[kind]] * DELIVERIES, (tmp_path / "stderr").read_text()[
            -4_000:
        ]
        if kind == "hang":
            assert f"Operation 'bite' of entity '{LEDGER}', bite() in " in (tmp_path / "stderr").read_text()
        counts, (item,) = asyncio.run(look(hub))
        assert counts == {"Completed": 20}
        assert (item.kind, item.id, item.instance_id) == ("message", "bite 0", LEDGER)
        assert "Operation 'bite' was running each of the 5 times" in item.cause
        assert asyncio.run(entries()) == list(range(200))
        asyncio.run(redrive(hub, item.id))
        assert supervisor.life(cured=True) == 0
    assert asyncio.run(look(hub)) == ({"Completed": 20}, [])
    assert not Path(f"{hub}.running").exists()


def test_an_operation_in_a_critical_section_is_set_aside_and_its_lock_goes_with_the_call(
    tmp_path: Path,
) -> None:
    async def holder() -> str | None:
        async with Client(f"sqlite:///{hub}") as client:
            locked = await client.get_entity("@ledger@locked")
            return None if locked is None else locked.locked_by

    async def failure() -> str:
        async with Client(f"sqlite:///{hub}") as client:
            status = await client.get_status("caller")
            assert status is not None
            assert status.failure is not None
            return status.failure.message

    async def discard() -> None:
        async with Client(f"sqlite:///{hub}") as client:
            assert await client.discard_all() == 1

    hub = tmp_path / "hub.db"
    asyncio.run(seed(hub, [start("waits_for", "caller", b'"bite_slowly"')]))
    with supervised(hub, "kill") as supervisor:
        codes = supervisor.until_well()
        # One death before anybody watched, and perhaps one more: the operation had no row yet that could be named.
        assert codes[:-1] in ([-signal.SIGKILL] * DELIVERIES, [-signal.SIGKILL] * (DELIVERIES + 1))
        counts, (item,) = asyncio.run(look(hub))
        assert (counts, item.instance_id) == ({"Running": 1}, "@ledger@locked")
        assert asyncio.run(holder()) == "caller"
        asyncio.run(discard())
        assert supervisor.life() == 0
    assert asyncio.run(look(hub)) == ({"Failed": 1}, [])
    assert "discarded by an operator" in asyncio.run(failure())
    assert asyncio.run(holder()) is None


async def redrive(hub: Path, item_id: str) -> None:
    async with Client(f"sqlite:///{hub}") as client:
        await client.redrive(item_id)


def test_a_discarded_poison_fails_and_kills_no_more(tmp_path: Path) -> None:
    async def discard() -> None:
        async with Client(f"sqlite:///{hub}") as client:
            assert await client.discard_all() == 1

    async def failure() -> str:
        async with Client(f"sqlite:///{hub}") as client:
            status = await client.get_status("bad")
            assert status is not None
            assert status.failure is not None
            assert status.failure.is_caused_by("WorkDiscardedError")
            return status.failure.message

    hub = tmp_path / "hub.db"
    asyncio.run(seed(hub, [start("poison", "bad")]))
    with supervised(hub, "loop") as supervisor:
        assert supervisor.until_well()[:-1] == [3] * DELIVERIES
        asyncio.run(discard())
        assert supervisor.life() == 0
    assert "discarded by an operator" in asyncio.run(failure())


def test_garbage_is_set_aside_and_nobody_notices(tmp_path: Path) -> None:
    async def deal_with_it() -> None:
        async with Client(f"sqlite:///{hub}") as client:
            (item,) = (await client.query_parked(kind="message")).items
            assert (item.id, item.instance_id, item.payload) == ("rubbish", "i7", b"\xc1\xff rubbish")
            assert "cannot be read" in item.cause
            await client.redrive("rubbish")  # it is still rubbish
        with supervised(hub, "loop") as supervisor:
            assert supervisor.life() == 0
        async with Client(f"sqlite:///{hub}") as client:
            (item,) = (await client.query_parked()).items
            assert item.id == "rubbish"
            assert await client.discard_all(kind="message") == 1
        with supervised(hub, "loop") as supervisor:
            assert supervisor.life() == 0

    hub = tmp_path / "hub.db"
    asyncio.run(seed(hub, thousand(InboxRow("rubbish", "i7", 0, b"\xc1\xff rubbish"))))
    with supervised(hub, "loop") as supervisor:
        assert supervisor.until_well() == [0]
    counts, _ = asyncio.run(look(hub))
    assert counts == {"Completed": INNOCENTS}
    asyncio.run(deal_with_it())
    assert asyncio.run(look(hub)) == ({"Completed": INNOCENTS}, [])
