"""The deterministic loop: what works, what is durable, and what is refused."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably.core.events import ActionCanceled, TaskScheduled, TimerCreated, TimerFired
from durably.core.retry import DELAY_MAX_US
from durably.program.context import OrchestrationContext
from durably.program.loop import LoopFuture, LoopTask, ProgramLoop
from durably.program.run import ProgramOptions
from tests.unit.program.harness import T0, Play, kinds

S = 1_000_000

# --- sets, numbers, names --------------------------------------------------------------------------------------------


def test_futures_and_tasks_hash_by_a_number_of_the_execution() -> None:
    async def program(ctx: OrchestrationContext) -> list[int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProgramLoop)
        made = [
            loop.create_future(),
            asyncio.create_task(asyncio.sleep(0)),
            ctx.call_activity("a"),
            asyncio.gather(ctx.call_activity("b")),
            ctx.when_all([]),
        ]
        return [hash(one) - loop.number_base for one in made]

    first, second = Play(program, execution_id="a" * 32), Play(program, execution_id="b" * 32)
    assert first.result == second.result
    assert len(set(first.result)) == 5


def test_executions_have_numbers_of_their_own() -> None:
    """All tasks of a process are in one set of asyncio: with equal hashes it would be a list."""

    async def program(ctx: OrchestrationContext) -> int:
        return hash(asyncio.current_task())

    assert Play(program, execution_id="a" * 32).result != Play(program, execution_id="b" * 32).result


def test_the_order_of_a_failing_group_is_the_same_in_every_process() -> None:
    program = (
        "import sys; junk = [object() for _ in range(int(sys.argv[1]))]\n"
        "from tests.unit.program.corpus import CORPUS\n"
        "from tests.unit.program.harness import Play\n"
        "for name in ('failing_group', 'gathers_in_a_set', 'first_completed', 'pipeline'):\n"
        "    fn, input, script = CORPUS[name]\n"
        "    play = Play(fn, input, shadow=False)\n"
        "    script(play)\n"
        "    print(play.history)\n"
    )
    root = Path(__file__).parents[3]
    seen = {
        subprocess.run(
            [sys.executable, "-W", "error", "-c", program, str(junk)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed, junk in (("0", 0), ("1", 1234), ("random", 99_999))
    }
    assert len(seen) == 1


def test_task_names_come_from_the_numbers_of_the_execution() -> None:
    async def program(ctx: OrchestrationContext) -> list[str]:
        async def name() -> str:
            task = asyncio.current_task()
            assert task is not None
            return task.get_name()

        return await asyncio.gather(name(), name())

    assert Play(program).result == Play(program).result


def test_all_futures_of_a_program_are_ours() -> None:
    async def program(ctx: OrchestrationContext) -> bool:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(asyncio.sleep(0))
        return type(loop.create_future()) is LoopFuture and type(task) is LoopTask

    assert Play(program).result is True


def test_finished_tasks_are_forgotten_while_the_program_runs() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        for _ in range(1000):
            await asyncio.create_task(asyncio.sleep(0))
        await ctx.create_timer(1)

    assert len(Play(program, shadow=False).run._loop.tasks) < 100


# --- time ------------------------------------------------------------------------------------------------------------


def test_4_1_3_time_is_constant_within_a_turn() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        loop = asyncio.get_running_loop()
        seen = [loop.time(), ctx.current_utc_datetime.timestamp()]
        for _ in range(100):
            await asyncio.sleep(0)
        seen += [loop.time(), ctx.current_utc_datetime.timestamp()]
        await ctx.create_timer(5)
        seen += [loop.time(), ctx.current_utc_datetime.timestamp()]
        return seen

    play = Play(program)
    play.fire(0)
    assert play.result == [T0 / S] * 4 + [T0 / S + 5] * 2


def test_sleep_is_a_durable_timer() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        return await asyncio.sleep(1.5, "slept")

    play = Play(program)
    assert play.made == [TimerCreated(0, T0 + 1_500_000)]
    assert play.fire(0)[-1] == play.outcome
    assert play.result == "slept"


def test_sleep_of_zero_is_no_timer() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(-1)
        done, pending = await asyncio.wait([ctx.call_activity("a")], timeout=0)
        assert (len(done), len(pending)) == (0, 1)

    assert kinds(Play(program).made) == ["TaskScheduled", "ExecutionCompleted"]


def test_an_endless_sleep_waits_for_its_cancellation() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        await asyncio.sleep(math.inf)

    assert Play(program).made == [TimerCreated(0, T0 + DELAY_MAX_US)]


def test_a_delay_that_is_no_number_is_refused() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        asyncio.get_running_loop().call_later(math.nan, print)

    assert Play(program).failed.type == "ValueError"


def test_call_later_and_call_at_are_durable_and_cancelled_once() -> None:
    async def program(ctx: OrchestrationContext) -> list[str]:
        loop, seen = asyncio.get_running_loop(), []
        soon = loop.call_later(1, seen.append, "never")
        loop.call_at(loop.time() + 2, seen.append, "at")
        loop.call_later(3, seen.append, "later")
        assert soon.when() == loop.time() + 1
        assert not soon.cancelled()
        soon.cancel()
        soon.cancel()
        assert soon.cancelled()
        await ctx.call_activity("a")
        return seen

    play = Play(program)
    assert play.made == [
        TimerCreated(0, T0 + 1 * S),
        TimerCreated(1, T0 + 2 * S),
        TimerCreated(2, T0 + 3 * S),
        ActionCanceled(0),
        TaskScheduled(3, "a", None),
    ]
    assert play.fire(1) == play.fire(2) == []
    play.complete(3)
    assert play.result == ["at", "later"]


def test_cancelling_a_timer_that_fired_records_nothing() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        handle = asyncio.get_running_loop().call_later(1, int)
        await ctx.call_activity("a")
        handle.cancel()

    play = Play(program)
    play.fire(0)
    assert kinds(play.complete(1)) == ["ExecutionCompleted"]


def test_a_timer_event_that_comes_twice_is_ignored() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        await asyncio.sleep(1)
        await ctx.call_activity("a")

    play = Play(program)
    play.fire(0)
    assert play.send(TimerFired(0)) == []


# --- asyncio works ---------------------------------------------------------------------------------------------------


def test_timeout_interrupts_and_gives_the_action_up() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        try:
            async with asyncio.timeout(10):
                await ctx.call_activity("slow")
        except TimeoutError:
            return "late"
        return "in time"

    late = Play(program)
    assert late.fire(0)[0] == ActionCanceled(1)
    assert late.result == "late"
    early = Play(program)
    assert early.complete(1)[0] == ActionCanceled(0)
    assert early.result == "in time"


def test_timeout_at_and_reschedule_are_durable() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + 10) as limit:
                limit.reschedule(asyncio.get_running_loop().time() + 20)
                await ctx.call_activity("slow")
        except TimeoutError:
            return "late"
        return "in time"

    play = Play(program)
    assert play.made == [
        TimerCreated(0, T0 + 10 * S),
        ActionCanceled(0),
        TimerCreated(1, T0 + 20 * S),
        TaskScheduled(2, "slow", None),
    ]
    play.fire(1)
    assert play.result == "late"


def test_wait_for_awaits_in_place_on_every_version() -> None:
    """Python 3.11 would make a task of it, and record the timer first; a history of one would not replay on another."""

    async def program(ctx: OrchestrationContext) -> bool:
        outer = asyncio.current_task()

        async def inner() -> bool:
            await ctx.call_activity("a")
            return asyncio.current_task() is outer

        return await asyncio.wait_for(inner(), 5)

    play = Play(program)
    assert kinds(play.made) == ["TimerCreated", "TaskScheduled"]
    play.complete(1)
    assert play.result is True


def test_wait_for_serves_references_from_before_our_import() -> None:
    from asyncio import wait_for

    async def program(ctx: OrchestrationContext) -> bool:
        async def inner(outer: Any) -> bool:
            return asyncio.current_task() is outer

        return await wait_for(inner(asyncio.current_task()), 5)

    assert Play(program).result is True


def test_wait_for_of_the_host_is_untouched() -> None:
    async def program(ctx: OrchestrationContext) -> None: ...

    Play(program)  # the change is in place

    async def main() -> list[Any]:
        seen: list[Any] = [await asyncio.wait_for(asyncio.sleep(0, "done"), 5)]
        for limit in (0.001, 0):
            try:
                await asyncio.wait_for(asyncio.sleep(60), limit)
            except TimeoutError:
                seen.append("late")
        seen.append(await asyncio.wait_for(asyncio.sleep(0, "free"), timeout=None))
        return seen

    assert asyncio.run(main()) == ["done", "late", "late", "free"]
    assert asyncio.wait_for.__name__ == "wait_for"


def test_a_wait_that_times_out_keeps_its_tasks() -> None:
    async def program(ctx: OrchestrationContext) -> list[int]:
        done, pending = await asyncio.wait([ctx.call_activity("a"), ctx.call_activity("b")], timeout=5)
        return [len(done), len(pending)]

    play = Play(program)
    play.complete(0)
    play.fire(2)
    assert play.result == [1, 1]


def test_gather_returns_exceptions_and_duplicates() -> None:
    async def program(ctx: OrchestrationContext) -> list[str]:
        one = ctx.call_activity("a")
        seen = await asyncio.gather(one, ctx.call_activity("b"), one, return_exceptions=True)
        return [type(x).__name__ if isinstance(x, Exception) else x for x in seen]

    play = Play(program)
    play.complete(0, "A")
    play.fail(1)
    assert play.result == ["A", "TaskFailedError", "A"]


def test_a_task_group_takes_durable_tasks() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ctx.call_activity(name)) for name in "ab"]
        return [task.result() for task in tasks]

    play = Play(program)
    play.complete(1, "B")
    play.complete(0, "A")
    assert play.result == ["A", "B"]
    play = Play(program)
    assert play.fail(1)[0] == ActionCanceled(0)
    assert play.failed.type == "ExceptionGroup"


def test_a_task_around_a_durable_task_gives_it_up_even_before_it_began() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        asyncio.create_task(ctx.call_activity("a")).cancel()  # type: ignore[arg-type]
        await ctx.create_timer(1)

    play = Play(program)
    assert kinds(play.made) == ["TaskScheduled", "TimerCreated", "ActionCanceled"]


def test_4_1_8_numbers_are_given_in_call_order() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        later = [ctx.call_activity("a"), ctx.create_timer(1)]
        tasks = [asyncio.create_task(named(ctx, name)) for name in "bc"]
        await asyncio.gather(ctx.call_activity("d"), *tasks, *later)

    async def named(ctx: OrchestrationContext, name: str) -> None:
        await ctx.call_activity(name)

    assert [(one.seq, getattr(one, "name", "timer")) for one in Play(program).made] == [
        (0, "a"),
        (1, "timer"),
        (2, "d"),
        (3, "b"),
        (4, "c"),
    ]


# --- what is refused -------------------------------------------------------------------------------------------------


def _call(name: str, *args: Any) -> Callable[[], Any]:
    return lambda: getattr(asyncio.get_running_loop(), name)(*args)


REFUSED = {
    "to_thread": lambda: asyncio.to_thread(print),
    "run_in_executor": _call("run_in_executor", None, print),
    "open_connection": lambda: asyncio.open_connection("localhost", 1),
    "start_server": lambda: asyncio.start_server(print, "localhost", 1),
    "create_subprocess_exec": lambda: asyncio.create_subprocess_exec("true"),
    "getaddrinfo": _call("getaddrinfo", "localhost", 80),
    "add_reader": _call("add_reader", 0, print),
    "sock_recv": _call("sock_recv", None, 1),
    "add_signal_handler": _call("add_signal_handler", 2, print),
    "call_soon_threadsafe": _call("call_soon_threadsafe", print),
    "set_task_factory": _call("set_task_factory", None),
    "set_debug": _call("set_debug", True),
    "stop": _call("stop"),
    "close": _call("close"),
    "run_forever": _call("run_forever"),
    "run_until_complete": lambda: asyncio.get_running_loop().run_until_complete(asyncio.sleep(0)),
    "shutdown_asyncgens": _call("shutdown_asyncgens"),
    "eager_start": lambda: asyncio.get_running_loop().create_task(asyncio.sleep(0), eager_start=True),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_replay_could_not_repeat_is_refused_with_the_cure(name: str) -> None:
    async def program(ctx: OrchestrationContext) -> None:
        result = REFUSED[name]()
        if asyncio.iscoroutine(result):
            await result

    play = Play(program)
    assert play.failed.type == "NonDeterministicCall"
    assert "a replay could not repeat it" in play.failed.message
    assert len(play.made) == 1


def test_everything_that_asyncio_adds_is_refused() -> None:
    ours = set(vars(ProgramLoop))
    assert {name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")} <= ours


def test_as_completed_over_bare_coroutines_points_to_ours() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        for future in asyncio.as_completed([asyncio.sleep(0)]):
            await future

    play = Play(program)
    assert play.failed.type == "NonDeterministicCall"
    assert "ctx.as_completed" in play.failed.message


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_are_refused() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

    assert "never eager" in Play(program).failed.message


def test_4_1_9_a_future_of_the_host_is_a_type_error() -> None:
    async def main() -> str:
        foreign = asyncio.get_running_loop().create_future()

        async def program(ctx: OrchestrationContext) -> None:
            await foreign

        return Play(program).failed.type

    assert asyncio.run(main()) == "TypeError"


def test_4_1_9_awaiting_no_task_is_a_type_error() -> None:
    class Odd:
        def __await__(self) -> Any:
            yield "odd"

    async def odd(ctx: OrchestrationContext) -> None:
        await Odd()

    async def number(ctx: OrchestrationContext) -> None:
        await 5  # type: ignore[misc]

    def generator(ctx: OrchestrationContext) -> Any:
        yield 5

    for program in (odd, number, generator):
        assert Play(program).failed.type == "TypeError"
    assert "yielded 5 of type int" in Play(generator).failed.message


# --- limits ----------------------------------------------------------------------------------------------------------


def test_code_that_never_rests_fails() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        for _ in itertools.repeat(ctx):
            await asyncio.sleep(0)

    play = Play(program, options=ProgramOptions(callbacks_max=1000))
    assert "more than 1000 callbacks" in play.failed.message


def test_4_2_8_too_many_actions_fail_the_execution_even_if_the_code_catches_it() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        for i in range(100):
            try:
                ctx.call_activity("a", i)
            except Exception:  # noqa: BLE001 - the point of the test
                pass
        await ctx.create_timer(1)

    play = Play(program, options=ProgramOptions(actions_max=10))
    assert "more than 10 actions" in play.failed.message
    assert len(play.made) == 11


def test_too_many_statuses_fail_the_execution() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        while True:
            ctx.set_custom_status("busy")

    assert "more than 10 actions" in Play(program, options=ProgramOptions(actions_max=10)).failed.message


# --- callbacks and contexts ------------------------------------------------------------------------------------------


def test_a_plain_callback_that_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise ValueError("in a callback")

    async def program(ctx: OrchestrationContext) -> None:
        asyncio.get_running_loop().call_soon(fails)
        await ctx.call_activity("a")

    play = Play(program, shadow=False)
    play.replayed().close()
    assert ["in a callback" in (record.exc_text or str(record.exc_info)) for record in caplog.records] == [
        True
    ]


def test_a_program_may_set_its_exception_handler() -> None:
    async def program(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        assert loop.get_exception_handler() is None
        loop.set_exception_handler(lambda _, context: seen.append(context["message"]))
        loop.call_soon(int, "x")
        await asyncio.sleep(0)
        return seen

    assert "Exception in callback" in Play(program).result[0]


def test_a_handle_can_be_cancelled_before_its_turn() -> None:
    async def program(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []
        handle = asyncio.get_running_loop().call_soon(seen.append, "no")
        handle.cancel()
        asyncio.get_running_loop().call_soon(seen.append, "yes")
        await asyncio.sleep(0)
        return seen

    assert Play(program).result == ["yes"]


def test_context_variables_of_the_host_are_not_seen_and_not_touched() -> None:
    variable = contextvars.ContextVar("variable", default="default")

    async def program(ctx: OrchestrationContext) -> list[str]:
        seen = [variable.get()]
        variable.set("program")

        async def child() -> str:
            before = variable.get()
            variable.set("child")
            return before

        seen.append(await asyncio.create_task(child()))
        await ctx.call_activity("a")
        return [*seen, variable.get()]

    variable.set("host")
    play = Play(program)
    play.complete(0)
    assert play.result == ["default", "program", "program"]
    assert variable.get() == "host"
