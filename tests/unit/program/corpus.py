"""Orchestrators of many shapes, each with a script of what happens to it. Shared by the replay and the golden tests.

A shape must not depend on what asyncio leaves open between versions of Python; the golden histories prove that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from durably.core.events import CancelRequested, TaskScheduled, TimerCreated
from durably.errors import EntityOperationFailedError, LockingRulesViolationError, TaskFailedError
from durably.program.context import OrchestrationContext
from durably.program.http import DurableHttpResponse, HttpReply, HttpRequest
from tests.unit.program.harness import Play

Script = Callable[[Play], object]


async def chain(ctx: OrchestrationContext, n: int) -> int:
    total = 0
    for i in range(n):
        total += await ctx.call_activity("add", i)
    return total


def play_chain(play: Play) -> None:
    for seq in range(3):
        play.complete(seq, 10)


async def gathered(ctx: OrchestrationContext) -> list[int]:
    async def two(name: str) -> int:
        return await ctx.call_activity(name, 1) + await ctx.call_activity(name, 2)

    return await asyncio.gather(two("a"), ctx.call_activity("c"), two("b"))


def play_gathered(play: Play) -> None:
    for seq in (1, 0, 2, 4, 3):  # 0 is c: called before the tasks start
        play.complete(seq, seq)


async def failing_group(ctx: OrchestrationContext) -> str:
    async def child(name: str) -> None:
        try:
            await ctx.call_activity(name)
        except asyncio.CancelledError:
            await ctx.call_activity(f"undo {name}")
            raise

    try:
        async with asyncio.TaskGroup() as group:
            for name in "abcdefghij":
                group.create_task(child(name))
    except BaseExceptionGroup as errors:
        return f"{len(errors.exceptions)} failed"
    return "fine"


def play_failing_group(play: Play) -> None:
    play.complete(2)
    play.fail(5)
    calls = [event for event in play.history if isinstance(event, TaskScheduled)]
    undo = [call.seq for call in calls if call.name.startswith("undo")]
    for seq in reversed(undo):
        play.complete(seq)


async def first_completed(ctx: OrchestrationContext) -> list[Any]:
    tasks = [asyncio.ensure_future(ctx.call_activity(f"a{i}", i)) for i in range(5)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    won = [one.result() for one in done]
    for one in pending:
        one.cancel()
    return won


def play_first_completed(play: Play) -> None:
    play.complete(3, "won")


async def gathers_in_a_set(ctx: OrchestrationContext) -> int:
    groups = [asyncio.gather(ctx.call_activity(f"a{i}"), ctx.call_activity(f"b{i}")) for i in range(9)]
    done, pending = await asyncio.wait(groups, return_when=asyncio.FIRST_COMPLETED)
    for one in pending:
        one.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return len(done)


def play_gathers_in_a_set(play: Play) -> None:
    play.complete(4)
    play.complete(5)


async def timeouts(ctx: OrchestrationContext) -> list[str]:
    async def two(name: str) -> str:
        await ctx.call_activity("first")
        return await ctx.call_activity(name)

    seen: list[str] = []
    try:
        async with asyncio.timeout(10):
            await ctx.call_activity("slow")
    except TimeoutError:
        seen.append("timeout")
    seen.append(await asyncio.wait_for(two("second"), 60))
    try:
        await asyncio.gather(asyncio.wait_for(two("late"), 3), asyncio.wait_for(ctx.call_activity("slow"), 9))
    except TimeoutError:
        seen.append("wait_for")
    try:
        await asyncio.wait_for(asyncio.sleep(9), 0)
    except TimeoutError:
        seen.append("at once")
    seen.append(await asyncio.wait_for(ctx.call_activity("last"), None))
    return seen


def play_timeouts(play: Play) -> None:
    play.fire(0)
    play.complete(play.seq("first"))
    play.complete(play.seq("second"), "second")
    soon = play.timer(3)
    play.complete(play.seq("first"))
    play.fire(soon)
    play.complete(play.seq("last"), "last")


async def pipeline(ctx: OrchestrationContext) -> list[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    gate = asyncio.Semaphore(2)
    lock = asyncio.Lock()
    results: list[int] = []

    async def producer() -> None:
        for i in range(6):
            await queue.put(await ctx.call_activity("make", i))

    async def consumer(name: str) -> None:
        while True:
            item = await queue.get()
            async with gate:
                value = await ctx.call_activity(name, item)
            async with lock:
                results.append(value)
                await asyncio.sleep(1)
            queue.task_done()

    consumers = [asyncio.create_task(consumer(f"use{i}")) for i in range(3)]
    await producer()
    await queue.join()
    for one in consumers:
        one.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    return results


def play_pipeline(play: Play) -> None:
    while play.outcome is None:
        seq = max(play.open)  # the newest first: more to sort out than the oldest
        if any(isinstance(event, TimerCreated) and event.seq == seq for event in play.history):
            play.fire(seq)
        else:
            play.complete(seq, seq)


async def conditions(ctx: OrchestrationContext) -> list[str]:
    condition, event, barrier = asyncio.Condition(), asyncio.Event(), asyncio.Barrier(3)
    seen: list[str] = []

    async def waiter(name: str) -> None:
        async with condition:
            await condition.wait()
            seen.append(name)
        await event.wait()
        await ctx.call_activity(f"{name} passed")
        await barrier.wait()
        seen.append(f"{name} out")

    tasks = [asyncio.create_task(waiter(name)) for name in "abc"]
    await ctx.call_activity("notify")
    async with condition:
        condition.notify(2)
    await ctx.call_activity("rest")
    async with condition:
        condition.notify_all()
    event.set()
    await asyncio.gather(*tasks)
    return seen


def play_conditions(play: Play) -> None:
    for seq in (0, 1, 3, 2, 4):
        play.complete(seq)


async def in_order_of_completion(ctx: OrchestrationContext) -> list[int]:
    tasks = [ctx.call_activity("x", i) for i in range(4)]
    seen = [await task async for task in ctx.as_completed(tasks)]
    more = [ctx.call_activity("y", i) for i in range(3)]
    seen += [await future for future in asyncio.as_completed(more)]
    seen += [await future for future in ctx.as_completed([ctx.call_activity("z", i) for i in range(2)])]
    return seen


def play_in_order_of_completion(play: Play) -> None:
    for seq in (2, 0, 3, 1, 6, 4, 5, 8, 7):
        play.complete(seq, seq)


async def nested_cancel(ctx: OrchestrationContext) -> str:
    async def leaf() -> None:
        try:
            async with asyncio.timeout(100):
                await ctx.wait_for_external_event("never")
        finally:
            await ctx.call_activity("clean")

    async def branch() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(leaf())
            group.create_task(leaf())
            await asyncio.sleep(1000)

    task = asyncio.create_task(branch())
    await ctx.call_activity("begin")
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "cancelled"
    return "not cancelled"


def play_nested_cancel(play: Play) -> None:
    play.complete(0)
    for place in range(2):
        play.complete(play.seq("clean", place))


def generator(ctx: OrchestrationContext, n: int) -> Generator[Any, Any, list[Any]]:
    first = yield ctx.call_activity("first", n)
    try:
        yield ctx.call_activity("bad")
    except TaskFailedError as error:
        first += f" {error.details.message}"
    both = yield ctx.when_all([ctx.call_activity("a"), ctx.call_activity("b")])
    winner = yield ctx.when_any([ctx.create_timer(60), ctx.wait_for_external_event("go")])
    return [first, both, (yield winner)]


def play_generator(play: Play) -> None:
    play.complete(0, "one")
    play.fail(1, message="broken")
    play.complete(3, "B")
    play.complete(2, "A")
    play.event("GO", "now")


async def eternal(ctx: OrchestrationContext, n: int) -> str:
    await ctx.create_timer(5)
    ctx.set_custom_status({"round": n})
    ctx.continue_as_new(n + 1)
    await ctx.call_activity("still done")
    return "ignored"


def play_eternal(play: Play) -> None:
    play.fire(0)
    play.complete(1)


async def events(ctx: OrchestrationContext) -> list[Any]:
    await ctx.call_activity("before")
    seen = [await ctx.wait_for_external_event("early")]
    late = ctx.wait_for_external_event("late", timeout=10)
    gone = ctx.wait_for_external_event("other")
    gone.cancel()
    seen.append(await ctx.wait_for_external_event("never", timeout=5, default="default"))
    seen.append(await late)
    ctx.send_event("friend", "hello", seen)
    seen.append(await ctx.wait_for_external_event("other"))
    return seen


def play_events(play: Play) -> None:
    play.event("EARLY", 1)
    play.complete(0)
    play.event("other", 3)
    play.fire(4)
    play.event("Late", 2)


async def shielded(ctx: OrchestrationContext) -> list[str]:
    seen: list[str] = []

    async def precious() -> str:
        await ctx.call_activity("one")
        return await ctx.call_activity("two")

    task = asyncio.create_task(precious())
    try:
        async with asyncio.timeout(5):
            await asyncio.shield(task)
    except TimeoutError:
        seen.append("timeout")
    seen.append(await task)
    return seen


def play_shielded(play: Play) -> None:
    play.fire(0)
    play.complete(1)
    play.complete(2, "kept")


async def children(ctx: OrchestrationContext) -> list[Any]:
    ctx.start_orchestration("aside", 1)
    child = ctx.call_sub_orchestrator("child", 2)
    named = ctx.call_sub_orchestrator("child", 3, instance_id="mine")
    mapped = await ctx.map("square", range(5), max_in_flight=2)
    return [mapped, await child, await named, str(ctx.new_uuid()), ctx.random.random()]


def play_children(play: Play) -> None:
    for seq in (4, 3, 6, 5, 7, 2, 1):
        play.complete(seq, seq)


async def canceled(ctx: OrchestrationContext) -> None:
    try:
        await asyncio.gather(ctx.call_activity("a"), asyncio.sleep(50), ctx.wait_for_external_event("e"))
    except asyncio.CancelledError:
        await ctx.call_activity("clean")
        raise


def play_canceled(play: Play) -> None:
    play.send(CancelRequested("enough"))
    play.complete(3)


async def rewound(ctx: OrchestrationContext) -> list[Any]:
    """Ids, chance and the order of a set are those of the execution that failed."""
    lots = {asyncio.create_task(_step(ctx, name)) for name in "abcde"}
    named = ctx.call_sub_orchestrator("child", 1, instance_id=f"child-{ctx.new_uuid()}")
    ctx.start_orchestration("aside", instance_id=f"aside-{ctx.execution_id}-{ctx.random.randrange(1000)}")
    try:
        async with asyncio.timeout(300):
            results = await asyncio.gather(*lots)
    except TaskFailedError:
        await ctx.call_activity("undo")
        raise
    return [*results, await named, str(ctx.new_uuid()), ctx.random.randrange(1000)]


async def _step(ctx: OrchestrationContext, name: str) -> Any:
    return await ctx.call_activity(name)


def play_rewound(play: Play) -> None:
    play.complete(play.seq("c"), "c")
    play.fail(play.seq("b"))
    play.complete(play.seq("e"), "e")
    play.complete(play.seq("child"), "child")
    play.complete(play.seq("undo"))
    play.rewind()
    for name in "dba":
        play.complete(play.seq(name), name)


async def patched(ctx: OrchestrationContext) -> list[object]:
    """Asked twice, in a task, behind an event, in a loop; and told in `finally` what it was told before."""
    told: list[object] = [ctx.patched("first")]

    async def part(name: str) -> None:
        told.append(ctx.patched(name))
        await ctx.call_activity(name)

    try:
        await asyncio.gather(part("left"), part("right"))
        for i in range(2):
            if ctx.patched(f"round {i}"):
                await ctx.create_timer(5)
            await ctx.wait_for_external_event("go")
    finally:
        told.append(ctx.patched("first"))
    return told


def play_patched(play: Play) -> None:
    play.complete(1)
    play.complete(0)
    for _ in range(2):
        play.fire(play.timer(5))
        play.event("go")
    assert play.result == [True, True, True, True]


async def saga(ctx: OrchestrationContext) -> str:
    """Two steps at once and one behind them; a time-out; an undo that fails; a saga that ends well within."""
    try:
        async with asyncio.timeout(60), ctx.saga() as outer:
            await asyncio.gather(*(outer.step("do", name, undo="undo") for name in "ab"))
            async with ctx.saga() as inner:
                await inner.step("inner", undo="never")
            await outer.step("last", undo="undo", undo_input=lambda done: [done])
            await ctx.wait_for_external_event("never")
    except TimeoutError as error:
        return error.__context__.__notes__[0] if error.__context__ else ""  # type: ignore[union-attr]
    return "fine"


def play_saga(play: Play) -> None:
    for seq in (2, 1, 3, 4):
        play.complete(seq, seq)
    play.fire(0)
    play.complete(6)
    play.fail(7)
    play.complete(8)
    assert play.result == "undo 'undo' failed: Task 'undo' (#7) failed: ValueError: no"


async def entities(ctx: OrchestrationContext) -> list[Any]:
    """Calls at once, one that fails, one that is given up, and signals, also for later."""
    ctx.signal_entity("@counter@a", "add", 1)
    await ctx.signal_entity("@counter@a", "add", 2, at=30)
    first, second = ctx.call_entity("@counter@a", "get"), ctx.call_entity("@Counter@b", "get")
    try:
        await ctx.call_entity("@counter@b", "fail", {"with": "this"})
    except EntityOperationFailedError as error:
        ctx.signal_entity("@log@", "note", error.details.message)
    async with asyncio.TaskGroup() as group:
        group.create_task(_step(ctx, "beside"))
        late = group.create_task(asyncio.wait_for(asyncio.shield(second), 5))
    given_up = ctx.call_entity("@counter@c", "get")
    given_up.cancel()
    return [await first, late.result(), given_up.cancelled()]


def play_entities(play: Play) -> None:
    play.complete(3, "b")
    play.fail(4)
    play.complete(play.seq("beside"))
    play.complete(2, "a")
    assert play.result == ["a", "b", True]


async def locks(ctx: OrchestrationContext, n: int) -> Any:
    """One critical section after the other: left with a value, by an error, by a cancellation; and a refused call."""
    async with ctx.lock_entities("@account@b", "@account@a", "@account@b"):
        balance = await ctx.call_entity("@account@b", "balance")
        both = [ctx.call_entity(f"@account@{key}", "move", balance - n) for key in "ba"]
        try:
            ctx.call_entity("@account@c", "balance")
        except LockingRulesViolationError:
            ctx.set_custom_status("refused")
        moved = await ctx.when_all(both)
    try:
        async with asyncio.timeout(60), ctx.lock_entities("@account@a"):
            ctx.signal_entity("@account@c", "note", moved)
            await ctx.call_entity("@account@a", "stuck")
    except TimeoutError:
        try:
            async with ctx.lock_entities("@account@a"):
                await ctx.call_activity("recount")
        except TaskFailedError as error:
            moved.append(error.details.message)
    return moved


def play_locks(play: Play) -> None:
    play.complete(0)
    play.complete(1, 10)
    play.complete(3, "a moved")
    play.complete(2, "b moved")
    play.complete(5)
    play.fire(4)
    play.complete(8)
    play.fail(9)
    assert play.result == ["b moved", "a moved", "no"]


async def polls(ctx: OrchestrationContext) -> list[Any]:
    """Two requests at once, one is polled; one is given up while it waits for its next poll."""
    slow = ctx.call_http("POST", "https://shop.test/orders", content={"n": 1})
    quick = ctx.call_http("GET", "https://shop.test/", headers={"X-Trace": "1"})
    got = [(await quick).content]
    hopeless = ctx.call_http("GET", "https://shop.test/never")
    try:
        async with asyncio.timeout(60):
            await hopeless
    except TimeoutError:
        got.append("gave up")
    return [*got, (await slow).content]


def play_polls(play: Play) -> None:
    play.complete(1, _response("front page"))
    play.complete(0, _poll_again(90))
    play.complete(2, _poll_again(3_600))
    play.fire(3)
    play.fire(4)
    play.complete(max(play.open), _response("made"))
    assert play.result == ["front page", "gave up", "made"]


def _response(content: str) -> Any:
    return msgspec.to_builtins(HttpReply(DurableHttpResponse(200, {}, content)))


def _poll_again(after_s: float) -> Any:
    return msgspec.to_builtins(HttpReply(None, HttpRequest("GET", "https://shop.test/poll"), after_s))


CORPUS: dict[str, tuple[Callable[..., Any], Any, Script]] = {
    fn.__name__: (fn, input, script)
    for fn, input, script in (
        (chain, 3, play_chain),
        (gathered, None, play_gathered),
        (failing_group, None, play_failing_group),
        (first_completed, None, play_first_completed),
        (gathers_in_a_set, None, play_gathers_in_a_set),
        (timeouts, None, play_timeouts),
        (pipeline, None, play_pipeline),
        (conditions, None, play_conditions),
        (in_order_of_completion, None, play_in_order_of_completion),
        (nested_cancel, None, play_nested_cancel),
        (generator, 1, play_generator),
        (eternal, 1, play_eternal),
        (events, None, play_events),
        (shielded, None, play_shielded),
        (children, None, play_children),
        (canceled, None, play_canceled),
        (rewound, None, play_rewound),
        (patched, None, play_patched),
        (saga, None, play_saga),
        (entities, None, play_entities),
        (locks, 4, play_locks),
        (polls, None, play_polls),
    )
}
