"""What a turn does to its host: nothing. And how an execution ends."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from durably.codec.convert import JsonConverter
from durably.core.events import (
    ActionCanceled,
    CancelRequested,
    ContinuedAsNew,
    ExecutionCanceled,
    ExecutionStarted,
    TaskCompleted,
)
from durably.errors import NonRetryableError
from durably.program import guards
from durably.program.context import OrchestrationContext
from durably.program.registry import Registry
from durably.program.run import ProgramOptions, Run
from tests.unit.program.harness import Play, failure, kinds

# --- the host ----------------------------------------------------------------------------------------------------------


async def two_steps(ctx: OrchestrationContext) -> str:
    await ctx.call_activity("a")
    return await ctx.call_activity("b")


def test_a_turn_in_a_callback_of_the_host_leaves_it_as_it_was() -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        seen = loop.create_future()

        def turn() -> None:
            play = Play(two_steps)
            seen.set_result([asyncio.get_running_loop() is loop, asyncio.current_task(), play.made])
            play.close()

        loop.call_soon(turn)
        return await seen

    same, task, made = asyncio.run(main())
    assert same is True
    assert task is None
    assert kinds(made) == ["TaskScheduled"]


def test_a_turn_in_a_task_of_the_host_leaves_that_task_current() -> None:
    async def program(ctx: OrchestrationContext) -> list[bool]:
        before = asyncio.current_task()
        await ctx.call_activity("a")
        return [before is not None, asyncio.current_task() is before]

    async def main() -> list[Any]:
        before = asyncio.current_task()
        play = Play(program)
        play.complete(0)
        await asyncio.sleep(0)
        return [asyncio.current_task() is before, play.result]

    assert asyncio.run(main()) == [True, [True, True]]


def test_where_asyncio_has_one_current_task_per_thread_that_of_the_host_is_put_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python 3.14 has; the way around it works everywhere."""
    monkeypatch.setattr("durably.program.run._TASK_PER_THREAD", True)
    seen: list[Any] = []

    def look(ctx: OrchestrationContext) -> None:
        seen.append(asyncio.current_task(host[0]))

    host: list[Any] = []

    async def main() -> bool:
        host.append(asyncio.get_running_loop())
        before = asyncio.current_task()
        Play(look, shadow=False).close()
        return asyncio.current_task() is before

    assert asyncio.run(main())
    assert seen == [None]


def test_without_a_host_loop_nothing_stays_behind() -> None:
    before = sys.get_asyncgen_hooks()
    Play(two_steps).close()
    assert sys.get_asyncgen_hooks() == before
    assert asyncio._get_running_loop() is None
    assert not guards.running


def test_async_generators_of_the_host_are_still_the_hosts() -> None:
    closed: list[str] = []

    async def numbers(name: str) -> AsyncGenerator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)  # only a loop can do this
            closed.append(name)

    async def program(ctx: OrchestrationContext) -> None:
        async for _ in numbers("program"):
            break
        await ctx.call_activity("a")

    async def main() -> None:
        play = Play(program, shadow=False)
        async for _ in numbers("host"):
            break
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert closed == ["host"]
        play.close()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert closed == ["host"]  # that of the program was closed without what it wanted to await


def test_a_turn_survives_two_runs_of_the_host_loop() -> None:
    """A host loop sets its hooks anew each time it runs."""
    loop = asyncio.new_event_loop()
    collected: list[str] = []

    async def numbers() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            collected.append("closed")

    async def program(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("a")
        async for _ in numbers():
            break
        await ctx.call_activity("b")

    async def begin() -> Play:
        return Play(program, shadow=False)

    async def go_on(play: Play) -> None:
        play.complete(0)
        gc.collect()
        await asyncio.sleep(0)
        assert collected == []
        assert len(play.run._loop.generators) == 1

    try:
        play = loop.run_until_complete(begin())
        loop.run_until_complete(go_on(play))
        play.close()
    finally:
        loop.close()
    assert collected == ["closed"]


# --- kinds of orchestrators ----------------------------------------------------------------------------------------------


def test_4_1_10_code_that_schedules_nothing_completes_at_once() -> None:
    async def coroutine(ctx: OrchestrationContext, x: int) -> int:
        return x + 1

    def plain(ctx: OrchestrationContext, x: int) -> int:
        return x + 1

    def generator(ctx: OrchestrationContext, x: int) -> Generator[Any, Any, int]:
        if x < 0:
            yield
        return x + 1

    for program in (coroutine, plain, generator):
        play = Play(program, 1)
        assert kinds(play.made) == ["ExecutionCompleted"]
        assert play.result == 2


def test_a_plain_function_may_return_a_coroutine_or_a_task() -> None:
    def returns_coroutine(ctx: OrchestrationContext) -> Any:
        return two_steps(ctx)

    play = Play(returns_coroutine)
    play.complete(0)
    play.complete(1, "done")
    assert play.result == "done"
    play = Play(lambda ctx: ctx.call_activity("a"))
    play.complete(0, "done")
    assert play.result == "done"


def test_a_decorated_coroutine_function_works() -> None:
    import functools

    def decorate(fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapper(*args: Any) -> Any:
            return fn(*args)

        return wrapper

    play = Play(decorate(two_steps))
    play.complete(0)
    play.complete(1, "done")
    assert play.result == "done"


def test_the_input_is_decoded_to_its_declared_type_and_may_have_a_default() -> None:
    async def typed(ctx: OrchestrationContext, when: set[int]) -> bool:
        return isinstance(when, set)

    async def default(ctx: OrchestrationContext, n: int = 7) -> int:
        return n

    assert Play(typed, [1, 2]).result is True
    assert Play(default).result == 7


def test_an_input_that_does_not_fit_fails_the_instance() -> None:
    async def program(ctx: OrchestrationContext, n: int) -> int:
        return n

    play = Play(program, "text")
    assert play.failed.type == "PayloadError"
    assert "Input of orchestrator 'program'" in play.failed.message
    assert play.run.advance(TaskCompleted(0, None), play.now) == ()


# --- outcomes --------------------------------------------------------------------------------------------------------


def test_a_failure_has_the_frames_of_users_only() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("a")
        except Exception as error:
            raise KeyError("outer") from error

    play = Play(program)
    play.fail(0, "OSError", "inner")
    details = play.failed
    assert details.type == "KeyError"
    assert details.inner is not None
    assert details.inner.inner is not None
    assert details.inner.inner.message == "inner"
    assert details.stack_trace is not None
    assert "in program" in details.stack_trace
    assert "durably/program" not in details.stack_trace


def test_a_failure_of_a_generator_has_no_frames_of_its_driver() -> None:
    def program(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity("a")

    play = Play(program)
    play.fail(0)
    assert play.failed.stack_trace is not None
    assert "_drive" not in play.failed.stack_trace
    assert "in program" in play.failed.stack_trace


def test_a_failure_that_must_not_be_retried_says_so() -> None:
    class Final(NonRetryableError):
        pass

    async def program(ctx: OrchestrationContext) -> None:
        raise Final("enough")

    assert Play(program).failed.non_retryable is True


@pytest.mark.parametrize(
    "error", [SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError, asyncio.InvalidStateError]
)
def test_what_would_end_the_program_ends_the_execution(error: type[BaseException]) -> None:
    async def main_code(ctx: OrchestrationContext) -> None:
        await asyncio.sleep(0)
        raise error("stop")

    async def in_a_task(ctx: OrchestrationContext) -> None:
        async def child() -> None:
            raise error("stop")

        await asyncio.gather(asyncio.create_task(child()), ctx.call_activity("a"))

    def plain(ctx: OrchestrationContext) -> None:
        raise error("stop")

    for program in (main_code, in_a_task, plain):
        assert Play(program).failed.type == error.__name__


def test_system_exit_in_a_callback_ends_the_execution() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await ctx.call_activity("a")

    assert Play(program).failed.type == "SystemExit"


def test_4_3_13_a_result_that_is_no_json_fails_with_the_type_named() -> None:
    class Odd:
        pass

    async def program(ctx: OrchestrationContext) -> Odd:
        return Odd()

    play = Play(program)
    assert play.failed.type == "PayloadError"
    assert "Odd" in play.failed.message


def test_4_3_14_falsy_values_are_preserved() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        return [await ctx.call_activity("a", value) for value in (0, "", [], {}, False)]

    play = Play(program)
    for seq, value in enumerate((0, "", [], {}, False)):
        assert play.made[-1].input == {0: b"0", 1: b'""', 2: b"[]", 3: b"{}", 4: b"false"}[seq]
        play.complete(seq, value)
    assert play.result == [0, "", [], {}, False]


def test_4_2_5_the_execution_ends_when_its_code_returns() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        async def background() -> None:
            await asyncio.sleep(0)
            await ctx.call_activity("too late")

        asyncio.create_task(background())  # noqa: RUF006 - on purpose
        ctx.call_activity("open")
        return "done"

    play = Play(program)
    assert kinds(play.made) == ["TaskScheduled", "ExecutionCompleted"]


def test_4_2_7_what_arrives_after_the_end_is_ignored() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        ctx.call_activity("a")
        return "done"

    play = Play(program)
    assert play.run.advance(TaskCompleted(0, b"1"), play.now) == ()


# --- cancellation ----------------------------------------------------------------------------------------------------


def test_a_cancellation_that_is_let_through_cancels_the_instance() -> None:
    play = Play(two_steps)
    assert play.send(CancelRequested("enough")) == [ActionCanceled(0), ExecutionCanceled("enough")]


def test_a_cancellation_may_be_caught_and_cleaned_up_after() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity("a")
        except asyncio.CancelledError as error:
            return await ctx.call_activity("clean", error.args[0])
        return "not reached"

    play = Play(program)
    assert play.send(CancelRequested("enough"))[1].input == b'"enough"'
    play.complete(1, "cleaned")
    assert play.result == "cleaned"


def test_a_generator_gets_the_cancellation_thrown_in() -> None:
    def program(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity("a")
        except asyncio.CancelledError:
            yield ctx.call_activity("clean")
            raise

    play = Play(program)
    assert kinds(play.send(CancelRequested())) == ["ActionCanceled", "TaskScheduled"]
    assert play.complete(1) == [ExecutionCanceled(None)]


def test_code_that_awaits_what_it_cancelled_is_canceled() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        task = ctx.call_activity("a")
        task.cancel()
        await task

    assert Play(program).made[1:] == [ActionCanceled(0), ExecutionCanceled(None)]


def test_everything_that_is_awaited_together_is_given_up_once() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(5))
            async with asyncio.timeout(9):
                await asyncio.gather(
                    ctx.call_activity("a"),
                    ctx.when_all([ctx.call_activity("b"), ctx.create_timer(3)]),
                    ctx.wait_for_external_event("e"),
                    ctx.map("m", [1, 2, 3], max_in_flight=2),
                )

    play = Play(program)
    open_ = sorted(play.open)
    made = play.send(CancelRequested("stop"))
    assert sorted(one.seq for one in made if isinstance(one, ActionCanceled)) == open_
    assert made[-1] == ExecutionCanceled("stop")


def test_4_2_6_cancelling_a_task_that_completed_changes_nothing() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        task = ctx.call_activity("a")
        result = await task
        return [task.cancel(), result, await task]

    play = Play(program)
    play.complete(0, 1)
    assert play.result == [False, 1, 1]


def test_a_completion_after_the_cancellation_is_ignored() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        task = ctx.call_activity("a")
        assert task.cancel() is True
        assert task.cancel() is False
        await ctx.call_activity("b")
        return "done"

    play = Play(program)
    assert kinds(play.made) == ["TaskScheduled", "ActionCanceled", "TaskScheduled"]
    assert play.complete(0, "late") == []
    play.complete(1)
    assert play.result == "done"


# --- continue as new -------------------------------------------------------------------------------------------------


def test_continue_as_new_takes_effect_at_return_and_the_last_call_counts() -> None:
    async def program(ctx: OrchestrationContext, n: int) -> str:
        ctx.continue_as_new("first")
        await ctx.call_activity("still here")
        ctx.continue_as_new({"n": n + 1}, preserve_events=False)
        return "ignored"

    play = Play(program, 1)
    assert kinds(play.made) == ["TaskScheduled"]
    assert play.complete(0) == [ContinuedAsNew(b'{"n":2}', preserve_events=False)]


def test_4_7_6_the_return_value_after_continue_as_new_is_ignored() -> None:
    class Odd:
        pass

    def generator(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(1)
        ctx.continue_as_new()
        return Odd()

    play = Play(generator)
    assert play.fire(0) == [ContinuedAsNew(None, preserve_events=True)]


def test_a_failure_after_continue_as_new_is_a_failure() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        ctx.continue_as_new(1)
        raise ValueError("no")

    assert Play(program).failed.type == "ValueError"


# --- deadlock ----------------------------------------------------------------------------------------------------------


def test_code_that_nothing_can_wake_fails_and_names_the_line() -> None:
    async def inner(lock: asyncio.Lock) -> None:
        async with lock:
            await lock.acquire()  # the line

    async def program(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("a")
        await inner(asyncio.Lock())

    play = Play(program)
    play.complete(0)
    assert play.failed.type == "OrchestratorDeadlockError"
    line = inner.__code__.co_firstlineno + 2
    assert f"{__file__}:{line} in inner" in play.failed.message


def test_a_deadlock_of_a_generator_and_of_tasks_names_their_lines() -> None:
    def generator(ctx: OrchestrationContext) -> Any:
        yield asyncio.get_running_loop().create_future()

    async def stuck() -> None:
        await asyncio.Event().wait()

    async def group(ctx: OrchestrationContext) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stuck(), name="worker")

    assert f":{generator.__code__.co_firstlineno + 1} in generator" in Play(generator).failed.message
    message = Play(group).failed.message
    assert "in group" in message
    assert f"task worker waits at {__file__}:{stuck.__code__.co_firstlineno + 1} in stuck" in message


def test_a_deadlock_after_the_last_open_action_is_noticed() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        await asyncio.wait([ctx.call_activity("a"), asyncio.ensure_future(asyncio.Event().wait())])

    play = Play(program)
    play.complete(0)
    assert play.failed.type == "OrchestratorDeadlockError"


# --- the engine's view -----------------------------------------------------------------------------------------------


def test_begin_runs_nothing_before_the_first_event() -> None:
    called: list[int] = []

    async def program(ctx: OrchestrationContext) -> None:
        called.append(1)

    registry = Registry()
    function = registry.add_orchestrator(program)
    started = ExecutionStarted("i", "program", None, "e", 0, 0, "3.11")
    run = Run(function, started, registry, JsonConverter(), ProgramOptions())
    assert called == []
    run.close()
    run.close()
    assert run.advance(started, 0) == ()
    assert called == []


def test_an_event_that_the_code_does_not_care_about_decides_nothing() -> None:
    from durably.core.events import (
        AttemptStarted,
        ExecutionResumed,
        ExecutionSuspended,
        TaskFailed,
        TimerFired,
    )

    play = Play(two_steps)
    for event in (
        AttemptStarted(0, 2),
        ExecutionSuspended(),
        ExecutionResumed(),
        TimerFired(9),
        TaskFailed(9, failure()),
        TaskCompleted(9, b"1"),
    ):
        assert play.send(event) == []
