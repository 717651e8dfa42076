"""Eviction at any point: no action, no log, no warning, no garbage."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import sys
import warnings
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest

from durably.errors import InstanceEvicted, TaskFailedError
from durably.program.context import OrchestrationContext
from durably.program.loop import ClosedLoop
from durably.program.run import ProgramOptions
from tests.unit.program.corpus import CORPUS
from tests.unit.program.harness import Play, close_all

trail: list[Any] = []


@pytest.fixture
def silence(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Fails on every log record, warning and unraisable exception, also of the garbage collector."""
    trail.clear()
    noise: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", noise.append)
    gc.collect()  # what tests before have left is not ours
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield trail
        gc.collect()
    assert [str(one.message) for one in caught] == []
    assert noise == []
    records = caplog.get_records("call") + caplog.records
    assert [
        one.getMessage() for one in records if (one.name, one.levelno) != ("asyncio", logging.DEBUG)
    ] == []


async def cleans_up(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity("a")
    finally:
        trail.append("finally")
        await ctx.call_activity("clean")
        trail.append("never")


async def cleans_up_with_asyncio(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity("a")
    finally:
        for act in (
            lambda: asyncio.sleep(1),
            lambda: asyncio.sleep(0),
            lambda: asyncio.gather(asyncio.sleep(0)),
        ):
            try:
                await act()
            except InstanceEvicted:
                trail.append("evicted")


async def awaits_what_it_has(ctx: OrchestrationContext) -> None:
    other = ctx.call_activity("b")
    try:
        await ctx.call_activity("a")
    finally:
        try:
            await other
        finally:
            trail.append("unwound")


async def catches_everything(ctx: OrchestrationContext) -> None:
    while True:
        try:
            await ctx.call_activity("a")
        except BaseException:
            if len(trail) > 20:
                raise
            trail.append("again")


async def in_a_group(ctx: OrchestrationContext) -> None:
    async def child(name: str) -> None:
        try:
            await ctx.call_activity(name)
        finally:
            trail.append(name)
            ctx.set_custom_status("cleaning")

    async with asyncio.TaskGroup() as group:
        group.create_task(child("x"))
        group.create_task(child("y"))
        await ctx.call_activity("z")


async def in_a_timeout(ctx: OrchestrationContext) -> None:
    async with asyncio.timeout(5):
        await asyncio.wait_for(asyncio.shield(ctx.call_activity("a")), 3)


async def in_a_gather(ctx: OrchestrationContext) -> None:
    await asyncio.gather(*(cleans_up(ctx) for _ in range(3)), ctx.when_any([ctx.create_timer(5)]))


async def with_locks(ctx: OrchestrationContext) -> None:
    lock, condition, queue = asyncio.Lock(), asyncio.Condition(), asyncio.Queue[int]()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    async def get() -> None:
        await queue.get()

    async with lock:
        await asyncio.gather(wait(), get(), lock.acquire(), ctx.call_activity("a"))


async def with_coroutines_that_never_ran(ctx: OrchestrationContext) -> None:
    one = asyncio.sleep(1)
    many = [cleans_up(ctx), (cleans_up(ctx), {"deep": [in_a_group(ctx)]})]
    for coro in [asyncio.sleep(0), cleans_up(ctx), in_a_gather(ctx)]:
        await coro
    await one
    assert many


async def with_a_task_that_never_started(ctx: OrchestrationContext) -> str:
    asyncio.create_task(cleans_up(ctx))  # noqa: RUF006 - on purpose
    return "done"


async def with_async_generators(ctx: OrchestrationContext) -> None:
    async def numbers(name: str) -> AsyncGenerator[int]:
        try:
            yield 1
            await ctx.call_activity(name)
            yield 2
        finally:
            trail.append(name)
            await ctx.call_activity("clean")

    left = numbers("left")
    async for _ in left:
        break
    async for _ in numbers("dropped"):
        break
    async for _ in numbers("active"):
        pass


async def with_context_managers(ctx: OrchestrationContext) -> None:
    @contextlib.asynccontextmanager
    async def resource(name: str) -> AsyncGenerator[str]:
        try:
            yield name
        finally:
            trail.append(name)
            await asyncio.sleep(1)

    async with resource("outer"), resource("inner"), contextlib.AsyncExitStack() as stack:
        stack.callback(trail.append, "stack")
        await ctx.wait_for_external_event("never")


async def with_a_failure_nobody_awaits(ctx: OrchestrationContext) -> None:
    async def fails() -> None:
        raise ValueError("forgotten")

    keep = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await ctx.call_activity("a")
    assert keep


async def logs_at_the_end(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity("a")
    finally:
        ctx.logger.error("cleaning up")


def generator_that_yields_on(ctx: OrchestrationContext) -> Any:
    other = ctx.call_activity("b")
    try:
        yield ctx.call_activity("a")
    finally:
        trail.append("finally")
        yield other


async def as_completed(ctx: OrchestrationContext) -> None:
    async for _ in ctx.as_completed([ctx.call_activity("a"), cleans_up(ctx)]):
        pass


async def mapping(ctx: OrchestrationContext) -> None:
    await ctx.map("a", range(10), max_in_flight=3)


EVICTED: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    fn.__name__: (fn, expected)
    for fn, expected in (
        (cleans_up, ["finally"]),
        (cleans_up_with_asyncio, ["evicted"] * 3),
        (awaits_what_it_has, ["unwound"]),
        (catches_everything, ["again"] * 21),
        (in_a_group, ["x", "y"]),
        (in_a_timeout, []),
        (in_a_gather, ["finally"] * 3),
        (with_locks, []),
        (with_coroutines_that_never_ran, ["finally"]),
        (with_a_task_that_never_started, []),
        (with_async_generators, ["active", "left", "dropped"]),
        (with_context_managers, ["stack", "inner", "outer"]),
        (with_a_failure_nobody_awaits, []),
        (logs_at_the_end, []),
        (generator_that_yields_on, ["finally"]),
        (as_completed, ["finally"]),
        (mapping, []),
    )
}


@pytest.mark.parametrize("name", EVICTED)
def test_an_eviction_leaves_no_action_log_or_warning(name: str, silence: list[Any]) -> None:
    fn, expected = EVICTED[name]
    play = Play(fn, shadow=False)
    play.run.close()
    assert silence == expected
    assert list(play.run._decisions.made) == []
    assert play.run._decisions.open == {}
    play.run.close()


@pytest.mark.parametrize("name", EVICTED)
def test_an_eviction_leaves_nothing_to_the_garbage_collector(name: str, silence: list[Any]) -> None:
    Play(EVICTED[name][0], shadow=False).run.close()  # what is made once
    close_all()
    gc.collect()
    gc.disable()
    try:
        Play(EVICTED[name][0], shadow=False).run.close()
        close_all()
        assert gc.collect() == 0
    finally:
        gc.enable()


async def caught(ctx: OrchestrationContext) -> str:
    task = ctx.call_activity("a")
    try:
        await task
    except TaskFailedError as error:
        kept = error
    await ctx.create_timer(1)
    return str(kept)


async def failing(ctx: OrchestrationContext) -> None:
    task = asyncio.create_task(caught(ctx))
    other = ctx.call_activity("b")
    await asyncio.gather(task, other)


async def limited(ctx: OrchestrationContext) -> None:
    while True:
        task = ctx.call_activity("a")
        assert not task.done()


@pytest.mark.parametrize(
    ("fn", "events"),
    [
        (caught, [("fail", 0), ("fire", 1)]),
        (failing, [("fail", 1), ("fire", 2), ("fail", 0)]),
        (failing, [("fail", 0)]),
        (limited, []),
    ],
)
def test_an_end_leaves_nothing_to_the_garbage_collector(
    fn: Callable[..., Any], events: list[tuple[str, int]], silence: list[Any]
) -> None:
    def once() -> None:
        play = Play(fn, shadow=False, options=ProgramOptions(actions_max=10))
        for what, seq in events:
            getattr(play, what)(seq)
        assert play.outcome is not None
        close_all()

    once()
    gc.collect()
    gc.disable()
    try:
        once()
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("name", CORPUS)
def test_an_eviction_after_any_event_is_silent(name: str, silence: list[Any]) -> None:
    fn, input, script = CORPUS[name]

    class Evicting(Play):
        def send(self, *args: Any, **kwargs: Any) -> Any:
            made = super().send(*args, **kwargs)
            run = self.replayed()
            run.close()
            assert list(run._decisions.made) == []
            return made

    script(Evicting(fn, input, shadow=False))


def test_an_eviction_on_a_host_loop_leaves_it_alone(silence: list[Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        play = Play(in_a_group, shadow=False)
        before = asyncio.all_tasks()
        play.run.close()
        assert asyncio.get_running_loop() is loop
        assert asyncio.all_tasks() == before
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert silence == ["x", "y"]


def test_after_the_teardown_every_call_raises() -> None:
    seen: list[Any] = []

    async def program(ctx: OrchestrationContext) -> None:
        seen.extend((ctx, asyncio.get_running_loop()))
        await ctx.call_activity("a")

    play = Play(program, shadow=False)
    play.run.close()
    ctx, loop = seen
    coro = asyncio.sleep(0)
    for call in (
        lambda: ctx.call_activity("a"),
        lambda: ctx.call_sub_orchestrator("a"),
        lambda: ctx.start_orchestration("a"),
        lambda: ctx.wait_for_external_event("a"),
        lambda: ctx.send_event("a", "b"),
        lambda: ctx.create_timer(1),
        lambda: ctx.call_http("GET", "https://a.test/"),
        lambda: ctx.when_all([]),
        lambda: ctx.map("a", []),
        lambda: ctx.continue_as_new(1),
        lambda: ctx.set_custom_status(1),
        lambda: ctx.current_utc_datetime,
        ctx.new_uuid,
        lambda: ctx.random,
        loop.time,
        lambda: loop.call_soon(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        loop.create_future,
        lambda: loop.create_task(coro),
        lambda: loop.run_in_executor(None, print),
        loop.is_running,
    ):
        with pytest.raises(InstanceEvicted):
            call()
    assert loop.is_closed() is True
    assert type(loop) is ClosedLoop
    assert ctx.instance_id == "play"


def test_context_variables_may_be_reset_in_a_teardown(silence: list[Any]) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def child(ctx: OrchestrationContext) -> None:
        token = variable.set(1)
        try:
            await ctx.call_activity("a")
        finally:
            variable.reset(token)
            task = asyncio.current_task()
            trail.append(task is not None)

    async def program(ctx: OrchestrationContext) -> None:
        await asyncio.gather(child(ctx), asyncio.create_task(child(ctx)))

    Play(program, shadow=False).run.close()
    assert silence == [True, True]
