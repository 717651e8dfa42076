"""One orchestration uses all hosts: shares of a fan-out, and that nothing is lost or doubled when they die, stop or come."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from durably import Client, Handle, RuntimeStatus
from durably.errors import OperationError
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.slow_once

LEASE_S = 2.0
PARTITIONS = 4
PATIENCE_S = 150.0
SETTINGS = {"DURABLY_MAX_CONCURRENT_ACTIVITIES": "20", "DURABLY_SHARE_ABOVE": "10"}


class Hosts:
    """Processes that serve one hub."""

    def __init__(self, folder: Path, url: str) -> None:
        shutil.copy(Path(__file__).with_name("spread_program.py"), folder / "app.py")
        self.folder = folder
        self.url = url
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, knows: str = "fan work wait", **settings: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            **settings,
            "KNOWS": knows,
            "DURABLY_LEASE_S": str(LEASE_S),
            "DURABLY_PARTITIONS": str(PARTITIONS),
            "DURABLY_STATE_DIR": str(self.folder),
        }
        with (self.folder / "hosts.log").open("ab") as log:
            command = [sys.executable, "-m", "durably", "run", "app.py", "--hub", self.url]
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.running.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        self.running.remove(process)
        process.send_signal(how)
        process.wait(30)

    def close(self) -> None:
        for process in list(self.running):
            self.end(process, signal.SIGKILL)

    def noted(self, word: str) -> list[tuple[int, int]]:
        """What activities have noted: number and process."""
        log = self.folder / "effects.log"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [(int(number), int(pid)) for what, number, pid in lines if what == word]

    def open_gate(self) -> None:
        """Let activities that wait go on."""
        (self.folder / "gate").touch()


async def until(probe: Callable[[], bool | Awaitable[bool]]) -> None:
    """Return when it is true."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = probe()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.05)


async def shared_by(client: Client, count: int) -> None:
    """Return when so many hosts have equal shares. Each knows of the others then: it has seen what they lack."""

    async def fair() -> bool:
        with suppress(OperationError):  # the first of them makes the hub
            shares = [host.partitions for host in await client.hosts()]
            return len(shares) == count and set(shares) == {PARTITIONS // count}
        return False

    await until(fair)


async def fan(client: Client, what: str) -> Handle[int]:
    return await client.start("fan", what)


@pytest.fixture
def hosts(server: PostgresServer, tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path, server.url(f"spread_{os.urandom(4).hex()}"))
    yield made
    made.close()


def shares_of_a_fan_out(hosts: Hosts, count: int, **settings: str) -> tuple[list[float], float]:
    """The shares of two hosts in a fan-out of activities that compute, and how long it took."""

    async def work() -> float:
        async with Client(hosts.url) as client:
            hosts.start(**settings)
            hosts.start(**settings)
            await shared_by(client, 2)
            began = time.monotonic()
            handle = await fan(client, f"work {count}")
            assert await handle.result(timeout=PATIENCE_S) == count
            return time.monotonic() - began

    took_s = asyncio.run(work())
    noted = hosts.noted("work")
    assert Counter(number for number, _ in noted) == dict.fromkeys(range(count), 1), "each once"
    shares = Counter(pid for _, pid in noted)
    return [100 * shares[process.pid] / count for process in hosts.running], took_s


def test_a_fan_out_is_shared_by_two_hosts(hosts: Hosts) -> None:
    shares, took_s = shares_of_a_fan_out(hosts, 3_000, DURABLY_MAX_CONCURRENT_ACTIVITIES="200")
    print(f"3,000 activities of 2 ms: {shares[0]:.0f} % and {shares[1]:.0f} % in {took_s:.1f} s")
    assert (
        min(shares) >= 10
    )  # both take part; how equally depends on who else computes here: see the soak test


@pytest.mark.soak
def test_a_large_fan_out_is_shared_in_equal_parts(hosts: Hosts) -> None:
    shares, took_s = shares_of_a_fan_out(hosts, 10_000)
    print(f"10,000 activities of 2 ms: {shares[0]:.0f} % and {shares[1]:.0f} % in {took_s:.1f} s")
    assert min(shares) >= 40


def test_what_a_host_has_claimed_runs_elsewhere_when_it_dies_or_stops_and_stops_when_nobody_wants_it(
    hosts: Hosts,
) -> None:
    count = 120

    async def work() -> None:
        async with Client(hosts.url) as client:
            owner = hosts.start(**SETTINGS)
            await shared_by(client, 1)
            handle = await client.start("fan", f"wait {count}", instance_id="big")
            await until(lambda: len(hosts.noted("begun")) == 20)
            assert all(pid == owner.pid for _, pid in hosts.noted("begun")), "alone, it does it alone"
            await client.terminate("big")
            await until(lambda: len(hosts.noted("cancelled")) == 20)

            first, second = (hosts.start(**SETTINGS) for _ in range(2))
            await until(lambda: _are(client, 3))
            await asyncio.sleep(LEASE_S / 3)  # until the owner has seen them
            handle = await client.start("fan", f"wait {count}", instance_id="big")
            await until(lambda: len(hosts.noted("begun")) == 80)
            per_host = Counter(pid for _, pid in hosts.noted("begun")[20:])
            assert per_host == {owner.pid: 20, first.pid: 20, second.pid: 20}
            await client.terminate("big")
            await until(lambda: len(hosts.noted("cancelled")) == 80)

            handle = await client.start("fan", f"wait {count}", instance_id="big")
            await until(lambda: len(hosts.noted("begun")) == 140)
            await asyncio.to_thread(hosts.end, first, signal.SIGKILL)
            stopped = time.monotonic()
            hosts.start(**SETTINGS, DURABLY_DRAIN_TIMEOUT_S="0.2")
            second_ends = asyncio.to_thread(hosts.end, second, signal.SIGTERM)
            hosts.open_gate()
            await second_ends
            assert await handle.result(timeout=PATIENCE_S) == count
            print(f"all done {time.monotonic() - stopped:.1f} s after a kill and a stop, lease {LEASE_S:g} s")
            history = await client.get_history("big")
            assert sum(entry.event_type == "TaskCompleted" for entry in history) == count

    asyncio.run(work())
    done = Counter(number for number, _ in hosts.noted("wait"))
    assert set(done) == set(range(count)), "nothing is lost"
    again = sum(done.values()) - count
    assert again == 0, "who was killed had not ended any, and who was stopped had time"


async def _are(client: Client, count: int) -> bool:
    return len(await client.hosts()) == count


def test_a_function_that_only_another_host_has_runs_there_and_a_new_one_waits_for_its_deployment(
    hosts: Hosts,
) -> None:
    async def work() -> None:
        async with Client(hosts.url) as client:
            owner = hosts.start("fan")
            await shared_by(client, 1)
            handle = await fan(client, "work 3")

            async def waits() -> bool:
                return "activity 'work' #0 waiting for a host that has it" in await handle.why()

            await until(waits)
            assert (await client.get_status(handle.instance_id)).runtime_status == RuntimeStatus.Running  # type: ignore[union-attr]
            added = hosts.start("fan work")
            assert await handle.result(timeout=PATIENCE_S) == 3
            await asyncio.to_thread(hosts.end, owner, signal.SIGKILL)
            hosts.start("fan")
            await shared_by(client, 2)
            handle = await fan(client, "work 5")
            assert await handle.result(timeout=PATIENCE_S) == 5
            assert {pid for _, pid in hosts.noted("work")} == {added.pid}

    asyncio.run(work())
