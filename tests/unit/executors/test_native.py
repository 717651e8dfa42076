"""The executor of functions in this process."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
import pytest

from durably.codec.convert import JsonConverter
from durably.core.events import ExecutionStarted, TaskCompleted, TaskScheduled, TurnStarted
from durably.core.messages import ActivityDone
from durably.engine.executor import ActivityCall, Executor
from durably.errors import NonDeterminismError, NonRetryableError, UnknownFunctionError
from durably.executors.native import NativeExecutor, NativeOptions
from durably.program.activity_context import ActivityContext
from durably.program.context import OrchestrationContext
from durably.program.registry import Registry

converter = JsonConverter()


def call(name: str, input: Any = None, **changes: Any) -> ActivityCall:
    base = ActivityCall(
        "i", "e", 3, 2, 1, name, None if input is None else converter.encode(input), {"t": "1"}
    )
    return msgspec.structs.replace(base, **changes)


def performed(
    *functions: Callable[..., Any],
    name: str | None = None,
    input: Any = None,
    options: NativeOptions | None = None,
) -> ActivityDone:
    async def main(executor: NativeExecutor) -> ActivityDone:
        return await executor.perform(call(name or functions[0].__name__, input))

    return with_executor(main, *functions, options=options)


def with_executor(
    main: Callable[[NativeExecutor], Coroutine[Any, Any, Any]],
    *functions: Callable[..., Any],
    options: NativeOptions | None = None,
) -> Any:
    registry = Registry()
    for fn in functions:
        registry.add_activity(fn)

    async def run() -> Any:
        executor = NativeExecutor(registry, converter, options)
        try:
            return await main(executor)
        finally:
            await executor.close()

    return asyncio.run(run())


# --- activities ------------------------------------------------------------------------------------------------------


async def add_one(x: int) -> int:
    return x + 1


def double(x: int) -> int:
    return x * 2


def test_it_is_an_executor() -> None:
    executor: Executor = NativeExecutor(Registry(), converter)
    assert executor.names("activity") == []


def test_a_coroutine_and_a_plain_function_are_performed() -> None:
    assert performed(add_one, input=4) == ActivityDone("e", 3, 2, b"5")
    assert performed(double, input=4) == ActivityDone("e", 3, 2, b"8")


def test_an_activity_without_a_result_has_no_payload() -> None:
    async def nothing() -> None: ...

    assert performed(nothing).result is None
    assert performed(nothing).failure is None


def test_the_context_tells_whose_call_it_is() -> None:
    async def tell(ctx: ActivityContext) -> list[Any]:
        ctx.heartbeat({"progress": 5})
        return [
            ctx.instance_id,
            ctx.task_id,
            ctx.attempt,
            ctx.delivery,
            ctx.idempotency_key,
            ctx.tags,
            ctx.cancelled,
            ctx.last_heartbeat,
        ]

    assert performed(tell).result == b'["i",3,2,1,"i:e:3",{"t":"1"},false,{"progress":5}]'


def test_4_3_3_an_unknown_activity_fails_with_the_names_that_there_are() -> None:
    done = performed(add_one, double, name="ad_one")
    assert done.failure is not None
    assert done.failure.type == "UnknownFunctionError"
    assert "'ad_one' is not registered in this host: expected one of add_one, double" in done.failure.message


def test_4_3_13_a_result_that_is_no_json_fails_with_the_type_named() -> None:
    class Odd:
        pass

    async def odd() -> Any:
        return Odd()

    done = performed(odd)
    assert done.failure is not None
    assert done.failure.type == "PayloadError"
    assert "Result of activity 'odd'" in done.failure.message
    assert "Odd" in done.failure.message


def test_an_input_that_does_not_fit_is_a_failure() -> None:
    done = performed(add_one, input="text")
    assert done.failure is not None
    assert done.failure.message.startswith("Input of activity 'add_one': ")


def test_4_3_14_falsy_results_are_preserved() -> None:
    def echo(x: Any) -> Any:
        return x

    for value, payload in ((0, b"0"), ("", b'""'), ([], b"[]"), ({}, b"{}"), (False, b"false")):
        assert performed(echo, input=value).result == payload


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit])
def test_what_an_activity_raises_is_a_failure(error: type[BaseException]) -> None:
    async def coroutine() -> None:
        raise error("no")

    def plain() -> None:
        raise error("no")

    for fn in (coroutine, plain):
        done = performed(fn)
        assert done.failure is not None
        failure = done.failure
        if fn is coroutine and error is StopIteration:  # Python itself makes a RuntimeError of it
            assert failure.inner is not None
            failure = failure.inner
        assert failure.type == error.__name__
        assert failure.stack_trace is not None
        assert f"in {fn.__name__}" in failure.stack_trace
        assert "durably/executors" not in failure.stack_trace


def test_4_3_11_a_failure_keeps_its_cause_and_its_bases() -> None:
    class Final(NonRetryableError):
        pass

    async def fails() -> None:
        try:
            raise FileNotFoundError("gone")
        except OSError as error:
            raise Final("enough") from error

    failure = performed(fails).failure
    assert failure is not None
    assert failure.non_retryable
    assert failure.inner is not None
    assert failure.is_caused_by(OSError)


# --- cancellation ----------------------------------------------------------------------------------------------------


def test_cancelling_cancels_a_coroutine() -> None:
    seen: list[Any] = []

    async def waits(ctx: ActivityContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned up")

    async def main(executor: NativeExecutor) -> None:
        task = asyncio.create_task(executor.perform(call("waits")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with_executor(main, waits)
    assert seen == ["cleaned up"]


def test_a_coroutine_that_swallows_its_cancellation_returns_normally() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done"
        return "not reached"

    async def main(executor: NativeExecutor) -> Any:
        task = asyncio.create_task(executor.perform(call("stubborn")))
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert with_executor(main, stubborn).result == b'"done"'


def test_a_cancellation_that_an_activity_raises_itself_is_a_failure() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError("on my own")

    async def awaits_what_it_cancelled() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    for fn in (gives_up, awaits_what_it_cancelled):
        failure = performed(fn).failure
        assert failure is not None
        assert failure.type == "CancelledError"


def test_cancelling_tells_a_thread_through_its_context() -> None:
    running, stopped = threading.Event(), threading.Event()

    def waits(ctx: ActivityContext) -> None:
        running.set()
        while not ctx.cancelled:
            threading.Event().wait(0.002)
        stopped.set()
        raise ValueError("nobody hears this")

    async def main(executor: NativeExecutor) -> None:
        task = asyncio.create_task(executor.perform(call("waits")))
        await asyncio.to_thread(running.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(stopped.wait)

    with_executor(main, waits)
    assert stopped.is_set()


def test_work_that_waits_for_a_thread_is_dropped_when_cancelled() -> None:
    go, ran = threading.Event(), []

    def blocks(x: int) -> int:
        ran.append(x)
        go.wait(10)
        return x

    async def main(executor: NativeExecutor) -> Any:
        first = asyncio.create_task(executor.perform(call("blocks", 1)))
        second = asyncio.create_task(executor.perform(call("blocks", 2)))
        third = asyncio.create_task(executor.perform(call("blocks", 3)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go.set()
        return [(await first).result, (await third).result]

    assert with_executor(main, blocks, options=NativeOptions(threads=1)) == [b"1", b"3"]
    assert ran == [1, 3]


def test_closing_drops_what_waits_for_a_thread() -> None:
    go, ran = threading.Event(), []

    def blocks(x: int) -> None:
        ran.append(x)
        go.wait(10)

    async def main(executor: NativeExecutor) -> None:
        tasks = [asyncio.create_task(executor.perform(call("blocks", x))) for x in (1, 2)]
        await asyncio.sleep(0)
        await executor.close()
        go.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with_executor(main, blocks, options=NativeOptions(threads=1))
    assert ran == [1]


def test_threads_see_the_context_variables_of_the_task() -> None:
    variable = contextvars.ContextVar("variable", default="default")

    def look() -> str:
        seen = variable.get()
        variable.set("thread")
        return seen

    async def main(executor: NativeExecutor) -> list[Any]:
        variable.set("task")
        return [(await executor.perform(call("look"))).result, variable.get()]

    assert with_executor(main, look) == [b'"task"', "task"]


def test_plain_functions_run_side_by_side() -> None:
    barrier = threading.Barrier(4, timeout=10)

    def meet() -> int:
        barrier.wait()
        return threading.get_ident()

    async def main(executor: NativeExecutor) -> int:
        done = await asyncio.gather(*(executor.perform(call("meet")) for _ in range(4)))
        return len({one.result for one in done})

    assert with_executor(main, meet) == 4


# --- orchestrators ---------------------------------------------------------------------------------------------------


async def chain(ctx: OrchestrationContext, n: int) -> int:
    for i in range(n):
        await ctx.call_activity(add_one, i)
    return n


def executor_of(*orchestrators: Callable[..., Any], **versions: Callable[..., Any]) -> NativeExecutor:
    registry = Registry()
    registry.add_activity(add_one, max_concurrent=7)
    for fn in orchestrators:
        registry.add_orchestrator(fn)
    for version, fn in versions.items():
        registry.add_orchestrator(fn, name="versioned", version=version)
    return NativeExecutor(registry, converter, NativeOptions(slow_turn_s=0))


def test_it_tells_what_it_serves() -> None:
    executor = executor_of(chain)
    assert executor.serves("orchestrator", "chain")
    assert not executor.serves("orchestrator", "add_one")
    assert executor.serves("activity", "add_one")
    assert not executor.serves("activity", "chain")
    assert executor.names("orchestrator") == ["chain"]
    assert executor.names("activity") == ["add_one"]
    assert executor.concurrency("add_one") == 7
    assert executor.concurrency("unknown") is None


def test_a_run_begins_and_replays() -> None:
    executor = executor_of(chain)
    started = ExecutionStarted("i", "chain", b"2", "e", 0, 0, "3.11")
    run = executor.begin(started)
    history: list[Any] = [TurnStarted(1), started, *run.advance(started, 1)]
    history += [TurnStarted(2), TaskCompleted(0, b"1"), *run.advance(TaskCompleted(0, b"1"), 2)]
    run.close()
    again = executor.replay(history)
    assert [type(one).__name__ for one in again.advance(TaskCompleted(1, b"2"), 3)] == ["ExecutionCompleted"]
    history[2] = TaskScheduled(0, "other", None)
    with pytest.raises(NonDeterminismError, match="activity 'other'"):
        executor.replay(history)


def test_a_run_has_the_version_of_its_instance_when_there_is_one() -> None:
    async def old(ctx: OrchestrationContext) -> str:
        return "old"

    async def new(ctx: OrchestrationContext) -> str:
        return "new"

    executor = executor_of(**{"1.0": old, "2.0": new})

    def result(version: str | None) -> Any:
        started = ExecutionStarted("i", "versioned", None, "e", 0, 0, "3.11", version=version)
        outcome: Any = executor.begin(started).advance(started, 1)[-1]
        return outcome.result

    assert [result(version) for version in ("1.0", "2.0", None, "1.5")] == [
        b'"old"',
        b'"new"',
        b'"old"',
        b'"new"',
    ]
    assert [executor.runs("versioned", version) for version in ("2.0", "3.0")] == [True, False]
    assert executor.version_of_new("versioned") == "2.0"


def test_an_unknown_orchestrator_is_an_error_of_the_caller() -> None:
    with pytest.raises(UnknownFunctionError, match="expected one of chain"):
        executor_of(chain).begin(ExecutionStarted("i", "chian", None, "e", 0, 0, "3.11"))


def test_who_waits_for_a_thread_has_not_begun() -> None:
    may_end = threading.Event()

    def blocks(n: int) -> int:
        may_end.wait(30)
        return n

    async def main(executor: NativeExecutor) -> list[int]:
        begun: list[int] = []
        first_begun = asyncio.Event()

        def begins(n: int) -> None:
            begun.append(n)
            first_begun.set()

        attempts = [
            asyncio.create_task(executor.perform(call("blocks", n, begun=partial(begins, n))))
            for n in range(3)
        ]
        await first_begun.wait()
        assert begun == [0]
        attempts[1].cancel()
        await asyncio.wait({attempts[1]})  # before there is a thread for it
        may_end.set()
        assert (await attempts[0]).result == b"0"
        assert (await attempts[2]).result == b"2"
        return begun

    assert with_executor(main, blocks, options=NativeOptions(threads=1)) == [0, 2]
