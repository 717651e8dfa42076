"""Canned answers in the place of activities."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from durably import ActivityContext, App, OrchestrationContext, OrchestrationFailedError, UsageError
from tests.testkit.programs import app, double, pay, payment, simple


class Order(msgspec.Struct):
    """An input that is typed by annotation."""

    total: int


async def test_a_mock_answers_for_ever(durable_env: Any) -> None:
    async with durable_env(app) as env:
        mock = env.mock_activity(double, returns=7)
        assert [await env.run(simple, 1), await env.run(simple, 2)] == [7, 7]
        assert [call.input for call in mock.calls] == [1, 2]
        assert env.calls(double) == env.calls() == mock.calls


async def test_mocks_answer_one_after_the_other_and_then_the_activity(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.mock_activity(double, returns=10, times=2)
        env.mock_activity(double, runs=lambda number: number + 100, times=1)
        assert [await env.run(simple, 1) for _ in range(4)] == [10, 10, 101, 2]
        assert len(env.calls(double)) == 4


async def test_a_later_mock_takes_the_place_of_one_without_end(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.mock_activity("double", returns=1)
        env.mock_activity(double, returns=2)
        assert await env.run(simple, 0) == 2


async def test_a_failure_is_retried_as_the_policy_says(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.mock_activity(pay, raises=ConnectionError, times=3)
        env.mock_activity(pay, returns="paid")
        began = env.now
        assert await env.run(payment, 5) == "paid"
        assert env.now - began == timedelta(minutes=1 + 2 + 4)
        assert [call.attempt for call in env.calls(pay)] == [1, 2, 3, 4]


async def test_the_failure_reaches_the_orchestrator_as_itself(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.mock_activity(pay, raises=ConnectionError("no line"))
        with pytest.raises(OrchestrationFailedError, match="no line") as failed:
            await env.run(payment, 5)
        assert failed.value.details.is_caused_by(ConnectionError)


async def test_a_mock_that_takes_too_long_times_out(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.mock_activity(pay, returns="late", delay=timedelta(hours=2), times=1)
        env.mock_activity(pay, returns="in time", delay=60)
        began = env.now
        assert await env.run(payment, 5) == "in time"
        assert env.now - began == timedelta(hours=1, minutes=1 + 1)


async def test_runs_may_be_a_coroutine_and_want_the_context(durable_env: Any) -> None:
    async def answer(number: int, ctx: ActivityContext) -> str:
        return f"{number} for {ctx.instance_id}"

    async with durable_env(app) as env:
        env.mock_activity(pay, runs=answer)
        assert await env.run(payment, 5, instance_id="order-7") == "5 for order-7"
        env.mock_activity(pay, runs=lambda: None)
        assert await env.run(payment, 5) is None


async def test_inputs_have_their_types(durable_env: Any) -> None:
    typed = App()

    @typed.activity
    async def price(order: Order) -> int:
        raise NotImplementedError

    @typed.orchestrator
    async def buy(ctx: OrchestrationContext, order: Order) -> int:
        return await ctx.call_activity(price, order)

    async with durable_env(typed) as env:
        mock = env.mock_activity(price, runs=lambda order: order.total)
        assert await env.run(buy, Order(3)) == 3
        assert mock.calls[0].input == env.calls(price)[0].input == Order(3)
        env.mock_activity(price, returns="three")
        with pytest.raises(OrchestrationFailedError, match="Result of 'price'"):
            await env.run(buy, Order(3))


async def test_a_function_that_nobody_registered_may_be_mocked(durable_env: Any) -> None:
    other = App()

    @other.orchestrator
    async def caller(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity("elsewhere")

    async with durable_env(other) as env:
        env.mock_activity("elsewhere", returns="there")
        assert await env.run(caller) == "there"


async def test_a_mock_has_one_answer(durable_env: Any) -> None:
    env = durable_env(app)
    with pytest.raises(UsageError, match="several answers"):
        env.mock_activity(double, returns=1, raises=ValueError)
    with pytest.raises(UsageError, match="times"):
        env.mock_activity(double, times=0)
    env.mock_activity(double)
    async with env:
        assert await env.run(simple, 2) is None
