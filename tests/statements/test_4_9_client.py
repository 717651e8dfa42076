"""FEATURES 4.9: client, status, ids."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    App,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceStateError,
    InvalidIdError,
    OrchestrationContext,
    OrchestrationFailedError,
    RuntimeStatus,
    UnknownFunctionError,
    UsageError,
)
from tests.support.clock import START, ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet, reaches


def waiter() -> App:
    """An app whose "flow" answers "go" with its input and the event; "quick" with its input; "failing" not at all."""
    app = App()
    app.activity(name="echo")(lambda value: value)

    @app.orchestrator(name="flow")
    async def flow(ctx: OrchestrationContext, value: Any) -> Any:
        return [value, await ctx.wait_for_external_event("go")]

    @app.orchestrator(name="quick")
    async def quick(ctx: OrchestrationContext, value: Any) -> Any:
        return value

    @app.orchestrator(name="failing")
    async def failing(ctx: OrchestrationContext, text: str) -> None:
        raise ValueError(text)

    return app


async def test_4_9_1_generated_ids_are_32_hex_digits_and_differ(memory: Deployment) -> None:
    async with memory.host(waiter()) as host:
        ids = {(await host.client.start("quick", 1)).instance_id for _ in range(20)}
    assert len(ids) == 20
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in ids)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "@x",
        "x" * 257,
        "a/b",
        "a\\b",
        "a#b",
        "a?b",
        "a\nb",
        "a\x00b",
        "a\x7fb",
        "a\x9fb",
        "a\ud800",
        5,
        b"x",
    ],
    ids=ascii,
)
async def test_4_9_1_ids_that_no_hub_can_hold_are_refused(memory: Deployment, bad: Any) -> None:
    async with memory.host(waiter()) as host:
        with pytest.raises(InvalidIdError):
            await host.client.start("quick", 1, instance_id=bad)
        assert (await host.client.query_instances()).instances == []


@pytest.mark.parametrize(
    "good", ["x" * 256, "a@b", "Order 7: ä€\U0001f600", "..", "a%b_c'\"--", "0"], ids=ascii
)
async def test_4_9_1_all_other_ids_work(hub: Deployment, good: str) -> None:
    host = await hub.start(waiter())
    await host.client.start("flow", 1, instance_id=good)
    host = await hub.recover(host, waiter())
    await host.client.raise_event(good, "go", 2)
    assert (await host.client.wait_for_completion(good)).output == [1, 2]
    assert [one.instance_id for one in (await host.client.query_instances()).instances] == [good]
    assert await host.client.get_status(good.swapcase() + "x") is None


async def test_4_9_2_the_id_of_a_running_instance_is_refused_by_default(hub: Deployment) -> None:
    host = await hub.start(waiter())
    await host.client.start("flow", 1, instance_id="i")
    for policy in ("replace_finished", "fail"):
        host = await hub.recover(host, waiter())
        with pytest.raises(InstanceAlreadyExistsError) as caught:
            await host.client.start("flow", 2, instance_id="i", on_existing=policy)  # type: ignore[arg-type]
        assert (caught.value.instance_id, caught.value.status) == ("i", "Running")
    await host.client.raise_event("i", "go", "first")
    assert (await host.client.wait_for_completion("i")).output == [1, "first"]


@pytest.mark.parametrize("crash", [False, True])
async def test_4_9_2_a_finished_instance_is_replaced_by_default(hub: Deployment, crash: bool) -> None:
    host = await hub.start(waiter())
    await (await host.client.start("quick", 1, instance_id="i")).result()
    if crash:
        host = await hub.recover(host, waiter())
    with pytest.raises(InstanceAlreadyExistsError):
        await host.client.start("quick", 2, instance_id="i", on_existing="fail")
    handle = await host.client.start("flow", 2, instance_id="i")
    status = await handle.status()
    assert status is not None
    assert (status.runtime_status, status.output, status.input) == ("Running", None, 2)
    if crash:
        host = await hub.recover(host, waiter())
    await host.client.raise_event("i", "go", "on")
    assert (await host.client.wait_for_completion("i")).output == [2, "on"]


@pytest.mark.parametrize("finished", [False, True])
async def test_4_9_2_replace_replaces_whatever_is_there(memory: Deployment, finished: bool) -> None:
    async with memory.host(waiter()) as host:
        old = await host.client.start("quick" if finished else "flow", 1, instance_id="i")
        waiting = asyncio.create_task(old.wait_for_completion()) if not finished else None
        await is_quiet(host)
        new = await host.client.start("flow", 2, instance_id="i", on_existing="replace")
        await new.raise_event("go", "on")
        assert (await host.client.wait_for_completion("i")).output == [2, "on"]
        if waiting is not None:
            await asyncio.wait_for(waiting, 60)
        assert len((await host.client.query_instances()).instances) == 1


async def test_4_9_2_who_waits_for_a_replaced_instance_learns_that_it_was_terminated(
    memory: Deployment,
) -> None:
    async with memory.host(waiter()) as host:
        old = await host.client.start("flow", 1, instance_id="i")
        waiting = asyncio.create_task(old.result())
        await is_quiet(host)
        await host.client.start("flow", 2, instance_id="i", on_existing="replace")
        with pytest.raises(OrchestrationFailedError) as caught:
            await asyncio.wait_for(waiting, 60)
        assert caught.value.status == "Terminated"


@pytest.mark.parametrize("state", ["Running", "Pending", "Completed"])
@pytest.mark.parametrize("crash", [False, True])
async def test_4_9_2_attach_refuses_an_instance_of_another_orchestrator(
    hub: Deployment, clock: ManualClock, state: str, crash: bool
) -> None:
    host = await hub.start(waiter(), clock=clock)
    name = "quick" if state == "Completed" else "flow"
    await host.client.start(name, 1, instance_id="i", start_at=60.0 if state == "Pending" else None)
    await reaches(host, "i", state)
    if crash:
        host = await hub.recover(host, waiter(), clock=clock)
    with pytest.raises(InstanceAlreadyExistsError, match=f"is {state} and runs '{name}'") as caught:
        await host.client.start("failing", 2, instance_id="i", on_existing="attach")
    assert (caught.value.status, caught.value.name) == (state, name)
    assert (await host.client.start(name, 2, instance_id="i", on_existing="attach")).instance_id == "i"


async def test_4_9_2_attach_gives_the_instance_that_is_there(memory: Deployment) -> None:
    async with memory.host(waiter()) as host:
        await host.client.start("flow", 1, instance_id="i", on_existing="attach")
        again = await host.client.start("flow", 2, instance_id="i", on_existing="attach")
        await again.raise_event("go", "on")
        assert await again.result() == [1, "on"]
        finished = await host.client.start("flow", 3, instance_id="i", on_existing="attach")
        assert await finished.result() == [1, "on"]


async def test_4_9_2_a_policy_that_does_not_exist_is_refused(memory: Deployment) -> None:
    async with memory.host(waiter()) as host:
        with pytest.raises(UsageError, match="on_existing"):
            await host.client.start("quick", 1, instance_id="i", on_existing="whatever")  # type: ignore[call-overload]


async def test_4_9_3_of_concurrent_starts_with_one_new_id_one_wins_and_the_others_learn_it(
    hub: Deployment,
) -> None:
    async with hub.host(waiter()) as host:
        starts = [host.client.start("flow", number, instance_id="i") for number in range(8)]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        won = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, InstanceAlreadyExistsError)]
        assert len(won) == 1
        assert len(lost) == 7
        await host.client.raise_event("i", "go", "on")
        assert (await host.client.wait_for_completion("i")).output == [won[0], "on"]
        assert len((await host.client.query_instances()).instances) == 1


async def test_4_9_3_of_concurrent_starts_that_complete_at_once_one_wins(memory: Deployment) -> None:
    """With "fail" also when the first one has ended before the second is looked at."""
    async with memory.host(waiter()) as host:
        starts = [host.client.start("quick", n, instance_id="i", on_existing="fail") for n in range(8)]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1


async def test_4_9_4_pending_becomes_running_at_the_first_turn(hub: Deployment, clock: ManualClock) -> None:
    host = await hub.start(waiter(), clock=clock)
    await host.client.start("flow", 1, instance_id="i", start_at=timedelta(seconds=60), tags={"a": "b"})
    before = await host.client.get_status("i")
    assert before is not None
    assert (before.runtime_status, before.name, before.input, before.tags) == (
        "Pending",
        "flow",
        1,
        {"a": "b"},
    )
    assert before.created_time == before.last_updated_time == START
    host = await hub.recover(host, waiter(), clock=clock)
    clock.advance(59)
    await is_quiet(host)
    assert await host.client.get_status("i") == before
    clock.advance(1)
    running = await reaches(host, "i", "Running")
    assert (running.created_time, running.last_updated_time) == (START, START + timedelta(seconds=60))
    await host.client.raise_event("i", "go", 2)
    assert (await host.client.wait_for_completion("i")).output == [1, 2]


@pytest.mark.parametrize(
    "when", [START + timedelta(seconds=60), (START + timedelta(seconds=60)).replace(tzinfo=None), 60]
)
async def test_4_9_4_a_start_may_be_scheduled_by_instant_or_delay(
    memory: Deployment, clock: ManualClock, when: Any
) -> None:
    async with memory.host(waiter(), clock=clock) as host:
        handle = await host.client.start("quick", 1, start_at=when)
        clock.advance(59)
        await is_quiet(host)
        status = await handle.status()
        assert status is not None
        assert status.runtime_status == "Pending"
        clock.advance(1)
        assert await handle.result() == 1


async def test_4_9_4_last_updated_changes_with_every_commit(memory: Deployment, clock: ManualClock) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        for _ in range(3):
            await ctx.wait_for_external_event("go")

    async with memory.host(app, clock=clock) as host:
        handle = await host.client.start(flow)
        for minute in (0, 1, 2):
            status = await handle.status()
            assert status is not None
            assert status.last_updated_time == START + timedelta(minutes=minute)
            assert status.created_time == START
            clock.advance(60)
            await handle.raise_event("go")
        assert (await handle.wait_for_completion()).last_updated_time == START + timedelta(minutes=3)


async def test_4_9_5_output_belongs_to_completed_and_failure_to_failed(memory: Deployment) -> None:
    async with memory.host(waiter()) as host:
        completed = await (await host.client.start("quick", [1])).wait_for_completion()
        failed = await (await host.client.start("failing", "broken")).wait_for_completion()
        handles = [await host.client.start("flow", 1) for _ in range(3)]
        running = await handles[0].status()
        await handles[1].terminate("enough")
        await handles[2].cancel("please")
        terminated = await handles[1].wait_for_completion()
        canceled = await handles[2].wait_for_completion()
        assert running is not None
        assert (running.runtime_status, running.output, running.failure) == ("Running", None, None)
        assert (completed.runtime_status, completed.output, completed.failure) == ("Completed", [1], None)
        assert (terminated.runtime_status, terminated.output, terminated.failure) == (
            "Terminated",
            "enough",
            None,
        )
        assert failed.failure is not None
        assert (failed.runtime_status, failed.output) == ("Failed", None)
        assert (failed.failure.type, failed.failure.message) == ("ValueError", "broken")
        assert canceled.failure is not None
        assert (canceled.runtime_status, canceled.output, canceled.failure.message) == (
            "Canceled",
            None,
            "please",
        )
        with pytest.raises(OrchestrationFailedError, match="enough") as caught:
            await handles[1].result()
        assert caught.value.status == "Terminated"


async def test_4_9_6_a_custom_status_above_16_kib_is_refused_in_the_orchestrator(memory: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, size: int) -> str:
        ctx.set_custom_status("before")
        try:
            ctx.set_custom_status("x" * (size - 2))  # two quotes
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__}: {error}"
        return "set"

    async with memory.host(app) as host:
        largest = await (await host.client.start(flow, 16_384)).wait_for_completion()
        assert (largest.output, len(largest.custom_status)) == ("set", 16_382)
        refused = await (await host.client.start(flow, 16_385)).wait_for_completion()
        assert refused.output.startswith("PayloadError")
        assert "16385 bytes" in refused.output
        assert refused.custom_status == "before"


@pytest.mark.parametrize("page_size", [1, 3, 7, 100])
async def test_4_9_8_a_walk_visits_each_instance_once_although_others_come_and_go(
    hub: Deployment, page_size: int
) -> None:
    async with hub.host(waiter()) as host:
        for number in range(14):
            await host.client.start("flow" if number % 2 else "quick", number, instance_id=f"i{number}")
        seen: list[str] = []
        token: str | None = None
        pages = 0
        while True:
            page = await host.client.query_instances(page_size=page_size, continuation_token=token)
            assert page.instances or page.continuation_token is None
            seen += [one.instance_id for one in page.instances]
            pages += 1
            token = page.continuation_token
            if token is None:
                break
            if pages == 1:
                await host.client.purge("i0")
                await host.client.purge("i4")
                await host.client.raise_event("i1", "go", 1)  # changes its status, not its place
                await host.client.start("quick", 1, instance_id="new")
        stable = [f"i{number}" for number in range(14) if number not in (0, 4)]
        assert [one for one in seen if one in stable] == stable
        assert len(seen) == len(set(seen))
        assert pages >= 14 // page_size


async def test_4_9_8_filters_select(hub: Deployment, clock: ManualClock) -> None:
    host = await hub.start(waiter(), clock=clock)
    client = host.client
    await client.start("quick", 1, instance_id="a1", tags={"team": "x", "tier": "1"})
    clock.advance(60)
    await client.start("flow", 2, instance_id="a2", tags={"team": "x"})
    clock.advance(60)
    await client.start("failing", "no", instance_id="b%1")
    await client.start("flow", 3, instance_id="b_2", start_at=60.0)
    host = await hub.recover(host, waiter(), clock=clock)

    async def found(**filters: Any) -> list[str]:
        page = await host.client.query_instances(**filters)
        return [one.instance_id for one in page.instances]

    assert await found() == ["a1", "a2", "b%1", "b_2"]
    assert await found(name="flow") == ["a2", "b_2"]
    assert await found(runtime_status="Failed") == ["b%1"]
    assert await found(runtime_status=["Running", "Pending"]) == ["a2", "b_2"]
    assert await found(instance_id_prefix="a") == ["a1", "a2"]
    assert await found(instance_id_prefix="b_") == ["b_2"]
    assert await found(instance_id_prefix="b%") == ["b%1"]
    assert await found(instance_id_prefix="A") == []
    assert await found(created_from=START + timedelta(seconds=60)) == ["a2", "b%1", "b_2"]
    assert await found(created_to=START + timedelta(seconds=60)) == ["a1", "a2"]
    assert await found(tags={"team": "x"}) == ["a1", "a2"]
    assert await found(tags={"team": "x", "tier": "1"}) == ["a1"]
    assert await found(tags={"team": "y"}) == []
    assert await found(name="flow", runtime_status="Completed") == []
    count = host.client.count_instances
    assert await count() == 4
    assert await count(tags={"team": "x"}, runtime_status=["Running", "Failed"]) == 1
    assert await count(by="name") == {"quick": 1, "flow": 2, "failing": 1}
    assert await count(by="status", name="flow") == {"Running": 1, "Pending": 1}
    assert await count(by="name_and_status", instance_id_prefix="a") == {
        ("quick", RuntimeStatus.Completed): 1,
        ("flow", RuntimeStatus.Running): 1,
    }
    assert await count(name="none") == 0
    assert await count(by="status", name="none") == {}
    for wrong in ({"by": "parent"}, {"state": "Failed"}, {"runtime_status": "Odd"}):
        with pytest.raises(UsageError):
            await count(**wrong)  # type: ignore[call-overload]
    for wrong in (
        {"runtime_status": "Odd"},
        {"page_size": 0},
        {"page_size": 1001},
        {"continuation_token": "odd"},
    ):
        with pytest.raises(UsageError):
            await found(**wrong)


async def test_4_9_9_waiting_returns_the_status_or_times_out_and_the_instance_goes_on(
    memory: Deployment, clock: ManualClock
) -> None:
    async with memory.host(waiter(), clock=clock) as host:
        handle = await host.client.start("flow", 1)
        for wait in (handle.wait_for_completion, handle.result):
            waiting = asyncio.create_task(wait(timeout=10))
            await is_quiet(host)
            clock.advance(9.9)
            await is_quiet(host)
            assert not waiting.done()
            clock.advance(0.1)
            with pytest.raises(TimeoutError, match=handle.instance_id):
                await waiting
        waiting = asyncio.create_task(handle.wait_for_completion(timeout=10))
        await handle.raise_event("go", 2)
        assert (await waiting).output == [1, 2]
        assert (await handle.wait_for_completion(timeout=0)).output == [1, 2]


async def test_4_9_9_waiting_for_a_failed_instance_returns_its_status_and_its_result_raises(
    hub: Deployment,
) -> None:
    host = await hub.start(waiter())
    await host.client.start("failing", "broken", instance_id="i")
    host = await hub.recover(host, waiter())
    assert (await host.client.wait_for_completion("i")).runtime_status == "Failed"
    with pytest.raises(OrchestrationFailedError, match="ValueError: broken") as caught:
        await host.client.handle("i").result()
    assert (caught.value.instance_id, caught.value.status) == ("i", "Failed")
    assert caught.value.details.is_caused_by(ValueError)


async def test_4_9_9_waiting_for_an_unknown_instance_is_refused(memory: Deployment) -> None:
    async with memory.host(waiter()) as host:
        for wait in (host.client.wait_for_completion("nobody"), host.client.handle("nobody").result()):
            with pytest.raises(InstanceNotFoundError):
                await wait
        assert await host.client.get_status("nobody") is None
        with pytest.raises(InstanceNotFoundError):
            await host.client.get_history("nobody")


@pytest.mark.parametrize("operation", ["terminate", "suspend", "resume", "cancel"])
@pytest.mark.parametrize("end", ["Completed", "Failed", "Terminated", "Canceled"])
async def test_4_9_10_operations_on_finished_instances_are_refused(
    memory: Deployment, operation: str, end: str
) -> None:
    async with memory.host(waiter()) as host:
        name = {"Completed": "quick", "Failed": "failing"}.get(end, "flow")
        handle = await host.client.start(name, "text")
        if end == "Terminated":
            await handle.terminate()
        elif end == "Canceled":
            await handle.cancel()
        before = await handle.wait_for_completion()
        assert before.runtime_status == end
        history = await handle.history()
        with pytest.raises(InstanceStateError) as caught:
            await getattr(handle, operation)("reason")
        assert (caught.value.operation, caught.value.status) == (operation, end)
        await is_quiet(host)
        assert await handle.status() == before
        assert await handle.history() == history


@pytest.mark.parametrize("operation", ["terminate", "suspend", "resume", "cancel"])
async def test_4_9_10_operations_on_unknown_instances_are_refused(memory: Deployment, operation: str) -> None:
    async with memory.host(waiter()) as host:
        with pytest.raises(InstanceNotFoundError, match="nobody"):
            await getattr(host.client, operation)("nobody")
        assert await host.client.purge("nobody") is False
        assert await host.client.get_status("nobody") is None


async def test_4_9_2_a_start_of_an_unknown_orchestrator_is_refused(memory: Deployment) -> None:
    async with memory.host(waiter()) as host:
        with pytest.raises(UnknownFunctionError, match=r"'missing'.*failing, flow, quick"):
            await host.client.start("missing", instance_id="i")
        assert await host.client.get_status("i") is None


async def test_4_9_4_an_acknowledged_start_shows_in_the_status(memory: Deployment) -> None:
    async with memory.host(waiter()) as host:
        for number in range(50):
            handle = await host.client.start("flow", number)
            status = await handle.status()
            assert status is not None
            assert (status.runtime_status, status.input) == ("Running", number)


async def test_4_9_9_many_wait_for_one_instance(memory: Deployment) -> None:
    async with memory.host(waiter()) as host:
        handle = await host.client.start("flow", 1)
        waiting = [asyncio.create_task(handle.result()) for _ in range(20)]
        waiting[3].cancel()
        await is_quiet(host)
        await handle.raise_event("go", 2)
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in done].count(asyncio.CancelledError) == 1
        assert [one for one in done if not isinstance(one, BaseException)] == [[1, 2]] * 19
        await has_event(host, handle.instance_id, "ExecutionCompleted")
        await eventually(lambda: not host.engine.waiters._waiting)
