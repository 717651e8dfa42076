"""FEATURES 4.12: versions; also 4.6.7 and 4.7.8."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durably import App, EngineOptions, InstanceStateError, OrchestrationContext, TaskFailedError
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import has_event, is_quiet, reaches


def app_of(*versions: str | None) -> App:
    """`flow` in so many versions. Its result says which code ran before and behind a wait, and for which version."""
    app = App()
    for version in versions:
        _register(app, version)
    return app


def _register(app: App, version: str | None) -> None:
    @app.orchestrator(name="flow", version=version)
    async def flow(ctx: OrchestrationContext, waits: bool = False) -> list[Any]:
        code = [str(version), ctx.version]
        if waits:
            await ctx.wait_for_external_event("go")
        return [*code, str(version), ctx.version]

    del flow


def rules(**given: Any) -> EngineOptions:
    return EngineOptions(**given)


# --- 1: for its whole life -------------------------------------------------------------------------------------------


async def test_4_12_1_instances_of_two_versions_run_side_by_side_and_keep_their_code(hub: Deployment) -> None:
    host = await hub.start(app_of("1.0"))
    await host.client.start("flow", True, instance_id="old")
    host = await hub.restart(host, app_of("1.0", "2.0"))
    await host.client.start("flow", True, instance_id="new")
    await host.client.start("flow", True, instance_id="asked", version="1.0")
    await is_quiet(host)
    host = await hub.recover(host, app_of("1.0", "2.0", "3.0"))
    for name, version in (("old", "1.0"), ("new", "2.0"), ("asked", "1.0")):
        await host.client.raise_event(name, "go")
        done = await host.client.wait_for_completion(name)
        assert (done.output, done.version) == ([version] * 4, version)


async def test_4_12_1_a_start_of_the_function_itself_is_one_of_its_version(hub: Deployment) -> None:
    app = App()

    @app.orchestrator(name="flow", version="1.0")
    async def first(ctx: OrchestrationContext) -> str | None:
        return ctx.version

    @app.orchestrator(name="flow", version="2.0")
    async def second(ctx: OrchestrationContext) -> list[str | None]:
        child = await ctx.call_sub_orchestrator(first)
        started = await ctx.start_orchestration(first, instance_id="started")
        return [ctx.version, child, started]

    async with hub.host(app) as host:
        assert await (await host.client.start(first)).result() == "1.0"
        assert await (await host.client.start(second)).result() == ["2.0", "1.0", "started"]
        assert await (await host.client.start("flow")).result() == ["2.0", "1.0", "started"]
        assert (await host.client.wait_for_completion("started")).output == "1.0"


async def test_4_12_1_the_default_is_given_when_the_start_comes_not_when_it_is_due(
    hub: Deployment, clock: ManualClock
) -> None:
    host = await hub.start(app_of(None), options=rules(default_version="1.0"), clock=clock)
    await host.client.start("flow", instance_id="i", start_at=timedelta(seconds=5))
    await is_quiet(host)
    host = await hub.recover(host, app_of(None), options=rules(default_version="2.0"), clock=clock)
    status = await host.client.get_status("i")
    assert status is not None
    assert (status.runtime_status, status.version) == ("Pending", "1.0")
    await is_quiet(host)
    clock.advance(5)
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.version) == (["None", "1.0"] * 2, "1.0")


@pytest.mark.parametrize("version", [None, "1.0"])
async def test_4_12_1_restarted_and_rewound_instances_keep_their_version(
    hub: Deployment, version: str | None
) -> None:
    def app(mended: bool) -> App:
        app = App()

        @app.activity
        async def work() -> None:
            if not mended:
                raise ValueError("not mended")

        @app.orchestrator
        async def failing(ctx: OrchestrationContext) -> str | None:
            await ctx.call_activity(work)
            return ctx.version

        return app

    host = await hub.start(app(mended=False))
    await host.client.start("failing", instance_id="i", version=version)
    await reaches(host, "i", "Failed")
    host = await hub.recover(host, app(mended=False), options=rules(default_version="2.0"))
    await host.client.restart("i")
    assert (await host.client.wait_for_completion("i")).version == version
    other = await host.client.restart("i", new_instance_id=True)
    assert (await host.client.wait_for_completion(other.instance_id)).version == version
    host = await hub.recover(host, app(mended=True), options=rules(default_version="2.0"))
    await host.client.rewind("i")
    done = await host.client.wait_for_completion("i")
    assert (done.runtime_status, done.version) == ("Completed", version)


async def test_4_12_1_an_instance_that_asks_for_none_has_none(hub: Deployment) -> None:
    async with hub.host(app_of(None), options=rules(default_version="2.0")) as host:
        await host.client.start("flow", instance_id="i", version="")
        done = await host.client.wait_for_completion("i")
        assert (done.output, done.version) == (["None", None] * 2, None)


# --- 2: which code runs which instances ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "code", "version", "runs"),
    [
        ("strict", "1.10", "1.10", True),
        ("strict", "1.10", "1.9", False),
        ("strict", "1.10", "", False),
        ("strict", None, "", True),
        ("strict", None, "1.0", False),
        ("current_or_older", "1.10", "1.9", True),
        ("current_or_older", "1.9", "1.10", False),
        ("current_or_older", "1.9", "1.9", True),
        ("current_or_older", "2.0", "10", False),
        ("current_or_older", "2.0-beta", "2.0", False),
        ("current_or_older", None, "7", True),
        ("none", "1.9", "1.10", True),
        ("none", None, "1.10", True),
    ],
)
async def test_4_12_2_the_match_strategy_compares_an_instance_with_the_code_of_its_host(
    memory: Deployment, strategy: Any, code: str | None, version: str, runs: bool
) -> None:
    options = rules(code_version=code, version_match_strategy=strategy)
    async with memory.host(app_of(None), options=options) as host:
        await host.client.start("flow", instance_id="i", version=version)
        await is_quiet(host)
        status = await host.client.get_status("i")
        assert status is not None
        assert (status.runtime_status == "Completed") is runs, status.blocked


@pytest.mark.parametrize(
    ("strategy", "registered", "version", "expected"),
    [
        ("strict", ["1.9", "1.10"], "1.9", "1.9"),
        ("strict", ["1.9", "1.10"], "1.8", None),
        ("current_or_older", ["1.9", "1.10", "1.11"], "1.10", "1.10"),
        ("current_or_older", ["1.8", "1.11", "1.10"], "1.9", "1.10"),
        ("current_or_older", ["1.8", "1.10"], "2.0", None),
        ("current_or_older", [None, "2.0"], "1.0", "None"),
        ("none", ["1.8", "1.10"], "1.9", "1.10"),
        ("none", ["1.8", "1.10"], "2.0", "1.10"),
    ],
)
async def test_4_12_2_the_match_strategy_holds_for_code_that_says_its_version(
    memory: Deployment, strategy: Any, registered: list[str | None], version: str, expected: str | None
) -> None:
    options = rules(version_match_strategy=strategy)
    async with memory.host(app_of(*registered), options=options) as host:
        await host.client.start("flow", instance_id="i", version=version)
        await is_quiet(host)
        status = await host.client.get_status("i")
        assert status is not None
        assert (status.output and status.output[0]) == expected


# --- 3: what becomes of the others -----------------------------------------------------------------------------------


async def test_4_12_3_reject_leaves_a_start_for_another_host(hub: Deployment) -> None:
    host = await hub.start(app_of("1.9"))
    await host.client.start("flow", True, instance_id="i", version="1.10")
    await host.client.raise_event("i", "go")
    await is_quiet(host)
    host = await hub.recover(host, app_of("1.9"))
    await is_quiet(host)
    status = await host.client.get_status("i")
    assert status is not None
    assert (status.runtime_status, status.version, status.failure) == ("Pending", "1.10", None)
    assert str(status.blocked) == (
        "Orchestrator 'flow' has no code for an instance of version '1.10' in this host; it has: '1.9' (match strategy "
        "'current_or_older'). Deploy code for it, or serve the hub with a host that has it: the instance goes on by itself"
    )
    host = await hub.restart(host, app_of("1.9", "1.10"))
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.blocked) == (["1.10"] * 4, None)


async def test_4_12_3_reject_leaves_an_instance_in_flight_without_burning_an_attempt(hub: Deployment) -> None:
    host = await hub.start(app_of("2.0"), options=rules(max_deliveries=2))
    await host.client.start("flow", True, instance_id="i")
    await has_event(host, "i", "EventAwaited")
    history = await host.client.get_history("i")
    for _ in range(3):
        host = await hub.recover(host, app_of("1.0"), options=rules(max_deliveries=2))
        await host.client.raise_event("i", "other")
        await is_quiet(host)
        assert await host.client.get_history("i") == history
        assert "of version '2.0'" in await host.client.why("i")
    await host.client.raise_event("i", "go")
    host = await hub.restart(host, app_of("2.0"))
    assert (await host.client.wait_for_completion("i")).output == ["2.0"] * 4


async def test_4_12_3_reject_leaves_a_scheduled_start_that_comes_due(
    hub: Deployment, clock: ManualClock
) -> None:
    host = await hub.start(app_of("2.0"), clock=clock)
    await host.client.start("flow", instance_id="i", start_at=timedelta(seconds=5))
    host = await hub.restart(host, app_of("1.0"), clock=clock)
    await is_quiet(host)
    clock.advance(5)
    await is_quiet(host)
    status = await host.client.get_status("i")
    assert status is not None
    assert (status.runtime_status, status.failure) == ("Pending", None)
    host = await hub.restart(host, app_of("2.0"), clock=clock)
    assert (await host.client.wait_for_completion("i")).output == ["2.0"] * 4


async def test_4_12_3_fail_fails_a_start_with_a_version_error(hub: Deployment) -> None:
    async with hub.host(app_of("1.9"), options=rules(version_failure_strategy="fail")) as host:
        await host.client.start("flow", instance_id="i", version="1.10")
        done = await host.client.wait_for_completion("i")
        assert done.runtime_status == "Failed"
        assert done.failure is not None
        assert done.failure.type == "VersionMismatchError"
        assert "no code for an instance of version '1.10' in this host; it has: '1.9'" in done.failure.message


async def test_4_12_3_fail_fails_an_instance_in_flight_at_its_next_turn_and_a_rewind_brings_it_back(
    hub: Deployment,
) -> None:
    options = rules(version_failure_strategy="fail", version_match_strategy="strict")
    host = await hub.start(app_of("1.0"), options=options)
    await host.client.start("flow", True, instance_id="i")
    await has_event(host, "i", "EventAwaited")
    host = await hub.recover(host, app_of("2.0"), options=options)
    with pytest.raises(InstanceStateError, match="it is Failed"):  # the event found nobody
        await host.client.raise_event("i", "go")
    done = await host.client.wait_for_completion("i")
    assert done.failure is not None
    assert (done.runtime_status, done.failure.type, done.blocked) == ("Failed", "VersionMismatchError", None)
    host = await hub.restart(host, app_of("1.0"), options=options)
    await host.client.rewind("i")
    await host.client.raise_event("i", "go")
    assert (await host.client.wait_for_completion("i")).output == ["1.0"] * 4


async def test_4_12_3_fail_also_fails_what_was_blocked_when_the_host_starts(hub: Deployment) -> None:
    host = await hub.start(app_of("2.0"))
    await host.client.start("flow", True, instance_id="i")
    host = await hub.restart(host, app_of("1.0"))
    await host.client.raise_event("i", "go")
    await is_quiet(host)
    host = await hub.restart(host, app_of("1.0"), options=rules(version_failure_strategy="fail"))
    done = await host.client.wait_for_completion("i")
    assert done.failure is not None
    assert (done.failure.type, done.blocked) == ("VersionMismatchError", None)


async def test_4_12_3_a_parent_sees_that_its_child_has_no_code(hub: Deployment) -> None:
    app = app_of("1.0")

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_sub_orchestrator("flow", version="2.0")
        except TaskFailedError as error:
            return error.details.type
        return "fine"

    async with hub.host(app, options=rules(version_failure_strategy="fail")) as host:
        assert await (await host.client.start(parent)).result() == "VersionMismatchError"


# --- 4, 5 ------------------------------------------------------------------------------------------------------------


async def test_4_12_4_an_instance_without_version_is_older_than_any(hub: Deployment) -> None:
    host = await hub.start(app_of(None))
    await host.client.start("flow", True, instance_id="i")
    await has_event(host, "i", "EventAwaited")
    host = await hub.recover(host, app_of("0.0.1", "2.0"))
    await host.client.raise_event("i", "go")
    assert (await host.client.wait_for_completion("i")).output == ["0.0.1", None] * 2


async def test_4_12_5_hosts_of_two_versions_by_turns_leave_each_instance_with_its_code(
    hub: Deployment,
) -> None:
    ran: list[tuple[str, str | None, str]] = []

    def app(code: str) -> App:
        app = App()

        @app.orchestrator
        async def flow(ctx: OrchestrationContext) -> int:
            for _ in range(4):
                await ctx.wait_for_external_event("go")
                if not ctx.is_replaying:
                    ran.append((ctx.instance_id, ctx.version, code))
            return 4

        return app

    for round_ in range(4):
        for code in ("1.0", "2.0"):
            options = rules(code_version=code, version_match_strategy="strict")
            host = await hub.start(app(code), options=options)
            if round_ == 0:
                await host.client.start("flow", instance_id=f"of {code}")
            if code == "2.0":
                await host.client.raise_event("of 1.0", "go")
                await host.client.raise_event("of 2.0", "go")
            await is_quiet(host)
            await hub.crash(host)
    assert {(version, code) for _, version, code in ran} == {("1.0", "1.0"), ("2.0", "2.0")}
    assert [name for name, _, _ in ran].count("of 2.0") == 4
    assert [name for name, _, _ in ran].count("of 1.0") == 3  # the last event waits for its host


# --- 4.6.7, 4.7.8 ----------------------------------------------------------------------------------------------------


async def test_4_6_7_a_child_gets_the_default_and_not_the_version_of_its_parent(hub: Deployment) -> None:
    app = app_of(None)

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> list[Any]:
        given = await ctx.call_sub_orchestrator("flow", version="1.5")
        left_open = await ctx.call_sub_orchestrator("flow")
        return [ctx.version, given[1], left_open[1]]

    host = await hub.start(app, options=rules(default_version="2.0"))
    handle = await host.client.start("parent", version="1.0")
    assert await handle.result() == ["1.0", "1.5", "2.0"]
    host = await hub.restart(host, app)
    assert await (await host.client.start("parent", version="1.0")).result() == ["1.0", "1.5", None]


def moving(*versions: str) -> App:
    """`flow` counts to 3, and moves to version 2.0 after 1."""
    app = App()

    def register(version: str) -> None:
        @app.orchestrator(name="flow", version=version)
        async def flow(ctx: OrchestrationContext, seen: list[Any]) -> list[Any]:
            await ctx.wait_for_external_event("go")
            seen.append([version, ctx.version])
            if len(seen) < 3:
                ctx.continue_as_new(seen, version="2.0" if len(seen) == 1 else None)
            return seen

        del flow

    for version in versions:
        register(version)
    return app


async def test_4_7_8_a_new_version_may_be_given_for_the_next_execution(hub: Deployment) -> None:
    host = await hub.start(moving("1.0", "2.0"))
    await host.client.start("flow", [], instance_id="i", version="1.0")
    await host.client.raise_event("i", "go")
    await is_quiet(host)
    status = await host.client.get_status("i")
    assert status is not None
    assert status.version == "2.0"
    host = await hub.recover(host, moving("2.0"))
    await host.client.raise_event("i", "go")
    await host.client.raise_event("i", "go")
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.version) == ([["1.0", "1.0"], ["2.0", "2.0"], ["2.0", "2.0"]], "2.0")


async def test_4_7_8_the_next_execution_waits_for_code_and_keeps_its_events_in_order(hub: Deployment) -> None:
    host = await hub.start(moving("1.0"))
    await host.client.start("flow", [], instance_id="i")
    for _ in range(2):
        await host.client.raise_event("i", "go")
    await is_quiet(host)
    status = await host.client.get_status("i")
    assert status is not None
    assert "of version '2.0'" in str(status.blocked)
    host = await hub.recover(host, moving("1.0"))
    await host.client.raise_event("i", "go")
    await is_quiet(host)
    assert (await reaches(host, "i", "Running")).blocked is not None
    host = await hub.recover(host, moving("2.0"))
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.blocked) == ([["1.0", "1.0"], ["2.0", "2.0"], ["2.0", "2.0"]], None)


async def test_4_7_8_an_instance_that_waits_for_code_of_its_next_version_can_be_terminated(
    hub: Deployment,
) -> None:
    async with hub.host(moving("1.0")) as host:
        await host.client.start("flow", [], instance_id="i")
        await host.client.raise_event("i", "go")
        await is_quiet(host)
        await host.client.terminate("i")
        assert (await host.client.wait_for_completion("i")).runtime_status == "Terminated"
