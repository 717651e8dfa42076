"""Which calls led to a failure, as far as its exceptions tell."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably.core.events import ExecutionFailed
from durably.errors import TaskFailedError
from durably.program.context import OrchestrationContext
from tests.unit.program.harness import Play


async def plain(ctx: OrchestrationContext) -> None:
    await ctx.call_activity("a")


async def caused(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity("a")
    except TaskFailedError as error:
        raise ValueError("wrapped") from error


async def in_context(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity("a")
    except TaskFailedError:
        raise ValueError("meanwhile")  # noqa: B904 - that is the point


async def hidden(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity("a")
    except TaskFailedError:
        raise ValueError("nothing to see") from None


async def grouped(ctx: OrchestrationContext) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(plain(ctx))
        group.create_task(plain(ctx))


async def compensated(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity("a")
    except TaskFailedError:
        await ctx.call_activity("undo")
        raise


async def unrelated(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity("a")
    except TaskFailedError:
        pass
    raise ValueError("for another reason")


async def made_up(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity("a")
    except TaskFailedError as error:
        raise TaskFailedError(error.details) from None


def tasks_of(play: Play) -> tuple[int, ...]:
    outcome = play.outcome
    assert isinstance(outcome, ExecutionFailed)
    return outcome.tasks


@pytest.mark.parametrize(
    ("fn", "tasks"),
    [(plain, (0,)), (caused, (0,)), (in_context, (0,)), (hidden, (0,)), (unrelated, ()), (made_up, (0,))],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_calls_among_the_causes_are_recorded(fn: Any, tasks: tuple[int, ...]) -> None:
    play = Play(fn)
    play.fail(0)
    assert tasks_of(play) == tasks


def test_a_group_names_the_calls_of_all_its_members() -> None:
    play = Play(grouped)
    play.fail(1)
    assert tasks_of(play) == (1,)


def test_a_compensation_that_fails_too_is_a_cause_beside_the_first_one() -> None:
    play = Play(compensated)
    play.fail(0)
    play.fail(1)
    assert tasks_of(play) == (0, 1)
