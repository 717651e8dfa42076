"""FEATURES 4.1: replay and determinism."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import App, AppHost, EngineOptions, OrchestrationContext, TaskFailedError
from durably.core.messages import RaiseEvent
from durably.engine.residents import Delivery
from tests.support.clock import START, ManualClock
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.waiting import eventually, has_event, is_quiet, reaches


def app_of(body: Callable[..., Any], *, name: str = "flow") -> App:
    """An app with one orchestrator and an activity that returns its input."""
    app = App()
    app.orchestrator(name=name)(body)
    app.activity(name="echo")(lambda value: value)
    app.activity(name="other")(lambda value: value)
    return app


async def blocked(host: AppHost, instance_id: str) -> str:
    """The diff of an instance that is (or becomes) blocked."""

    async def look() -> str | None:
        status = await host.client.get_status(instance_id)
        return status.blocked if status is not None else None

    return await eventually(look, f"{instance_id} blocked")


async def deploy(
    hub: Deployment, before: Callable[..., Any], after: Callable[..., Any]
) -> tuple[AppHost, AppHost, str]:
    """Run `before` up to its first wait for "go", then host `after` on the same hub and raise "go"."""
    first = await hub.start(app_of(before))
    await first.client.start("flow", instance_id="i")
    await has_event(first, "i", "EventAwaited")
    second = await hub.restart(first, app_of(after))
    await second.client.raise_event("i", "go", "went")
    return first, second, "i"


async def test_4_1_1_replay_of_unchanged_code_issues_no_action_and_keeps_the_pending_tasks(
    hub: Deployment,
) -> None:
    async def flow(ctx: OrchestrationContext) -> list[Any]:
        first = await ctx.call_activity("echo", 1)
        pending = [ctx.wait_for_external_event("a"), ctx.wait_for_external_event("b")]
        ctx.create_timer(3600)
        return [first, *(await ctx.when_all(pending))]

    host = await hub.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    await has_event(host, "i", "TimerCreated")
    before = await host.client.get_history("i")
    host = await hub.recover(host, app_of(flow))
    await is_quiet(host)
    assert await host.client.get_history("i") == before
    await host.client.raise_event("i", "b", 3)
    await host.client.raise_event("i", "a", 2)
    assert (await host.client.wait_for_completion("i")).output == [1, 2, 3]
    scheduled = [
        entry.task_id
        for entry in await host.client.get_history("i")
        if entry.event_type in ("TaskScheduled", "EventAwaited", "TimerCreated")
    ]
    assert scheduled == [0, 1, 2, 3]


async def test_4_1_2_is_replaying_turns_false_when_the_last_recorded_event_was_applied(
    memory: Deployment,
) -> None:
    seen: list[tuple[str, bool]] = []

    async def flow(ctx: OrchestrationContext) -> None:
        seen.append(("begin", ctx.is_replaying))
        await ctx.call_activity("echo", 1)
        seen.append(("after the activity", ctx.is_replaying))
        await ctx.wait_for_external_event("go")
        seen.append(("after the event", ctx.is_replaying))

    host = await memory.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    await has_event(host, "i", "EventAwaited")
    assert seen == [("begin", False), ("after the activity", False)]
    seen.clear()
    host = await memory.recover(host, app_of(flow))
    await host.client.raise_event("i", "go")
    await host.client.wait_for_completion("i")
    assert seen == [("begin", True), ("after the activity", True), ("after the event", False)]


async def test_4_1_3_the_time_is_that_of_the_turn_and_the_same_on_replay(
    memory: Deployment, clock: ManualClock
) -> None:
    seen: list[str] = []

    async def flow(ctx: OrchestrationContext) -> None:
        seen.append(ctx.current_utc_datetime.isoformat())
        clock.advance(1)  # the wall clock goes on within the turn
        seen.append(ctx.current_utc_datetime.isoformat())
        await ctx.wait_for_external_event("first")
        seen.append(ctx.current_utc_datetime.isoformat())
        await ctx.wait_for_external_event("second")

    host = await memory.start(app_of(flow), clock=clock)
    await host.client.start("flow", instance_id="i")
    clock.advance(59)
    await host.client.raise_event("i", "first")
    one, two = START.isoformat(), (START + timedelta(minutes=1)).isoformat()
    assert seen == [one, one, two]
    turns = [
        entry.timestamp
        for entry in await host.client.get_history("i")
        if entry.event_type == "OrchestratorStarted"
    ]
    assert turns == [START, START + timedelta(minutes=1)]
    seen.clear()
    clock.advance(86_400)
    host = await memory.recover(host, app_of(flow), clock=clock)
    await host.client.raise_event("i", "second")
    await host.client.wait_for_completion("i")
    assert seen == [one, one, two]


async def test_4_1_4_new_uuid_repeats_on_replay_and_differs_between_instances_and_executions(
    memory: Deployment,
) -> None:
    drawn: dict[tuple[str, str], list[list[str]]] = {}

    async def flow(ctx: OrchestrationContext, again: bool) -> None:
        ids = [str(ctx.new_uuid()), str(ctx.new_uuid())]
        drawn.setdefault((ctx.instance_id, ctx.execution_id), []).append(ids)
        await ctx.wait_for_external_event("go")
        if again:
            ctx.continue_as_new(False)

    host = await memory.start(app_of(flow))
    for instance_id in ("a", "b"):
        await host.client.start("flow", True, instance_id=instance_id)
    host = await memory.recover(host, app_of(flow))
    for instance_id in ("a", "b"):
        await host.client.raise_event(instance_id, "go")  # replays the first execution, begins the second
        await host.client.raise_event(instance_id, "go")
        await host.client.wait_for_completion(instance_id)
    assert sorted(len(runs) for runs in drawn.values()) == [1, 1, 2, 2]
    assert all(run == runs[0] for runs in drawn.values() for run in runs)
    every = [one for runs in drawn.values() for one in runs[0]]
    assert len(set(every)) == len(every) == 8


@pytest.mark.parametrize("change", ["kind", "number", "name"])
async def test_4_1_5_a_changed_action_blocks_with_a_diff_and_a_fixed_deployment_goes_on(
    hub: Deployment, change: str
) -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        await ctx.call_activity("echo", 1)
        return await ctx.wait_for_external_event("go")

    async def changed(ctx: OrchestrationContext) -> str:
        if change == "kind":
            await ctx.create_timer(0)
        elif change == "name":
            await ctx.call_activity("other", 1)
        else:
            ctx.create_timer(0)
            await ctx.call_activity("echo", 1)
        return await ctx.wait_for_external_event("go")

    _, host, instance_id = await deploy(hub, flow, changed)
    diff = await blocked(host, instance_id)
    said, does = {
        "kind": ("activity 'echo' (#0)", "timer (#0)"),
        "number": ("activity 'echo' (#0)", "timer (#0)"),
        "name": ("activity 'echo' (#0)", "activity 'other' (#0)"),
    }[change]
    assert f"history says:  {said}" in diff
    assert f"code now does: {does} at {__file__}:" in diff
    status = await host.client.get_status(instance_id)
    assert status is not None
    assert (status.runtime_status, status.failure, status.output) == ("Running", None, None)
    host = await hub.restart(host, app_of(changed))
    assert await blocked(host, instance_id) == diff  # still
    host = await hub.restart(host, app_of(flow))
    done = await host.client.wait_for_completion(instance_id)
    assert (done.runtime_status, done.output, done.blocked) == ("Completed", "went", None)


async def test_4_1_6_a_call_that_was_removed_is_noticed(hub: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        ctx.call_activity("echo", 1)
        return await ctx.wait_for_external_event("go")

    async def wait_only(ctx: OrchestrationContext) -> str:
        return await ctx.wait_for_external_event("go")

    async def nothing(ctx: OrchestrationContext) -> str:
        return "done"

    _, host, instance_id = await deploy(hub, flow, wait_only)
    diff = await blocked(host, instance_id)
    assert "history says:  activity 'echo' (#0)" in diff
    assert "code now does: wait for external event 'go' (#0)" in diff
    host = await hub.restart(host, app_of(nothing))

    async def other_diff() -> bool:
        return "code now does: end: completed" in await blocked(host, instance_id)

    await eventually(other_diff)
    host = await hub.restart(host, app_of(flow))
    assert (await host.client.wait_for_completion(instance_id)).output == "went"


async def test_4_1_6_a_removed_last_call_is_noticed(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        waiting = ctx.wait_for_external_event("go")
        ctx.call_activity("echo", 1)
        return await waiting

    async def shorter(ctx: OrchestrationContext) -> str:
        return await ctx.wait_for_external_event("go")

    _, host, instance_id = await deploy(memory, flow, shorter)
    diff = await blocked(host, instance_id)
    assert "history says:  activity 'echo' (#1)" in diff
    assert "code now does: nothing more on this event" in diff


async def test_4_1_7_a_changed_target_of_send_event_is_noticed(memory: Deployment) -> None:
    target = "one"

    async def flow(ctx: OrchestrationContext) -> str:
        ctx.send_event(target, "hello")
        return await ctx.wait_for_external_event("go")

    async def changed(ctx: OrchestrationContext) -> str:
        ctx.send_event("two", "hello")
        return await ctx.wait_for_external_event("go")

    _, host, instance_id = await deploy(memory, flow, changed)
    diff = await blocked(host, instance_id)
    assert "history says:  event 'hello' sent to 'one' (#0)" in diff
    assert "code now does: event 'hello' sent to 'two' (#0)" in diff


async def test_4_1_8_numbers_follow_the_order_of_the_calls(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> None:
        third = ctx.call_activity("echo", "0")
        timer = ctx.create_timer(0)
        event = ctx.wait_for_external_event("go")
        last = ctx.call_activity("other", "3")
        await last  # the order of awaiting does not matter
        await event
        await third
        await timer

    host = await memory.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    await host.client.raise_event("i", "go")
    await host.client.wait_for_completion("i")
    scheduled = [
        (entry.task_id, entry.event_type, entry.name)
        for entry in await host.client.get_history("i")
        if entry.event_type in ("TaskScheduled", "TimerCreated", "EventAwaited")
    ]
    assert scheduled == [
        (0, "TaskScheduled", "echo"),
        (1, "TimerCreated", None),
        (2, "EventAwaited", "go"),
        (3, "TaskScheduled", "other"),
    ]


async def test_4_1_9_awaiting_what_is_not_durable_is_a_type_error(memory: Deployment) -> None:
    app = App()
    outside = asyncio.get_running_loop().create_future()

    @app.orchestrator
    async def foreign_future(ctx: OrchestrationContext) -> None:
        await outside

    @app.orchestrator
    async def plain_value(ctx: OrchestrationContext) -> None:
        await 5  # type: ignore[misc]

    @app.orchestrator
    def yields_a_number(ctx: OrchestrationContext) -> Any:
        yield 5

    async with memory.host(app) as host:
        for fn, says in (
            (foreign_future, "awaited something that is not durable"),
            (plain_value, "can't be used in 'await' expression"),
            (yields_a_number, "expected a durable task"),
        ):
            done = await (await host.client.start(fn)).wait_for_completion()
            assert done.failure is not None
            assert (done.runtime_status, done.failure.type) == ("Failed", "TypeError")
            assert says in done.failure.message


async def test_4_1_9_every_instance_that_awaits_one_foreign_future_gets_the_type_error(
    memory: Deployment,
) -> None:
    app = App()
    outside = asyncio.get_running_loop().create_future()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        await outside

    async with memory.host(app) as host:
        for _ in (1, 2):
            failure = (await (await host.client.start(flow)).wait_for_completion()).failure
            assert failure is not None
            assert failure.type == "TypeError"
            assert "ctx.call_activity" in failure.message


async def test_4_1_10_an_orchestrator_without_work_completes_at_once(memory: Deployment) -> None:
    app = App()

    @app.orchestrator
    def plain(ctx: OrchestrationContext) -> str:
        return "plain"

    @app.orchestrator
    async def coroutine(ctx: OrchestrationContext) -> str:
        return "coroutine"

    @app.orchestrator
    def generator(ctx: OrchestrationContext) -> Any:
        if ctx.instance_id == "":
            yield
        return "generator"

    async with memory.host(app) as host:
        for fn in (plain, coroutine, generator):
            handle = await host.client.start(fn)
            status = await handle.status()  # start has returned: the first turn is durable
            assert status is not None
            assert (status.runtime_status, status.output) == ("Completed", fn.__name__)


async def test_4_1_11_a_caught_failure_replays_identically(hub: Deployment) -> None:
    def new_app() -> App:
        app = App()

        @app.activity
        async def fail(text: str) -> None:
            raise ValueError(text)

        @app.orchestrator
        async def flow(ctx: OrchestrationContext) -> list[str]:
            try:
                await ctx.call_activity(fail, "broken")
            except TaskFailedError as error:
                caught = f"{error.details.type}: {error.details.message}"
            return [caught, await ctx.wait_for_external_event("go", str)]

        return app

    host = await hub.start(new_app())
    await host.client.start("flow", instance_id="i")
    await has_event(host, "i", "EventAwaited")
    host = await hub.recover(host, new_app())
    await host.client.raise_event("i", "go", "on")
    done = await host.client.wait_for_completion("i")
    assert (done.blocked, done.output) == (None, ["ValueError: broken", "on"])
    types = [entry.event_type for entry in await host.client.get_history("i")]
    assert types.count("TaskFailed") == types.count("TaskScheduled") == 1


async def test_4_1_12_the_replay_safe_logger_writes_each_line_once(
    hub: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "durably.orchestrator")

    async def flow(ctx: OrchestrationContext) -> None:
        ctx.logger.info("begun")
        for turn in (1, 2):
            await ctx.wait_for_external_event("go")
            ctx.logger.info("turn %d", turn)

    host = await hub.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    for _ in (1, 2):
        host = await hub.recover(host, app_of(flow))
        await host.client.raise_event("i", "go")
    await host.client.wait_for_completion("i")
    lines = [record for record in caplog.records if record.name == "durably.orchestrator"]
    assert [record.getMessage() for record in lines] == ["begun", "turn 1", "turn 2"]
    assert {record.instance_id for record in lines} == {"i"}  # type: ignore[attr-defined]


async def test_4_1_13_calls_added_behind_the_last_recorded_action_are_fine(hub: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        return await ctx.wait_for_external_event("go")

    async def longer(ctx: OrchestrationContext) -> list[str]:
        event = await ctx.wait_for_external_event("go")
        return [event, await ctx.call_activity("echo", "new")]

    _, host, instance_id = await deploy(hub, flow, longer)
    assert (await host.client.wait_for_completion(instance_id)).output == ["went", "new"]


async def test_4_1_14_a_stale_host_cannot_commit_and_the_new_owner_goes_on_alone() -> None:
    shared = Deployment(MemoryHubOfTest(exclusive=False))
    ran: list[str] = []

    def app_named(which: str) -> App:
        app = App()

        @app.activity
        async def work(value: int) -> int:
            ran.append(which)
            return value

        @app.orchestrator
        async def flow(ctx: OrchestrationContext) -> int:
            return await ctx.call_activity(work, await ctx.wait_for_external_event("go", int))

        return app

    old = await shared.start(app_named("old"))
    await old.client.start("flow", instance_id="i")
    stale = old.engine.partitions[0]
    new = await shared.start(app_named("new"))
    await new.engine._own.take(0)
    stale.deliver(
        Delivery("i", RaiseEvent("go", b"1"))
    )  # as if it had not heard yet that it is not the owner
    await asyncio.sleep(0.05)
    events = [entry for entry in await new.client.get_history("i") if entry.event_type == "EventRaised"]
    assert events == []
    await old.client.raise_event("i", "go", 2)
    assert (await new.client.wait_for_completion("i")).output == 2
    assert ran == ["new"]
    await shared.close()


def read_a_file() -> None:
    Path(__file__).read_text()


def open_a_socket() -> None:
    socket.socket().close()


def start_a_thread() -> None:
    threading.Thread(target=int).start()


def start_a_process() -> None:
    subprocess.run(["true"], check=True)


def sleep_and_block() -> None:
    time.sleep(0.001)


def open_a_database() -> None:
    import sqlite3

    sqlite3.connect(":memory:").close()


def use_an_executor() -> None:
    asyncio.get_running_loop().run_in_executor(None, int)


def make_a_thread_of_a_call() -> Any:
    return asyncio.to_thread(int)


def talk_to_the_network() -> Any:
    return asyncio.open_connection("127.0.0.1", 1)


FORBIDDEN = [
    (read_a_file, "open files"),
    (open_a_socket, "use the network"),
    (start_a_thread, "start threads"),
    (start_a_process, "start processes"),
    (sleep_and_block, "block in time.sleep"),
    (open_a_database, "open databases"),
    (use_an_executor, "call_activity"),
    (make_a_thread_of_a_call, "call_activity"),
    (talk_to_the_network, "call_activity"),
]


@pytest.mark.parametrize(("deed", "says"), FORBIDDEN, ids=lambda one: getattr(one, "__name__", ""))
async def test_4_1_15_what_a_replay_cannot_repeat_is_refused(
    memory: Deployment, deed: Callable[[], Any], says: str
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        waiting = deed()
        if waiting is not None:
            await waiting

    @app.orchestrator
    async def honest(ctx: OrchestrationContext) -> str:
        return "fine"

    async with memory.host(app) as host:
        failed = await (await host.client.start(flow)).wait_for_completion()
        assert failed.failure is not None
        assert failed.failure.type == "NonDeterministicCall"
        assert says in failed.failure.message
        assert await (await host.client.start(honest)).result() == "fine"


async def test_4_1_15_chance_of_the_context_repeats_on_replay(memory: Deployment) -> None:
    drawn: list[float] = []

    async def flow(ctx: OrchestrationContext) -> None:
        drawn.append(ctx.random.random())
        await ctx.wait_for_external_event("go")

    host = await memory.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    host = await memory.recover(host, app_of(flow))
    random.seed(drawn[0])
    await host.client.raise_event("i", "go")
    await host.client.wait_for_completion("i")
    assert drawn == [drawn[0], drawn[0]]


async def test_4_1_16_events_that_only_inform_do_not_disturb_a_replay(memory: Deployment) -> None:
    """Suspension, resumption and attempts are in the history, and the code has no part in them."""

    async def flow(ctx: OrchestrationContext) -> str:
        await ctx.call_activity("echo", 1)
        return await ctx.wait_for_external_event("go")

    host = await memory.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    await host.client.suspend("i", "look")
    await host.client.resume("i", "looked")
    host = await memory.recover(host, app_of(flow))
    await host.client.raise_event("i", "go", "on")
    done = await host.client.wait_for_completion("i")
    assert (done.blocked, done.output) == (None, "on")
    types = [entry.event_type for entry in await host.client.get_history("i")]
    assert {"ExecutionSuspended", "ExecutionResumed"} <= set(types)


async def test_4_1_1_an_evicted_instance_replays_when_something_arrives(hub: Deployment) -> None:
    runs: list[str] = []

    async def flow(ctx: OrchestrationContext) -> str:
        runs.append(ctx.instance_id)
        return await ctx.wait_for_external_event("go")

    host = await hub.start(app_of(flow), options=EngineOptions(max_resident_instances=2))
    for number in range(12):
        await host.client.start("flow", instance_id=f"i{number}")
    await is_quiet(host)
    assert host.engine.partition is not None
    assert len(host.engine.partition.residents) <= 3
    for number in range(12):
        await host.client.raise_event(f"i{number}", "go", number)
        assert (await host.client.wait_for_completion(f"i{number}")).output == number
    assert runs.count("i0") == 2


async def test_4_1_5_a_blocked_instance_can_be_terminated(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        await ctx.call_activity("echo", 1)
        return await ctx.wait_for_external_event("go")

    async def changed(ctx: OrchestrationContext) -> str:
        return "other"

    _, host, instance_id = await deploy(memory, flow, changed)
    await blocked(host, instance_id)
    await host.client.terminate(instance_id, "give up")
    done = await reaches(host, instance_id, "Terminated")
    assert (done.output, done.blocked) == ("give up", None)


async def test_4_1_5_other_instances_go_on_beside_a_blocked_one(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        await ctx.call_activity("echo", 1)
        return await ctx.wait_for_external_event("go")

    async def changed(ctx: OrchestrationContext) -> str:
        await ctx.call_activity("other", 1)
        return await ctx.wait_for_external_event("go")

    _, host, instance_id = await deploy(memory, flow, changed)
    await blocked(host, instance_id)
    await host.client.start("flow", instance_id="j")
    await host.client.raise_event("j", "go", "fine")
    assert (await host.client.wait_for_completion("j")).output == "fine"
