"""Orchestrations for the simulation: each shape that the engine has to get right, with a result that can be foretold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from durably.app import App
from durably.errors import TaskFailedError
from durably.program.activity_context import ActivityContext
from durably.program.context import OrchestrationContext
from durably.program.retry_policy import RetryPolicy

Pause = Callable[[str], Awaitable[None]]
IsBroken = Callable[[str], bool]


def build_app(pause: Pause, is_broken: IsBroken = lambda _: False) -> App:
    """The app under simulation.

    Args:
        pause: Awaited by every activity when it begins, with its idempotency key; the simulation decides how long that
            takes, and notes that the activity ran.
        is_broken: Tells whether brittle activities of an instance fail.
    """
    app = App()
    _activities(app, pause)
    _brittle(app, pause, is_broken)
    _steps(app)
    _sagas(app)
    _events(app)
    _families(app)
    return app


def _activities(app: App, pause: Pause) -> None:
    @app.activity
    async def add_one(x: int, ctx: ActivityContext) -> int:
        await pause(ctx.idempotency_key)
        return x + 1

    @app.activity
    async def third_time_lucky(x: int, ctx: ActivityContext) -> int:
        await pause(ctx.idempotency_key)
        if ctx.attempt < 3:
            raise ValueError(f"attempt {ctx.attempt}")
        return x

    @app.activity
    async def never_ends(x: int, ctx: ActivityContext) -> int:
        await pause(ctx.idempotency_key)
        await asyncio.sleep(10_000_000)
        return x

    @app.activity
    async def always_fails(x: int, ctx: ActivityContext) -> int:
        await pause(ctx.idempotency_key)
        raise RuntimeError(f"no {x}")

    del add_one, third_time_lucky, never_ends, always_fails


def _brittle(app: App, pause: Pause, is_broken: IsBroken) -> None:
    """What fails until somebody mends it, and is rewound then."""

    @app.activity
    async def brittle(x: int, ctx: ActivityContext) -> int:
        await pause(ctx.idempotency_key)
        if x % 2 and is_broken(ctx.instance_id):
            raise RuntimeError(f"{x} is broken")
        return x

    @app.orchestrator
    async def mended(ctx: OrchestrationContext, n: int) -> int:
        """Some calls fail, some with a policy; others succeed behind the failure; what was done is undone."""
        base = await ctx.call_activity("add_one", 0, returns=int)
        policy = RetryPolicy(timedelta(seconds=1), 2)
        try:
            async with asyncio.timeout(90_000):
                calls = [
                    ctx.call_activity("brittle", i, retry=policy if i % 3 else None, returns=int)
                    for i in range(n)
                ]
                sleep = ctx.create_timer(timedelta(seconds=2))
                base += sum(await ctx.when_all(calls))
                await sleep
        except TaskFailedError:
            await ctx.call_activity("add_one", -1)
            await ctx.call_sub_orchestrator("chain", 1)
            raise
        return base

    @app.orchestrator
    async def line(ctx: OrchestrationContext, n: int) -> int:
        """Generations: the failure of the last one fails them all."""
        mine = await ctx.call_activity("add_one", 0, returns=int)
        if n == 0:
            return mine + await ctx.call_activity("brittle", 1, returns=int)
        policy = RetryPolicy(timedelta(seconds=1), 2) if n == 2 else None
        sister = ctx.call_sub_orchestrator("retried", n, returns=int)
        below = await ctx.call_sub_orchestrator("line", n - 1, retry=policy, returns=int)
        return mine + below + await sister

    @app.orchestrator
    async def dynasty(ctx: OrchestrationContext, n: int) -> list[str]:
        """Generations that end only by order, and clean up if they may."""
        calls = [ctx.call_sub_orchestrator("dynasty", n - 1) for _ in range(2) if n]
        try:
            await ctx.wait_for_external_event("never")
            return [await call for call in calls]
        finally:
            await ctx.call_activity("add_one", 1)

    del brittle, mended, line, dynasty


def _steps(app: App) -> None:
    @app.orchestrator
    async def chain(ctx: OrchestrationContext, n: int) -> int:
        x = 0
        for _ in range(n):
            x = await ctx.call_activity("add_one", x, returns=int)
        return x

    @app.orchestrator
    async def fan(ctx: OrchestrationContext, n: int) -> int:
        return sum(await asyncio.gather(*(ctx.call_activity("add_one", i, returns=int) for i in range(n))))

    @app.orchestrator
    async def patched(ctx: OrchestrationContext, n: int) -> int:
        """Every other round was changed, and says so; the rest is as it was."""
        x = 0
        for i in range(n):
            if i % 2 and ctx.patched(f"round {i}"):
                async with asyncio.timeout(90_000):
                    x = await ctx.call_activity("add_one", x, returns=int)
            else:
                x = await ctx.call_activity("add_one", x, returns=int)
        return x

    @app.orchestrator
    async def retried(ctx: OrchestrationContext, x: int) -> int:
        policy = RetryPolicy(timedelta(seconds=1), 5, backoff_coefficient=2.0, jitter=0.5)
        return await ctx.call_activity("third_time_lucky", x, retry=policy, returns=int)

    @app.orchestrator
    async def timed_out(ctx: OrchestrationContext, x: int) -> str:
        try:
            await ctx.call_activity("never_ends", x, timeout=3.0)
        except TimeoutError:
            return "late"
        return "early"

    @app.orchestrator
    async def race(ctx: OrchestrationContext, n: int) -> str:
        """A hung activity loses against a timer; a group loses a member and cancels the others."""
        slow = ctx.call_activity("never_ends", n)
        timer = ctx.create_timer(timedelta(seconds=2))
        winner = await ctx.when_any([slow, timer])
        slow.cancel()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_forever(ctx, n))
                group.create_task(_failing(ctx, n))
        except* TaskFailedError:
            failed = True
        else:
            failed = False
        if not failed:
            return "nothing failed"
        return "timer first" if winner is timer else "activity first"

    del chain, fan, patched, retried, timed_out, race


async def _forever(ctx: OrchestrationContext, n: int) -> None:
    await ctx.call_activity("never_ends", n)


async def _failing(ctx: OrchestrationContext, n: int) -> None:
    await ctx.call_activity("always_fails", n)


def _sagas(app: App) -> None:
    @app.orchestrator(name="saga")
    async def there_and_back(ctx: OrchestrationContext, n: int) -> int:
        """Steps forward, some at a time, and all the way back; one undo fails."""
        policy = RetryPolicy(timedelta(seconds=1), 2)
        saga = ctx.saga()
        try:
            async with saga:
                steps = [saga.step("add_one", i, undo="add_one", undo_input=_negative) for i in range(n)]
                await asyncio.gather(*steps)
                await saga.step("add_one", n, undo="always_fails")
                await saga.step("always_fails", n, undo="add_one", retry=policy)
        except TaskFailedError:
            return n + len(saga.failed)
        return -1

    del there_and_back


def _negative(result: int) -> int:
    return -result


def _events(app: App) -> None:
    @app.orchestrator
    async def collector(ctx: OrchestrationContext, n: int) -> list[int]:
        """Takes n events of one name, in the order in which they were raised."""
        got: list[int] = []
        while len(got) < n:
            got.append(await ctx.wait_for_external_event("item", int))
            ctx.set_custom_status({"got": len(got)})
        return got

    @app.orchestrator
    async def ring(ctx: OrchestrationContext, state: dict[str, Any]) -> list[int]:
        """The same over continue-as-new: one event an execution."""
        got: list[int] = state["got"]
        got.append(await ctx.wait_for_external_event("ITEM", int))
        if len(got) == state["n"]:
            return got
        if len(got) % 3 == 0:
            await ctx.call_activity("add_one", len(got))
        ctx.continue_as_new({"n": state["n"], "got": got})
        return []

    @app.orchestrator
    async def patient(ctx: OrchestrationContext, n: int) -> str:
        """Nobody raises its event; it gives up n times and goes on."""
        for _ in range(n):
            if await ctx.wait_for_external_event("nothing", timeout=1.5, default="none") != "none":
                return "something"
        return "gave up"

    @app.orchestrator
    async def long_wait(ctx: OrchestrationContext, n: int) -> str:
        """Ends only by order."""
        del n
        try:
            await ctx.wait_for_external_event("never")
        finally:
            await ctx.call_activity("add_one", 1)
        return "raised"

    del collector, ring, patient, long_wait


def _families(app: App) -> None:
    @app.orchestrator
    async def parent(ctx: OrchestrationContext, n: int) -> int:
        children = [ctx.call_sub_orchestrator("chain", i + 1, returns=int) for i in range(n)]
        return sum(await ctx.when_all(children))

    @app.orchestrator
    async def unlucky_parent(ctx: OrchestrationContext, n: int) -> str:
        policy = RetryPolicy(timedelta(seconds=1), 2)
        try:
            await ctx.call_sub_orchestrator("failing_child", n, retry=policy)
        except TaskFailedError as error:
            return error.details.type
        return "fine"

    @app.orchestrator
    async def failing_child(ctx: OrchestrationContext, n: int) -> None:
        await ctx.call_activity("always_fails", n)

    @app.orchestrator
    async def ping(ctx: OrchestrationContext, n: int) -> int:
        """Sends to its partner and waits for the answer, n times."""
        partner = f"{ctx.instance_id}-pong"
        await ctx.start_orchestration("pong", n, instance_id=partner)
        total = 0
        for i in range(n):
            ctx.send_event(partner, "ball", {"from": ctx.instance_id, "n": i})
            total += await ctx.wait_for_external_event("back", int)
        return total

    @app.orchestrator
    async def pong(ctx: OrchestrationContext, n: int) -> int:
        for _ in range(n):
            ball = await ctx.wait_for_external_event("ball", dict[str, Any])
            ctx.send_event(ball["from"], "back", ball["n"] + 1)
        return n

    del parent, unlucky_parent, failing_child, ping, pong


def expected(name: str, n: int) -> Any:
    """The result of an orchestrator of this app that nobody disturbs for good."""
    results: dict[str, Any] = {
        "chain": n,
        "fan": n * (n + 1) // 2,
        "retried": n,
        "saga": n + 1,
        "patched": n,
        "timed_out": "late",
        "race": "timer first",
        "collector": list(range(n)),
        "ring": list(range(n)),
        "patient": "gave up",
        "parent": n * (n + 1) // 2,
        "unlucky_parent": "TaskFailedError",
        "mended": 1 + n * (n - 1) // 2,
        "line": n + 2 + n * (n + 1) // 2,
        "ping": n * (n + 1) // 2,
        "pong": n,
        "overdue": 2 * n,
    }
    return results[name]
