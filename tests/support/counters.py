"""An entity "counter", as a class and as a function, and orchestrations that work with it."""

from __future__ import annotations

import asyncio
from typing import Any

from durably import App, AppHost, EntityContext, EntityId, OrchestrationContext

A, B, C = EntityId("counter", "a"), EntityId("counter", "b"), EntityId("counter", "c")

STYLES = ["class", "function"]


def counters(style: str = "class") -> App:
    """An app with the entity "counter": add, get (read-only), fail (which changes, signals and starts before it does).

    Its orchestrations: "send" signals and calls as told; "hold" locks entities until "go" and adds 1 to each; "noted"
    completes at once.
    """
    app = App()
    if style == "class":
        app.entity(name="Counter", read_only=["get"])(Counter)
    else:
        app.entity(name="Counter", read_only=["get"])(counter)
    app.orchestrator(send)
    app.orchestrator(hold)
    app.orchestrator(noted)
    return app


class Counter:
    """The state is ``{"value": …}``."""

    value: int = 0

    def add(self, number: int) -> int:
        self.value += number
        return self.value

    def get(self) -> int:
        return self.value

    def fail(self, number: int, ctx: EntityContext) -> None:
        self.value += number
        leave_traces(ctx)
        raise ValueError(f"no {number}")


def counter(ctx: EntityContext) -> Any:
    """The state is a number."""
    value = ctx.get_state(int, 0)
    match ctx.operation_name:
        case "add":
            ctx.set_state(value + ctx.get_input(int))
            return ctx.get_state()
        case "get":
            return value
        case "fail":
            ctx.set_state(value + ctx.get_input(int))
            leave_traces(ctx)
            raise ValueError(f"no {ctx.get_input()}")
        case "delete":
            return None
        case other:
            raise ValueError(f"no operation '{other}'")


def leave_traces(ctx: EntityContext) -> None:
    """Send what must not leave with an operation that fails."""
    ctx.signal_entity(EntityId("counter", "traces"), "add", 1)
    ctx.start_orchestration("noted", instance_id="traces")


async def send(ctx: OrchestrationContext, steps: list[list[Any]]) -> list[Any]:
    """Each step is a verb, a key, an operation and its input."""
    results: list[Any] = []
    for verb, key, operation, value in steps:
        if verb == "signal":
            ctx.signal_entity(EntityId("counter", key), operation, value)
        else:
            results.append(await ctx.call_entity(EntityId("counter", key), operation, value))
    return results


async def hold(ctx: OrchestrationContext, how: dict[str, Any]) -> list[int]:
    """Lock `keys`, wait for the event "go", add 1 to each; then end as `end` says."""
    made: list[int] = []
    keys = how["keys"]
    async with ctx.lock_entities(*(EntityId("counter", key) for key in keys)):
        ctx.set_custom_status("locked")
        end = await ctx.wait_for_external_event("go")
        made += [await ctx.call_entity(EntityId("counter", key), "add", 1) for key in dict.fromkeys(keys)]
        if end == "raise":
            raise ValueError("inside the block")
        if end == "again":
            ctx.continue_as_new({"keys": keys})
            return []
        if end == "return":
            return made
    await ctx.wait_for_external_event("end")
    return made


async def noted(ctx: OrchestrationContext) -> str:
    return ctx.instance_id


async def value(host: AppHost, entity: EntityId = A) -> int | None:
    """What is committed; None when it does not exist."""
    state: Any = await host.client.read_entity(entity)
    return state["value"] if type(state) is dict else state  # pyright: ignore[reportUnknownVariableType]


async def holder(host: AppHost, entity: EntityId = A) -> str | None:
    """Who has it locked, as committed."""
    found = await host.client.get_entity(entity)
    return None if found is None else found.locked_by


class Gate:
    """Operations that wait until they are let through; `inside` and `most` tell how many ran at once."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0
        self.most = 0
        self.log: list[Any] = []

    async def pass_through(self, what: Any) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.log.append(what)
        await self.open.wait()
        self.inside -= 1
