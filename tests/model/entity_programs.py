"""Entities of the comparison, and the orchestrators that work with them, each twice as in `programs`.

Who comes first of two senders is not said anywhere. So a tally holds its entries sorted, and what an operation returns
does not depend on what others have sent, but inside of a critical section.
"""

from __future__ import annotations

from typing import Any

from durably import EntityContext, EntityOperationFailedError, OrchestrationContext
from tests.model.entities import Operation
from tests.model.programs import app, health, twin
from tests.model.state import Instance
from tests.model.words import (
    Again,
    CallEntity,
    Canceled,
    Code,
    Failed,
    Failure,
    Join,
    Lock,
    Open,
    Operate,
    SetStatus,
    SignalEntity,
    Sleep,
    Start,
    Unlock,
    Wait,
)

A, B, C = (f"@tally@{key}" for key in "abc")

# --- operations --------------------------------------------------------------------------------------------------


@app.entity(name="tally", read_only=["look"])
class Tally:
    held: list[str] = []  # noqa: RUF012 - each tally begins with a list of its own

    def note(self, what: str) -> str:
        self.held.append(what)
        self.held.sort()
        return what

    def count(self) -> int:
        return len(self.held)

    def look(self) -> list[str]:
        return self.held

    def refuse(self, what: str, ctx: EntityContext) -> str:
        """Fails while things are broken, and then has done nothing of what it did."""
        self.pass_on(what, ctx)
        if health["broken"]:
            raise ValueError(f"no {what}")
        return what

    def brittle(self, what: str) -> str:
        if health["broken"]:
            raise ValueError(f"{what} is broken")
        return what

    def pass_on(self, what: str, ctx: EntityContext) -> str:
        ctx.signal_entity(C, "note", f"{what} passed on")
        ctx.start_orchestration("collect", 1, instance_id=f"{what}:s")
        return self.note(what)


def _note(held: list[str], what: str, broken: bool) -> Any:
    return what, sorted([*held, what]), []


def _pass_on(held: list[str], what: str, broken: bool) -> Any:
    sent = [(C, Operate("note", f"{what} passed on")), (f"{what}:s", Start("collect", 1))]
    return what, sorted([*held, what]), sent


def _refuse(held: list[str], what: str, broken: bool) -> Any:
    if broken:
        raise ValueError(f"no {what}")
    return _pass_on(held, what, broken)


def _brittle(held: list[str], what: str, broken: bool) -> Any:
    if broken:
        raise ValueError(f"{what} is broken")
    return what, held, []


operations: dict[str, Operation] = {
    "note": _note,
    "pass_on": _pass_on,
    "refuse": _refuse,
    "brittle": _brittle,
    "count": lambda held, _, broken: (len(held), held, []),
    "look": lambda held, _, broken: (held, held, []),
}

# --- messages ----------------------------------------------------------------------------------------------------


@app.orchestrator
async def teller(ctx: OrchestrationContext, n: int) -> int:
    me = ctx.instance_id
    for number in range(n):
        ctx.signal_entity(A, "note", f"{me} {number}")
        ctx.signal_entity(C, "note", f"{me} {number} later", at=2.0)
        ctx.set_custom_status(await ctx.call_entity(B, "note", f"{me} {number}"))
        await ctx.wait_for_external_event("item", timeout=5, default=None)
    return n


@twin
def model_teller(instance: Instance, n: int) -> Code:
    me = instance.instance_id
    for number in range(n):
        yield SignalEntity(A, "note", f"{me} {number}")
        yield SignalEntity(C, "note", f"{me} {number} later", 2.0)
        yield SetStatus((yield CallEntity(B, "note", f"{me} {number}")))
        yield Wait("item", 5, None)
    return n


@app.orchestrator
async def rough(ctx: OrchestrationContext, n: int) -> str:
    try:
        await ctx.call_entity(A, "refuse", ctx.instance_id)
    except EntityOperationFailedError as error:
        ctx.set_custom_status(error.details.message)
        if n:
            raise
    return await ctx.call_entity(B, "pass_on", ctx.instance_id)


@twin
def model_rough(instance: Instance, n: int) -> Code:
    try:
        yield CallEntity(A, "refuse", instance.instance_id)
    except Failed as error:
        yield SetStatus(error.failure.inner and error.failure.inner.message)
        if n:
            raise
    return (yield CallEntity(B, "pass_on", instance.instance_id))


@app.orchestrator
async def fragile(ctx: OrchestrationContext, n: int) -> list[Any]:
    """Fails, while things are broken, with a call under way; or, where that is not locked, with its answer."""
    call = ctx.call_entity(A, "note", ctx.instance_id)
    await ctx.create_timer(0.5)
    for number in range(n):
        await ctx.call_entity(C, "brittle", f"{number}")
    return [await call, n]


@twin
def model_fragile(instance: Instance, n: int) -> Code:
    call = yield Open(CallEntity(A, "note", instance.instance_id))
    yield Sleep(0.5)
    for number in range(n):
        yield CallEntity(C, "brittle", f"{number}")
    return [(yield Join(call)), n]


# --- critical sections -------------------------------------------------------------------------------------------


def section(entities: tuple[str, ...], block: Code) -> Code:
    """What ``async with ctx.lock_entities(...)`` is to the model."""
    yield Lock(entities)
    try:
        value = yield from block
    except (Failed, Canceled) as error:
        yield Unlock()
        raise error from None
    yield Unlock()
    return value


@app.orchestrator
async def guard(ctx: OrchestrationContext, keys: str) -> int | None:
    """Locks some, and ends its block as it is told: by a value, an error, or another execution."""
    entities = [f"@tally@{key}" for key in keys]
    async with ctx.lock_entities(entities):
        ctx.set_custom_status("inside")
        before = await ctx.call_entity(entities[0], "count")
        how = await ctx.wait_for_external_event("go")
        for entity in entities:
            await ctx.call_entity(entity, "note", ctx.instance_id)
        if how == 2:
            raise ValueError("inside")
        if how == 3:
            ctx.continue_as_new(keys[:1])
            return None
        after = await ctx.call_entity(entities[0], "count")
    ctx.signal_entity(entities[-1], "note", f"{ctx.instance_id} behind")
    await ctx.wait_for_external_event("item", timeout=2, default=None)
    return after - before


@twin
def model_guard(instance: Instance, keys: str) -> Code:
    entities = tuple(f"@tally@{key}" for key in sorted(keys))
    first, last = f"@tally@{keys[0]}", f"@tally@{keys[-1]}"

    def block() -> Code:
        yield SetStatus("inside")
        before = yield CallEntity(first, "count")
        how = yield Wait("go")
        for key in keys:
            yield CallEntity(f"@tally@{key}", "note", instance.instance_id)
        if how == 2:
            raise Failed(Failure("ValueError", "inside"))
        if how == 3:
            yield Again(keys[:1])
            return None
        after = yield CallEntity(first, "count")
        return after - before

    grown = yield from section(entities, block())
    if grown is None:
        return None
    yield SignalEntity(last, "note", f"{instance.instance_id} behind")
    yield Wait("item", 2, None)
    return grown


@app.orchestrator
async def vault(ctx: OrchestrationContext, n: int) -> list[Any]:
    """Fails inside of its block while things are broken: at its end, or before something else is done in it."""
    async with ctx.lock_entities(A, B):
        await ctx.call_entity(A, "note", ctx.instance_id)
        for number in range(n):
            await ctx.call_entity(B, "brittle", f"{number}")
            await ctx.call_entity(A, "note", f"{ctx.instance_id} {number}")
        return [n]


@twin
def model_vault(instance: Instance, n: int) -> Code:
    def block() -> Code:
        yield CallEntity(A, "note", instance.instance_id)
        for number in range(n):
            yield CallEntity(B, "brittle", f"{number}")
            yield CallEntity(A, "note", f"{instance.instance_id} {number}")
        return [n]

    return (yield from section((A, B), block()))
