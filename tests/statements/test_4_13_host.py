"""FEATURES 4.13.6 and 4.13.7: how many requests, and for how long a function may run."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from durably import (
    ActivityContext,
    App,
    Client,
    EngineOptions,
    HttpOptions,
    OrchestrationContext,
    QueueMessage,
    RetryPolicy,
    Settings,
    TaskFailedError,
    TimerRequest,
)
from durably.executors.stalls import STALL_EXIT_CODE
from tests.integration.cli.programs import Folder
from tests.integration.cli.test_run import until_ready
from tests.integration.processes.bench import is_gone
from tests.statements.hanging import hang
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet

LIMIT = EngineOptions(function_timeout_s=5)

SOON = EngineOptions(function_timeout_s=0.05)
"""For functions of triggers, whose time is that of the event loop."""


async def test_4_13_6_over_max_outstanding_requests_429(tmp_path: Path) -> None:
    app, free, under_way = App(), asyncio.Event(), asyncio.Event()

    @app.route("slow", auth_level="anonymous")
    async def slow() -> str:
        under_way.set()
        await free.wait()
        return "done"

    host_file = {"extensions": {"http": {"maxOutstandingRequests": 1, "routePrefix": "v2"}}}
    (tmp_path / "host.json").write_text(json.dumps(host_file))
    settings = Settings.load(tmp_path, {"DURABLY_HTTP_PORT": "0"})
    async with (
        app.host("memory://", settings=settings) as host,
        host.serve_http() as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        first = asyncio.create_task(http.get("/v2/slow"))
        await under_way.wait()
        refused = await http.get("/v2/slow")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        free.set()
        assert (await first).text == "done"
        assert (await http.get("/v2/slow")).status_code == 200


# --- 4.13.7: an activity fails -----------------------------------------------------------------------------------------


async def test_4_13_7_an_activity_that_runs_too_long_has_failed(hub: Deployment, clock: ManualClock) -> None:
    app, cancelled = App(), asyncio.Event()

    @app.activity
    async def stuck(n: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[str]:
        try:
            await ctx.call_activity(stuck, 1)
        except TaskFailedError as error:
            return [error.details.type, error.details.message, str(error.details.is_caused_by(TimeoutError))]
        return []

    async with hub.host(app, clock=clock, options=LIMIT) as host:
        handle = await host.client.start(flow, instance_id="i")
        await has_event(host, "i", "TaskScheduled")
        await eventually(lambda: host.engine.pool._running == 1, "the activity runs")
        clock.advance(4.9)
        await is_quiet(host)
        assert not cancelled.is_set()
        clock.advance(0.2)
        assert await handle.result() == [
            "FunctionTimeoutError",
            "Activity 'stuck' has run for 5 s: expected it to end before (function_timeout_s, functionTimeout of host.json)",
            "True",
        ]
        await cancelled.wait()


async def test_4_13_7_the_time_is_that_of_an_attempt_and_policies_retry_it(
    memory: Deployment, clock: ManualClock
) -> None:
    app = App()
    attempts: list[int] = []

    @app.activity
    async def stuck_once(context: ActivityContext) -> str:
        attempts.append(context.attempt)
        if context.attempt == 1:
            await asyncio.Event().wait()
        return "second"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        policy = RetryPolicy(first_retry_interval=timedelta(seconds=20), max_number_of_attempts=2)
        return await ctx.call_activity(stuck_once, retry=policy)

    async with memory.host(app, clock=clock, options=LIMIT) as host:
        handle = await host.client.start(flow, instance_id="i")
        await eventually(lambda: attempts == [1])
        clock.advance(5)
        await has_event(host, "i", "TaskAttemptFailed")
        clock.advance(20)
        assert await handle.result() == "second"


async def test_4_13_7_a_thread_is_told_and_what_it_returns_is_dropped(
    memory: Deployment, clock: ManualClock
) -> None:
    app, running, free = App(), threading.Event(), threading.Event()
    seen: list[bool] = []

    @app.activity
    def blocks(context: ActivityContext) -> str:
        running.set()
        free.wait(60)
        seen.append(context.cancelled)
        return "late"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            return await ctx.call_activity(blocks)
        except TaskFailedError as error:
            return error.details.type

    async with memory.host(app, clock=clock, options=LIMIT) as host:
        handle = await host.client.start(flow)
        await eventually(running.is_set)
        await asyncio.sleep(0)  # the pool has been told
        clock.advance(5)
        try:
            assert await handle.result() == "FunctionTimeoutError"
        finally:
            free.set()
        await eventually(lambda: seen)
        assert seen == [True]


async def test_4_13_7_a_worker_process_is_ended(
    memory: Deployment, clock: ManualClock, tmp_path: Path
) -> None:
    app, begun = App(), tmp_path / "begun"
    app.activity(executor="process")(hang)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            return await ctx.call_activity(hang, str(begun))
        except TaskFailedError as error:
            return error.details.type

    async with memory.host(app, clock=clock, options=LIMIT) as host:
        handle = await host.client.start(flow)
        await eventually(lambda: begun.exists() and begun.read_text())
        clock.advance(5)
        assert await handle.result() == "FunctionTimeoutError"
        await eventually(lambda: is_gone(int(begun.read_text())))


async def test_4_13_7_one_that_does_not_let_itself_be_cancelled_fails_all_the_same(
    memory: Deployment, clock: ManualClock
) -> None:
    app, free, over = App(), asyncio.Event(), asyncio.Event()

    @app.activity
    async def stubborn() -> str:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                pass
        over.set()
        return "late"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            return await ctx.call_activity(stubborn)
        except TaskFailedError as error:
            return error.details.type

    async with memory.host(app, clock=clock, options=LIMIT) as host:
        handle = await host.client.start(flow, instance_id="i")
        await eventually(lambda: host.engine.pool._running == 1)
        clock.advance(5)
        assert await handle.result() == "FunctionTimeoutError"
        free.set()
        await over.wait()
        await is_quiet(host)
        assert (await host.client.get_status("i")).output == "FunctionTimeoutError"


# --- functions of triggers -------------------------------------------------------------------------------------------


async def test_4_13_7_a_message_over_the_limit_is_tried_again(memory: Deployment) -> None:
    app, done = App(), asyncio.Event()
    tries: list[int] = []

    @app.queue("orders")
    async def take(message: QueueMessage) -> None:
        tries.append(message.dequeue_count)
        if message.dequeue_count == 1:
            await asyncio.Event().wait()
        done.set()

    async with memory.host(app, options=SOON) as host:
        await host.client.queue("orders").send(1)
        await done.wait()
    assert tries == [1, 2]


async def test_4_13_7_a_timer_over_the_limit_has_failed(memory: Deployment) -> None:
    app = App()

    @app.timer("1.00:00:00", run_on_startup=True)
    async def nightly(timer: TimerRequest) -> None:
        await asyncio.Event().wait()

    async with memory.host(app, options=SOON) as host:

        async def failed() -> list[str]:
            page = await host.client.query_instances(name="durably:timer", runtime_status="Failed")
            return [str(one.failure) for one in page.instances]

        (failure,) = await eventually(failed)
        assert "Timer 'nightly' has run for 0.05 s" in failure


async def test_4_13_7_a_request_over_the_limit_is_answered_with_504(memory: Deployment) -> None:
    app = App()

    @app.route("stuck", auth_level="anonymous")
    async def stuck() -> str:
        await asyncio.Event().wait()
        return "late"

    @app.route("own", auth_level="anonymous")
    async def own() -> str:
        raise TimeoutError("of the function itself")

    async with (
        memory.host(app, options=SOON) as host,
        host.serve_http(HttpOptions(port=0)) as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        answer = await http.get("/api/stuck")
        assert (answer.status_code, answer.json()["ExceptionType"]) == (504, "FunctionTimeoutError")
        assert "HTTP function 'stuck' has run for 0.05 s" in answer.json()["Message"]
        assert (await http.get("/api/own")).status_code == 500


# --- an orchestrator is tried again ----------------------------------------------------------------------------------

TURNS = """
import os
from durably import App, OrchestrationContext
app = App()
HELD = os.path.exists("held")

@app.orchestrator
async def turns(ctx: OrchestrationContext) -> str:
    while HELD:
        pass
    return "went on"
"""


@pytest.mark.slow_once
async def test_4_13_7_a_turn_over_the_limit_is_tried_again(tmp_path: Path) -> None:
    """The process ends, as it does with Functions; the turn has failed nothing, and the next host makes it."""
    folder = Folder(tmp_path)
    folder.write("turns.py", TURNS)
    folder.write("held", "")
    folder.write("host.json", '{"functionTimeout": "00:00:02"}')
    with folder.started("run", "turns.py") as process:
        until_ready(process)
        async with Client(f"sqlite:///{tmp_path / 'durably.db'}") as client:
            await client.start("turns", instance_id="i")
            _, said = await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == STALL_EXIT_CODE
        assert "A turn of instance 'i', turns()" in said
    (tmp_path / "held").unlink()
    (tmp_path / "host.json").unlink()  # this one has all the time that it needs
    with folder.started("run", "turns.py") as process:
        until_ready(process)
        async with Client(f"sqlite:///{tmp_path / 'durably.db'}") as client:
            assert await client.handle("i").result(timeout=60) == "went on"
