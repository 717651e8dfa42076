"""Clients in other processes than the host: real processes on a real file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from durably import (
    App,
    Client,
    Handle,
    HubClosedError,
    HubNotFoundError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceStateError,
    InstanceStatus,
    OrchestrationContext,
    OrchestrationFailedError,
    UsageError,
)
from durably.client.connection import Connection
from durably.client.outside import OutsideOperations
from durably.clock import SystemClock, SystemRandom
from durably.core.messages import StartInstance
from durably.errors import HubSilentError
from durably.storage.memory import MemoryHub, MemoryStore
from tests.integration.cli.programs import Folder, interrupted
from tests.support.waiting import eventually

URL = "sqlite:///durably.db"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    while not process.stdout.readline().startswith("Ready"):
        assert process.poll() is None, process.communicate()


@asynccontextmanager
async def opened() -> AsyncIterator[Client]:
    async with asyncio.timeout(60):
        async with Client(URL) as client:
            yield client


async def is_gone(client: Client, instance_id: str) -> bool:
    return await client.get_status(instance_id) is None


async def test_all_verbs_work_from_another_process(folder: Folder):
    with folder.started("run", "shop.py") as process:
        ready(process)
        async with opened() as client:
            steps = await client.start("steps", ["a", "b"], instance_id="s", tags={"k": "v"})
            assert await steps.result() == ["A", "B"]
            assert folder.worked() == ["a", "b"]
            with pytest.raises(InstanceAlreadyExistsError):
                await client.start("steps", [], instance_id="s", on_existing="fail")
            assert (await client.start("steps", [], instance_id="s", on_existing="attach")).instance_id == "s"
            failing = await client.start("buy", {"sku": "x"})
            with pytest.raises(OrchestrationFailedError, match="out of stock"):
                await failing.result()

            waiting = await client.start("wait")
            await waiting.suspend("pause")
            await waiting.raise_event("Go", "held")
            status = await waiting.status()
            assert status is not None
            assert status.runtime_status == "Suspended"
            await waiting.resume()
            assert await waiting.result() == "held"

            doomed = await client.start("wait")
            await doomed.terminate("enough")
            assert (await doomed.wait_for_completion()).runtime_status == "Terminated"
            canceled = await client.start("wait")
            await canceled.cancel("no")
            assert (await canceled.wait_for_completion()).runtime_status == "Canceled"

            late = await client.start("steps", [], start_at=3600)
            status = await late.status()
            assert status is not None
            assert status.runtime_status == "Pending"

            page = await client.query_instances(tags={"k": "v"})
            assert [one.instance_id for one in page.instances] == ["s"]
            kinds = [entry.event_type for entry in await client.get_history("s")]
            assert kinds.count("TaskCompleted") == 2
            assert await client.purge("s") is True
            assert await client.purge("s") is False
            assert await client.get_status("s") is None
            for refused in (steps.raise_event("Go"), steps.terminate(), steps.wait_for_completion()):
                with pytest.raises(InstanceNotFoundError):
                    await refused
            for refused in (doomed.raise_event("Go"), doomed.resume(), doomed.cancel()):
                with pytest.raises(InstanceStateError, match="Terminated"):
                    await refused
            with pytest.raises(InstanceStateError, match="Pending"):
                await late.purge()
        assert interrupted(process).code == 0


async def test_what_is_sent_while_no_host_runs_waits_for_one(folder: Folder):
    async with opened() as client:
        with pytest.raises(HubNotFoundError):  # looking creates nothing
            await client.get_status("s")
        assert not (folder.path / "durably.db").exists()
        steps = await client.start("steps", ["a"], instance_id="s")
        status = await steps.status()
        assert status is not None
        assert (status.runtime_status, status.name, status.input) == ("Pending", "steps", ["a"])
        with pytest.raises(InstanceAlreadyExistsError, match="Pending"):
            await client.start("steps", [], instance_id="s")
        await client.start("steps", [], instance_id="s", on_existing="attach")
        with pytest.raises(InstanceAlreadyExistsError, match="runs 'steps'"):
            await client.start("wait", instance_id="s", on_existing="attach")
        await client.start("wait", instance_id="w")
        await client.raise_event("w", "go", "early")
        await client.start("wait", instance_id="t")
        await client.terminate("t", "no need")
        with pytest.raises(InstanceNotFoundError):
            await client.raise_event("nobody", "go")
        with pytest.raises(TimeoutError):
            await steps.result(0.01)
        with folder.started("run", "shop.py") as process:
            ready(process)
            assert await steps.result() == ["A"]
            assert await client.handle("w").result() == "early"
            assert (await client.wait_for_completion("t")).runtime_status == "Terminated"
            process.send_signal(signal.SIGKILL)
            process.wait()
        with pytest.raises(InstanceStateError, match="Completed"):  # the rows say so
            await client.suspend("s")
        assert await client.purge("s") is True
        with folder.started("run", "shop.py") as process:
            ready(process)
            await eventually(lambda: is_gone(client, "s"))


async def test_a_start_that_waits_for_a_host_is_not_answered_by_the_instance_that_it_replaces(folder: Folder):
    app, ran = App(), list[str]()

    @app.activity
    async def note(text: str) -> str:
        ran.append(text)
        return text.upper()

    @app.orchestrator
    async def shout(ctx: OrchestrationContext, text: str) -> str:
        return await ctx.call_activity(note, text)

    async def pending(instance: Handle[str]) -> None:
        status = await instance.status()
        assert status is not None
        assert (status.runtime_status, status.input, status.output) == ("Pending", "b", None)
        with pytest.raises(TimeoutError):
            await instance.result(0.05)

    async with opened() as client:
        first = await client.start("shout", "a", instance_id="s")
        async with app.host(URL):
            assert await first.result() == "A"

        again = await client.start("shout", "b", instance_id="s")
        await pending(again)
        with pytest.raises(InstanceAlreadyExistsError, match="Pending"):
            await client.start("shout", "c", instance_id="s")
        waiting = asyncio.create_task(again.result())
        async with app.host(URL):
            assert await waiting == "B"

        await pending(await again.restart())
        await client.terminate("s", "no need")  # it can be ordered about, as any instance that has not ended
        waiting = asyncio.create_task(again.wait_for_completion())
        async with app.host(URL):
            assert (await waiting).runtime_status == "Terminated"
    assert ran == ["a", "b"]


async def test_starts_that_wait_for_a_host_are_listed_counted_and_keep_their_place(folder: Folder):
    async def pages(client: Client) -> list[InstanceStatus]:
        seen: list[InstanceStatus] = []
        token: str | None = None
        while True:
            page = await client.query_instances(page_size=2, continuation_token=token)
            seen += page.instances
            token = page.continuation_token
            if token is None:
                return seen

    async with opened() as client:
        for number in range(5):
            await client.start(
                "wait" if number % 2 else "steps", [], instance_id=f"i{number}", tags={"n": f"{number}"}
            )
        waiting = await pages(client)
        assert [one.instance_id for one in waiting] == [f"i{number}" for number in range(5)]
        assert {one.runtime_status for one in waiting} == {"Pending"}
        page = await client.query_instances(name="wait", tags={"n": "3"}, runtime_status="Pending")
        assert [one.instance_id for one in page.instances] == ["i3"]
        assert await client.count_instances(by="name", runtime_status="Pending") == {"steps": 3, "wait": 2}
        assert await client.count_instances(runtime_status="Running") == 0
        ended = await client.bulk("terminate", name="wait")
        assert (ended.matched, ended.done) == (2, 2)
        with folder.started("run", "shop.py") as process:
            ready(process)
            for one in waiting:
                await client.wait_for_completion(one.instance_id)
            taken = await pages(client)
            assert await client.count_instances(by="status") == {"Completed": 3, "Terminated": 2}
        assert [(one.instance_id, one.created_time) for one in taken] == [
            (one.instance_id, one.created_time) for one in waiting
        ]


@pytest.mark.slow_once
async def test_a_host_that_is_killed_while_a_client_waits_for_it_loses_nothing(folder: Folder):
    async with opened() as client:
        with folder.started("run", "shop.py") as process:
            ready(process)
            os.kill(process.pid, signal.SIGSTOP)
            starting = asyncio.create_task(client.start("steps", ["a"], instance_id="s"))
            await eventually(lambda: client.get_status("s"))
            assert not starting.done()
            process.send_signal(signal.SIGKILL)
            process.wait()
            steps = await starting
        with folder.started("run", "shop.py") as process:
            ready(process)
            assert await steps.result() == ["A"]
    assert folder.worked() == ["a"]


async def test_many_clients_at_once_lose_and_double_nothing(folder: Folder):
    per_client, clients = 40, 5
    with folder.started("run", "shop.py") as process:
        ready(process)

        async def work(number: int) -> list[object]:
            async with opened() as client:
                handles = await asyncio.gather(
                    *(
                        client.start("steps", [f"{number}.{n}"], instance_id=f"{number}-{n}")
                        for n in range(per_client)
                    )
                )
                return await asyncio.gather(*(handle.result() for handle in handles))

        results = await asyncio.gather(*(work(number) for number in range(clients)))
    assert [[*found] for found in results] == [
        [[f"{number}.{n}"] for n in range(per_client)] for number in range(clients)
    ]
    assert sorted(folder.worked()) == sorted(f"{i}.{n}" for i in range(clients) for n in range(per_client))


@pytest.mark.slow_once
async def test_a_client_process_may_die_at_any_moment(folder: Folder):
    script = """
import asyncio, itertools
from durably import Client
async def main():
    async with Client("sqlite:///durably.db") as client:
        for n in itertools.count():
            await client.start("steps", [f"k{n}"], instance_id=f"k{n}")
            print(n, flush=True)
asyncio.run(main())
"""
    folder.write("starter.py", script)
    with folder.started("run", "shop.py") as process:
        ready(process)
        acknowledged: list[int] = []
        for _ in range(5):
            starter = subprocess.Popen(  # noqa: ASYNC220 - a short blocking start is what a test can afford
                [sys.executable, "starter.py"], cwd=folder.path, stdout=subprocess.PIPE, text=True
            )
            assert starter.stdout is not None
            for _ in range(7):
                line = starter.stdout.readline()
            starter.kill()
            rest = starter.communicate()[0].split()
            acknowledged.append(int([line.strip(), *rest][-1]))
            async with opened() as client:
                for n in range(acknowledged[-1] + 1):
                    assert await client.handle(f"k{n}").result() == [f"K{n}"]
                page = await client.query_instances(page_size=1000)
                for status in page.instances:
                    await client.wait_for_completion(status.instance_id)
                    await client.purge(status.instance_id)
    assert len(acknowledged) == 5


async def test_functions_of_an_app_give_names_and_types(folder: Folder):
    app = App()

    @app.orchestrator(name="steps")
    async def shout(ctx: OrchestrationContext, names: list[str]) -> tuple[str, ...]:
        raise NotImplementedError

    with folder.started("run", "shop.py") as process:
        ready(process)
        async with Client(URL, app=app) as client:
            assert await (await client.start(shout, ["a"])).result(30) == ("A",)


async def test_who_waits_learns_that_the_client_was_closed(folder: Folder):
    async with opened() as client:
        handle = await client.start("wait")
        waiting = asyncio.create_task(handle.result())
        await asyncio.sleep(0.01)
    with pytest.raises(HubClosedError):
        await waiting
    with pytest.raises(HubClosedError):
        await handle.status()
    await client.close()


async def test_a_hub_in_memory_is_refused():
    with pytest.raises(UsageError, match=r"host\.client"):
        Client("memory://")


async def test_a_host_that_never_answers_is_named():
    hub = MemoryHub()
    owner = MemoryStore(hub)
    await owner.open()
    await owner.acquire(0, "one that hangs")
    operations = OutsideOperations(
        Connection(MemoryStore(hub)), SystemClock(), SystemRandom(), patience_s=0.01
    )
    with pytest.raises(HubSilentError, match="durable"):
        await operations.start("a", StartInstance("steps", None, "e"))
    assert [row.instance_id for row in hub.inbox.values()] == ["a"]


async def test_the_program_names_the_host_that_is_there(folder: Folder):
    with folder.started("run", "shop.py") as process:
        ready(process)
        second = folder.run("run", "shop.py")
        assert second.code != 0
        assert str(process.pid) in second.err
        assert process.poll() is None
        async with opened() as client:  # the first one does not mind
            assert await (await client.start("steps", ["a"])).result() == ["A"]
    lock = json.loads((folder.path / "durably.db.lock").read_text())
    assert lock["pid"] == process.pid
    assert (
        folder.run("exec", "shop.py", "steps", "--id", "x", "-i", "[]").code == 0
    )  # a dead one's lock is free
