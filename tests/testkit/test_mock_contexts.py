"""One function alone: no hub, no event loop, canned results."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    ActivityContext,
    App,
    NonDeterminismError,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestratorDeadlockError,
    UsageError,
)
from durably.testing import MockActivityContext, MockOrchestrationContext, StuckError
from tests.testkit.programs import (
    MONTH,
    app,
    approval,
    approvals,
    chain,
    days,
    double,
    eternal,
    fan,
    month,
    parent,
    pay,
    payment,
)


def test_an_orchestrator_runs_on_canned_results() -> None:
    ctx = MockOrchestrationContext()
    ctx.mock_activity(double, runs=lambda number: number + 1)
    assert ctx.run(chain, 3) == 4
    assert [(call.name, call.input) for call in ctx.calls] == [("double", 1), ("double", 2), ("double", 3)]
    assert [entry.event_type for entry in ctx.history].count("TaskCompleted") == 3


def test_results_come_in_the_order_of_their_delays() -> None:
    ctx = MockOrchestrationContext()
    for number in range(3):
        ctx.mock_activity(double, returns=number, times=1, delay=10 - number)
    assert ctx.run(fan, 3) == [2, 1, 0]


def test_timers_take_virtual_time() -> None:
    ctx = MockOrchestrationContext()
    began = ctx.now
    assert ctx.run(month) == "2026-03-31"
    assert ctx.now - began == MONTH
    ctx = MockOrchestrationContext()
    assert ctx.run(days, 3) == 3
    assert ctx.custom_status == 2


def test_retries_follow_the_policy() -> None:
    ctx = MockOrchestrationContext()
    began = ctx.now
    ctx.mock_activity(pay, raises=ConnectionError("no line"), times=2)
    ctx.mock_activity(pay, returns="late", delay=timedelta(hours=2), times=1)
    ctx.mock_activity(pay, returns="paid")
    assert ctx.run(payment, 5) == "paid"
    assert ctx.now - began == timedelta(minutes=1 + 2 + 60 + 4)
    assert [call.attempt for call in ctx.calls] == [1, 2, 3, 4]


def test_a_failure_is_that_of_the_orchestrator() -> None:
    ctx = MockOrchestrationContext(instance_id="order-7")
    ctx.mock_activity(pay, raises=ConnectionError("no line"))
    with pytest.raises(OrchestrationFailedError, match=r"'order-7' ended as Failed.*no line") as failed:
        ctx.run(payment, 5)
    assert failed.value.details.is_caused_by(ConnectionError)


def test_events_arrive_when_the_test_says() -> None:
    ctx = MockOrchestrationContext()
    for number in range(3):
        ctx.raise_event("approved", number, after=3 - number)
    assert ctx.run(approvals, 3) == [2, 1, 0]
    late = MockOrchestrationContext()
    late.raise_event("Approved", "yes", after=11)
    assert late.run(approval, 10.0) == "expired"


def test_children_are_mocked_too() -> None:
    ctx = MockOrchestrationContext()
    child = ctx.mock_orchestrator(chain, returns=99)
    assert ctx.run(parent, 3) == 99
    assert child.calls[0].input == 3
    ctx = MockOrchestrationContext()
    ctx.mock_orchestrator("chain", raises=ValueError("too long"))
    with pytest.raises(OrchestrationFailedError, match="too long"):
        ctx.run(parent, 3)


def test_continue_as_new_ends_the_run() -> None:
    ctx = MockOrchestrationContext()
    assert ctx.run(eternal, 3) is None
    assert (ctx.continued, ctx.next_input) == (True, 4)


def test_a_cancellation_can_be_cleaned_up_after() -> None:
    cleaned: list[str] = []
    other = App()

    @other.activity(name="undo it")
    async def undo() -> None:
        raise NotImplementedError

    async def careful(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_external_event("never")
        finally:
            await ctx.call_activity(undo)
            if not ctx.is_replaying:
                cleaned.append("done")

    ctx = MockOrchestrationContext(app=other)
    ctx.mock_activity(undo)
    ctx.cancel("enough", after=5)
    with pytest.raises(OrchestrationFailedError, match="Canceled"):
        ctx.run(careful)
    assert cleaned == ["done"]
    assert [call.name for call in ctx.calls] == ["undo it"]


def test_generators_and_identity() -> None:
    def generator(ctx: OrchestrationContext, number: int) -> Generator[Any, Any, list[Any]]:
        doubled = yield ctx.call_activity("double", number)
        return [doubled, ctx.instance_id, ctx.parent_instance_id, ctx.version, ctx.tags]

    ctx = MockOrchestrationContext(parent_instance_id="above", version="2", tags={"a": "b"})
    ctx.mock_activity("double", returns=4)
    assert ctx.run(generator, 2) == [4, "test", "above", "2", {"a": "b"}]


def test_what_is_not_mocked_is_not_run() -> None:
    with pytest.raises(
        UsageError, match=r"called activity 'double' \(#0, attempt 1\).*mock_activity\(double"
    ):
        MockOrchestrationContext(app=app).run(chain, 1)
    with pytest.raises(UsageError, match=r"mock_orchestrator\(chain"):
        MockOrchestrationContext().run(parent, 1)


def test_a_wait_for_nothing_is_told() -> None:
    with pytest.raises(StuckError, match="Open: wait for external event 'Approved'"):
        MockOrchestrationContext().run(approval)

    async def deaf(ctx: OrchestrationContext) -> None:
        await asyncio.Event().wait()

    with pytest.raises(OrchestrationFailedError) as failed:
        MockOrchestrationContext().run(deaf)
    assert failed.value.details.is_caused_by(OrchestratorDeadlockError)


def test_code_that_is_not_deterministic_is_found() -> None:
    runs: list[int] = []

    async def moody(ctx: OrchestrationContext) -> None:
        runs.append(1)
        await ctx.create_timer(1)
        if len(runs) == 1:
            await ctx.create_timer(1)

    with pytest.raises(NonDeterminismError):
        MockOrchestrationContext().run(moody)


def test_a_mock_has_no_event_loop_here() -> None:
    async def slow(number: int) -> int:
        await asyncio.sleep(0)
        return number

    ctx = MockOrchestrationContext()
    ctx.mock_activity(double, runs=slow)
    with pytest.raises(UsageError, match="use DurableEnvironment"):
        ctx.run(chain, 1)
    with pytest.raises(UsageError, match="before"):
        ctx.run(chain, 1)


def test_an_activity_is_a_function() -> None:
    def work(number: int, ctx: ActivityContext) -> str:
        ctx.heartbeat(number)
        ctx.heartbeat("more")
        return f"{ctx.instance_id} {ctx.attempt} {ctx.cancelled}"

    ctx = MockActivityContext(instance_id="order-7", attempt=2)
    assert work(1, ctx) == "order-7 2 False"
    assert ctx.heartbeats == [1, "more"]
    ctx.cancel()
    assert work(1, ctx) == "order-7 2 True"
    assert ctx.idempotency_key == MockActivityContext(instance_id="order-7").idempotency_key
