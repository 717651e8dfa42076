"""FEATURES 4.3: activities and retries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    ActivityContext,
    App,
    AppHost,
    Client,
    FailureDetails,
    InstanceStatus,
    NonRetryableError,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
    TaskTimeoutError,
    UsageError,
)
from tests.support.clock import START, ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet


class Flaky:
    """An app whose activity fails as often as asked, and notes when it ran."""

    def __init__(
        self,
        policy: Callable[[], RetryPolicy],
        failures: int,
        clock: ManualClock,
        error: Exception | None = None,
    ) -> None:
        self.app = App()
        self.at: list[float] = []
        self.contexts: list[ActivityContext] = []

        @self.app.activity
        async def flaky(context: ActivityContext) -> str:
            self.at.append((clock.moment - START).total_seconds())
            self.contexts.append(context)
            if len(self.at) <= failures:
                raise error or ValueError(f"attempt {len(self.at)}")
            return f"attempt {len(self.at)}"

        @self.app.orchestrator
        async def flow(ctx: OrchestrationContext) -> str:
            return await ctx.call_activity(flaky, retry=policy())

    async def run(self, host: AppHost, clock: ManualClock) -> InstanceStatus:
        """Run to the end, jumping from delay to delay."""
        await host.client.start("flow", instance_id="i")
        return await self.to_the_end(host.client, clock)

    async def to_the_end(self, client: Client, clock: ManualClock) -> InstanceStatus:
        failures = 0
        while True:
            failures += 1
            status = await eventually(
                lambda count=failures: self._at_rest(client, count), "the next delay, or the end"
            )
            if isinstance(status, InstanceStatus):
                return status
            clock.advance(status)

    async def _at_rest(self, client: Client, failures: int) -> InstanceStatus | float | None:
        status = await client.get_status("i")
        if status is not None and status.runtime_status.is_terminal:
            return status
        history = await client.get_history("i")
        newest = history[-1]
        if sum(entry.event_type == "TaskAttemptFailed" for entry in history) == failures:
            if newest.event_type != "TaskAttemptFailed":
                return None  # it has ended since the status was read
            due = newest.details["retry_at"]
            return (type(newest.timestamp).fromisoformat(due) - newest.timestamp).total_seconds()
        return None


async def test_4_3_1_an_activity_that_was_running_at_a_crash_runs_again_under_its_id(
    hub: Deployment,
) -> None:
    calls: list[tuple[int, int, int, str]] = []
    gate = asyncio.Event()
    app = App()

    @app.activity
    async def work(value: str, context: ActivityContext) -> str:
        calls.append((context.task_id, context.attempt, context.delivery, context.idempotency_key))
        await gate.wait()
        return value

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        ctx.create_timer(3600)
        return await ctx.call_activity(work, "done")

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    await eventually(lambda: calls)
    host = await hub.recover(host, app)
    await eventually(lambda: len(calls) == 2)
    gate.set()
    assert (await host.client.wait_for_completion("i")).output == "done"
    (first, again) = calls
    assert first[:3] == (1, 1, 1)
    assert again[:3] == (1, 1, 2)
    assert first[3] == again[3]
    assert first[3].startswith("i:")
    assert first[3].endswith(":1")


async def test_4_3_2_each_scheduled_activity_has_one_result_although_it_ran_twice(hub: Deployment) -> None:
    results: list[str] = []
    ran: list[int] = []
    hold = asyncio.Event()
    app = App()

    @app.activity
    async def work(value: str) -> str:
        ran.append(len(ran))
        if value == "slow" and len(ran) < 4:
            await hold.wait()
        return value

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[str]:
        slow, quick = ctx.call_activity(work, "slow"), ctx.call_activity(work, "quick")
        results.append(await quick)
        results.append(await slow)
        return [await quick, await slow]

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    await has_event(host, "i", "TaskCompleted")
    host = await hub.recover(host, app)
    hold.set()
    assert (await host.client.wait_for_completion("i")).output == ["quick", "slow"]
    completed = [
        entry.task_id for entry in await host.client.get_history("i") if entry.event_type == "TaskCompleted"
    ]
    assert completed == [1, 0]
    assert len(ran) == 3  # slow, quick, and slow again; quick was committed


async def test_4_3_2_a_late_result_of_an_attempt_that_timed_out_is_ignored(
    memory: Deployment, clock: ManualClock
) -> None:
    late = asyncio.Event()
    attempts: list[int] = []
    app = App()

    @app.activity
    async def work(context: ActivityContext) -> str:
        attempts.append(context.attempt)
        if context.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await late.wait()
        return f"attempt {context.attempt}"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[str]:
        policy = RetryPolicy(timedelta(seconds=10), 3)
        first = await ctx.call_activity(work, retry=policy, timeout=5)
        return [first, await ctx.wait_for_external_event("go", str)]

    async with memory.host(app, clock=clock) as host:
        handle = await host.client.start(flow)
        await eventually(lambda: attempts)
        clock.advance(5)
        await has_event(host, handle.instance_id, "TaskAttemptFailed")
        clock.advance(10)
        await has_event(host, handle.instance_id, "TaskCompleted")
        late.set()
        await is_quiet(host)
        await handle.raise_event("go", "on")
        assert await handle.result() == ["attempt 2", "on"]


async def test_4_3_3_an_unknown_activity_fails_its_task_and_names_the_function(memory: Deployment) -> None:
    app = App()
    app.activity(name="known")(lambda value: value)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[Any]:
        try:
            await ctx.call_activity("missing", 1)
        except TaskFailedError as error:
            return [
                error.task_name,
                error.details.type,
                error.details.message,
                await ctx.call_activity("known", 2),
            ]
        return []

    async with memory.host(app) as host:
        name, kind, text, after = await (await host.client.start(flow)).result()
        assert (name, kind, after) == ("missing", "UnknownFunctionError", 2)
        assert "'missing'" in text
        assert "known" in text


@pytest.mark.parametrize(("attempts", "ran"), [(1, 1), (2, 2), (3, 3)])
async def test_4_3_4_the_number_of_attempts_counts_the_first_one(
    memory: Deployment, clock: ManualClock, attempts: int, ran: int
) -> None:
    flaky = Flaky(lambda: RetryPolicy(timedelta(seconds=1), attempts), 99, clock)
    async with memory.host(flaky.app, clock=clock) as host:
        done = await flaky.run(host, clock)
    assert done.runtime_status == "Failed"
    assert len(flaky.at) == ran
    assert [context.attempt for context in flaky.contexts] == list(range(1, ran + 1))
    assert len({context.idempotency_key for context in flaky.contexts}) == 1
    assert len({context.task_id for context in flaky.contexts}) == 1


@pytest.mark.parametrize("attempts", [0, -1, True, 1.5])
def test_4_3_4_fewer_than_one_attempt_is_refused(attempts: Any) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        RetryPolicy(timedelta(seconds=1), attempts)


async def test_4_3_5_delays_grow_by_the_coefficient_up_to_the_limit(
    hub: Deployment, clock: ManualClock
) -> None:
    def policy() -> RetryPolicy:
        return RetryPolicy(timedelta(seconds=10), 6, 2.0, timedelta(seconds=60))

    flaky = Flaky(policy, 5, clock)
    async with hub.host(flaky.app, clock=clock) as host:
        done = await flaky.run(host, clock)
    assert done.output == "attempt 6"
    assert flaky.at == [0, 10, 30, 70, 130, 190]  # delays 10, 20, 40, 60 (not 80), 60 (not 160)


async def test_4_3_6_retry_timeout_is_measured_on_the_orchestration_clock(
    hub: Deployment, clock: ManualClock
) -> None:
    def policy() -> RetryPolicy:
        return RetryPolicy(timedelta(seconds=10), 100, retry_timeout=timedelta(seconds=35))

    flaky = Flaky(policy, 99, clock)
    async with hub.host(flaky.app, clock=clock) as host:
        done = await flaky.run(host, clock)
    assert done.runtime_status == "Failed"
    assert flaky.at == [0, 10, 20, 30]  # one at 40 would begin later than 35 s after the first


async def test_4_3_6_a_replay_on_a_late_day_does_not_stop_the_retries(
    hub: Deployment, clock: ManualClock
) -> None:
    """What was decided within the time-out stays decided, however late the code runs through it again."""
    gate = asyncio.Event()
    attempts: list[int] = []
    app = App()

    @app.activity
    async def work(context: ActivityContext) -> str:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise ValueError
        await gate.wait()
        return "done"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(
            work, retry=RetryPolicy(timedelta(seconds=10), 9, retry_timeout=timedelta(seconds=35))
        )

    host = await hub.start(app, clock=clock)
    await host.client.start(flow, instance_id="i")
    for count in (1, 2):
        await has_event(host, "i", "TaskAttemptFailed", count)
        clock.advance(10)
    await eventually(lambda: attempts == [1, 2, 3])
    await hub.crash(host)
    clock.advance(timedelta(days=30))
    host = await hub.start(app, clock=clock)
    await eventually(lambda: attempts == [1, 2, 3, 3])
    gate.set()
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.blocked) == ("done", None)


async def test_4_3_7_the_predicate_decides_per_failure(memory: Deployment, clock: ManualClock) -> None:
    asked: list[str] = []

    def handle(failure: FailureDetails) -> bool:
        asked.append(f"{failure.type}: {failure.message}")
        return failure.message != "attempt 2"

    flaky = Flaky(lambda: RetryPolicy(timedelta(seconds=1), 9, handle=handle), 9, clock)
    async with memory.host(flaky.app, clock=clock) as host:
        done = await flaky.run(host, clock)
    assert done.failure is not None
    assert done.failure.is_caused_by(ValueError)
    assert "attempt 2" in done.failure.message
    assert len(flaky.at) == 2
    assert asked == ["ValueError: attempt 1", "ValueError: attempt 2"]


async def test_4_3_7_a_predicate_that_raises_does_not_hide_the_failure(
    memory: Deployment, clock: ManualClock
) -> None:
    def handle(failure: FailureDetails) -> bool:
        raise KeyError("of the predicate")

    flaky = Flaky(lambda: RetryPolicy(timedelta(seconds=1), 9, handle=handle), 9, clock)
    async with memory.host(flaky.app, clock=clock) as host:
        done = await flaky.run(host, clock)
    assert done.failure is not None
    assert done.failure.inner is not None
    assert (done.failure.inner.type, done.failure.inner.message) == ("ValueError", "attempt 1")
    assert len(flaky.at) == 1


async def test_4_3_7_a_predicate_that_declined_has_declined_on_replay_too(
    hub: Deployment, clock: ManualClock
) -> None:
    app = App()
    ran: list[int] = []

    @app.activity
    async def work() -> None:
        ran.append(1)
        raise ValueError("no")

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[str]:
        policy = RetryPolicy(timedelta(seconds=1), 5, handle=lambda failure: failure.type != "ValueError")
        try:
            await ctx.call_activity(work, retry=policy)
        except TaskFailedError as error:
            return [error.details.message, await ctx.wait_for_external_event("go", str)]
        return []

    host = await hub.start(app, clock=clock)
    await host.client.start(flow, instance_id="i")
    await has_event(host, "i", "EventAwaited")
    host = await hub.recover(host, app, clock=clock)
    clock.advance(3600)
    await is_quiet(host)
    await host.client.raise_event("i", "go", "on")
    assert (await host.client.wait_for_completion("i")).output == ["no", "on"]
    assert ran == [1]


async def test_4_3_8_a_non_retryable_failure_is_final(memory: Deployment, clock: ManualClock) -> None:
    class Refused(NonRetryableError):
        pass

    flaky = Flaky(lambda: RetryPolicy(timedelta(seconds=1), 9), 9, clock, Refused("never"))
    async with memory.host(flaky.app, clock=clock) as host:
        done = await flaky.run(host, clock)
    assert len(flaky.at) == 1
    assert done.failure is not None
    assert done.failure.is_caused_by("NonRetryableError")


async def test_4_3_9_a_restart_during_the_delay_does_not_reset_it(
    hub: Deployment, clock: ManualClock
) -> None:
    flaky = Flaky(lambda: RetryPolicy(timedelta(seconds=100), 2), 1, clock)
    host = await hub.start(flaky.app, clock=clock)
    await host.client.start("flow", instance_id="i")
    await has_event(host, "i", "TaskAttemptFailed")
    clock.advance(60)
    host = await hub.recover(host, flaky.app, clock=clock)
    clock.advance(39)
    await is_quiet(host)
    assert flaky.at == [0]
    clock.advance(1)
    assert (await host.client.wait_for_completion("i")).output == "attempt 2"
    assert flaky.at == [0, 100]


async def test_4_3_9_a_delay_that_ended_during_downtime_is_over_at_the_start(
    hub: Deployment, clock: ManualClock
) -> None:
    flaky = Flaky(lambda: RetryPolicy(timedelta(seconds=100), 2), 1, clock)
    host = await hub.start(flaky.app, clock=clock)
    await host.client.start("flow", instance_id="i")
    await has_event(host, "i", "TaskAttemptFailed")
    await hub.crash(host)
    clock.advance(500)
    host = await hub.start(flaky.app, clock=clock)
    assert (await host.client.wait_for_completion("i")).output == "attempt 2"
    assert flaky.at == [0, 500]


async def test_4_3_10_nothing_is_scheduled_after_the_last_attempt(
    memory: Deployment, clock: ManualClock
) -> None:
    app = App()

    @app.activity
    async def work() -> None:
        raise ValueError("no")

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(work, retry=RetryPolicy(timedelta(seconds=10), 2))
        except TaskFailedError:
            return await ctx.wait_for_external_event("go", str)
        return ""

    async with memory.host(app, clock=clock) as host:
        handle = await host.client.start(flow)
        await has_event(host, handle.instance_id, "TaskAttemptFailed")
        clock.advance(10)
        await has_event(host, handle.instance_id, "EventAwaited")
        history = await handle.history()
        types = [entry.event_type for entry in history]
        assert types.count("TaskAttemptFailed") == 1
        assert types.count("TaskAttemptStarted") == 1
        assert types.count("TaskFailed") == 1
        clock.advance(3600)
        await is_quiet(host)
        assert await handle.history() == history
        await handle.raise_event("go", "on")
        assert await handle.result() == "on"


async def test_4_3_11_the_failure_has_type_message_stack_and_cause_and_matches_by_base_class(
    memory: Deployment,
) -> None:
    class PaymentError(Exception):
        pass

    class CardRefusedError(PaymentError):
        pass

    app = App()
    seen: list[FailureDetails] = []

    @app.activity
    async def charge() -> None:
        try:
            {}["missing"]
        except KeyError as error:
            raise CardRefusedError("card 42") from error

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(charge)
        except TaskFailedError as error:
            seen.append(error.details)
        return await ctx.wait_for_external_event("go", str)

    host = await memory.start(app)
    await host.client.start(flow, instance_id="i")
    await has_event(host, "i", "EventAwaited")
    host = await memory.recover(host, app)
    await host.client.raise_event("i", "go")
    await host.client.wait_for_completion("i")
    live, replayed = seen
    assert live == replayed
    assert (live.type, live.message) == ("CardRefusedError", "card 42")
    assert live.stack_trace is not None
    assert "in charge" in live.stack_trace
    assert 'raise CardRefusedError("card 42") from error' in live.stack_trace
    assert live.inner is not None
    assert (live.inner.type, live.inner.message) == ("KeyError", "'missing'")
    for kind in (CardRefusedError, PaymentError, Exception, KeyError, LookupError, "PaymentError"):
        assert live.is_caused_by(kind)
    for kind in (ValueError, "Card", OSError):
        assert not live.is_caused_by(kind)


async def test_4_3_11_a_timed_out_attempt_is_a_timeout_error(memory: Deployment, clock: ManualClock) -> None:
    app = App()
    running = asyncio.Event()

    @app.activity
    async def stuck() -> None:
        running.set()
        await asyncio.Event().wait()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[Any]:
        try:
            await ctx.call_activity(stuck, timeout=timedelta(seconds=30))
        except TimeoutError as error:
            return [isinstance(error, TaskTimeoutError), error.details.is_caused_by(TimeoutError), str(error)]
        return []

    async with memory.host(app, clock=clock) as host:
        handle = await host.client.start(flow)
        await running.wait()
        clock.advance(29.9)
        await is_quiet(host)
        status = await handle.status()
        assert status is not None
        assert status.runtime_status == "Running"
        clock.advance(0.1)
        typed, caused, text = await handle.result()
        assert (typed, caused) == (True, True)
        assert "30 s" in text


async def test_4_3_12_a_large_input_and_result_round_trip_unchanged(hub: Deployment) -> None:
    app = App()

    @app.activity
    async def reverse(text: str) -> str:
        return text[::-1]

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, text: str) -> str:
        return await ctx.call_activity(reverse, text)

    large = "häß\u0000\U0001f600" * 100_000
    host = await hub.start(app)
    await host.client.start(flow, large, instance_id="i")
    assert await host.client.handle("i", str).result() == large[::-1]
    host = await hub.recover(host, app)
    status = await host.client.get_status("i")
    assert status is not None
    assert status.input == large
    assert status.output == large[::-1]


async def test_4_3_13_a_result_that_is_no_json_fails_with_its_type_named(memory: Deployment) -> None:
    class Socket:
        pass

    app = App()

    @app.activity
    async def work() -> Any:
        return Socket()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(work)

    async with memory.host(app) as host:
        done = await (await host.client.start(flow)).wait_for_completion()
    assert done.failure is not None
    assert done.failure.inner is not None
    assert done.failure.inner.type == "PayloadError"
    assert "Socket" in done.failure.inner.message
    assert "work" in done.failure.inner.message


@dataclass
class Empty:
    things: list[int]


FALSY: list[Any] = [0, "", [], {}, False, None, 0.0]


async def test_4_3_14_falsy_results_are_preserved(memory: Deployment) -> None:
    app = App()

    @app.activity
    async def value(place: int) -> Any:
        return FALSY[place]

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[Any]:
        return [await ctx.call_activity(value, place) for place in range(len(FALSY))]

    async with memory.host(app) as host:
        found = await (await host.client.start(flow)).result()
    assert [(type(one), one) for one in found] == [(type(one), one) for one in FALSY]


@pytest.mark.parametrize("falsy", FALSY, ids=repr)
async def test_4_3_14_falsy_inputs_and_outputs_of_instances_are_preserved(
    memory: Deployment, falsy: Any
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, given: Any) -> Any:
        return given

    async with memory.host(app) as host:
        done = await (await host.client.start(flow, falsy)).wait_for_completion()
    assert (type(done.input), done.input) == (type(falsy), falsy)
    assert (type(done.output), done.output) == (type(falsy), falsy)
