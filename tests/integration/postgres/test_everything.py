"""All that hosts serve, on three of them, while they are killed one after the other: each thing happens once."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from durably import Client, Handle
from durably.errors import OperationError
from tests.support.postgres import PostgresServer, free_port

pytestmark = [pytest.mark.slow_once, pytest.mark.timeout(300)]

HOSTS, DEATHS = 3, 3
JOBS, BLOBS, TRANSFERS, WAITS = 60, 12, 24, 12
LEASE_S = 1.0
PATIENCE_S = 120.0


class Hosts:
    """Processes that serve one hub, each with an HTTP face."""

    def __init__(self, folder: Path, url: str) -> None:
        shutil.copy(Path(__file__).with_name("everything_program.py"), folder / "app.py")
        (folder / "blobs" / "incoming").mkdir(parents=True)
        self.folder = folder
        self.url = url
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> int:
        port = free_port()
        environment = {
            **os.environ,
            "DURABLY_HTTP": "on",
            "DURABLY_HTTP_PORT": str(port),
            "DURABLY_LEASE_S": str(LEASE_S),
            "DURABLY_PARTITIONS": "6",
            "DURABLY_STATE_DIR": str(self.folder),
            "DURABLY_BLOBS": f"file://{self.folder}/blobs",
        }
        command = [sys.executable, "-m", "durably", "run", "app.py", "--hub", self.url]
        with (self.folder / "hosts.log").open("ab") as log:
            self.running[port] = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return port

    def kill(self, port: int) -> None:
        process = self.running.pop(port)
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    def close(self) -> None:
        for port in list(self.running):
            self.kill(port)

    def noted(self, kind: str) -> Counter[str]:
        log = self.folder / "effects.log"
        lines = [line.partition(" ") for line in log.read_text().splitlines()] if log.exists() else []
        return Counter(rest for found, _, rest in lines if found == kind)


@pytest.fixture
def hosts(server: PostgresServer, tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path, server.url(f"everything_{os.urandom(4).hex()}"))
    yield made
    made.close()


def test_each_thing_happens_once_whoever_dies(hosts: Hosts) -> None:
    asyncio.run(_whole(hosts))


async def _whole(hosts: Hosts) -> None:
    for _ in range(HOSTS):
        hosts.start()
    async with Client(hosts.url) as client:
        await _served(client)
        began = datetime.now(UTC)
        work = asyncio.gather(_jobs(client), _blobs(hosts), _transfers(client), _waits(client))
        chance = random.Random(6)
        for _ in range(DEATHS):
            await asyncio.sleep(1.5)
            hosts.kill(chance.choice(list(hosts.running)))
            hosts.start()
        await work
        await _judge(hosts, client, began)


async def _served(client: Client) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(OperationError):  # the first of them makes the hub
                if len(await client.hosts()) == HOSTS:
                    return
            await asyncio.sleep(0.05)


# --- what is asked for -----------------------------------------------------------------------------------------------


async def _jobs(client: Client) -> None:
    for number in range(JOBS):
        await client.queue("jobs").send(number, message_id=f"m{number}")
        await asyncio.sleep(0.05)


async def _blobs(hosts: Hosts) -> None:
    for number in range(BLOBS):
        place = hosts.folder / "blobs" / "incoming"
        (place.parent / "half").write_text(str(number))
        (place.parent / "half").rename(place / f"b{number}")
        await asyncio.sleep(0.3)


async def _transfers(client: Client) -> None:
    chance, handles = random.Random(7), list[Handle[None]]()
    for number in range(TRANSFERS):
        accounts = chance.sample("abcd", 2)
        handles.append(await client.start("transfer", accounts, instance_id=f"transfer-{number}"))
        await asyncio.sleep(0.1)
    for handle in handles:
        await handle.result(timeout=PATIENCE_S)


async def _waits(client: Client) -> None:
    names = [f"later-{number}" for number in range(WAITS)]
    for name in names:
        await client.start("later", 1.5, instance_id=name)
    for name in names:
        await client.raise_event(name, "go", name)
    for name in names:
        assert await client.handle(name).result(timeout=PATIENCE_S) == name


# --- what came of it -------------------------------------------------------------------------------------------------


async def _judge(hosts: Hosts, client: Client, began: datetime) -> None:
    async def outputs(name: str = "run") -> list[str]:
        found: list[str] = []
        token: str | None = None
        while True:
            page = await client.query_instances(name=name, continuation_token=token, page_size=1_000)
            found += [str(one.output) for one in page.instances if one.runtime_status == "Completed"]
            token = page.continuation_token
            if token is None:
                return found

    def of(kind: str, found: list[str]) -> Counter[str]:
        return Counter(one.removeprefix(f"{kind} ") for one in found if one.startswith(f"{kind} "))

    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await outputs()
            if len(of("job", found)) == JOBS and len(of("blob", found)) == BLOBS:
                break
            await asyncio.sleep(0.1)
    ended = datetime.now(UTC)
    assert of("job", found) == dict.fromkeys(map(str, range(JOBS)), 1), "one start each"
    assert of("blob", found) == dict.fromkeys((f"b{number}" for number in range(BLOBS)), 1)
    seconds = [
        datetime.fromtimestamp(second, UTC)
        for second in range(int(began.timestamp()) + 1, int(ended.timestamp()) - 2)
    ]
    ticks = of("tick", found)
    assert max(ticks.values()) == 1, "an occurrence of the timer fired twice"
    assert len(ticks) >= 3
    schedule = Counter(one for one in found if one.startswith("each-second@"))
    expected = {f"each-second@{second:%Y-%m-%dT%H:%M:%SZ}" for second in seconds}
    assert expected <= set(schedule), "an occurrence of the schedule is missing"
    assert max(schedule.values()) == 1
    balances = [(await client.read_entity(f"@account@{name}"))["balance"] for name in "abcd"]
    assert sum(balances) == 400
    assert not (await client.query_parked()).items
    for port in hosts.running:  # any host answers for any instance
        await _answers(port)
    ran = hosts.noted("work")
    print(
        f"\n{HOSTS} hosts, {DEATHS} killed: {len(found)} runs, {len(ticks)} ticks, {sum(ran.values()) - len(ran)} cut off"
    )


async def _answers(port: int) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1") as http:
        for number in range(TRANSFERS):
            answer = await http.get(f"/instances/transfer-{number}")
            assert (answer.status_code, answer.json()["status"]) == (200, "Completed"), answer.text
