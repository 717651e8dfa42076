"""The orchestrators of the comparison, each twice: for the real host, and below it what the reference model is told."""

from __future__ import annotations

import asyncio
from typing import Any

from durably import ActivityContext, App, OrchestrationContext, RetryPolicy, TaskFailedError
from tests.model.state import Instance
from tests.model.words import (
    Again,
    All,
    Call,
    Canceled,
    Child,
    Code,
    Failed,
    Failure,
    FirstOf,
    Join,
    Open,
    SendEvent,
    SetStatus,
    Sleep,
    StartOther,
    Wait,
)

app = App()
programs: dict[str, Any] = {}

PARTNERS = {"a": "b", "b": "c", "c": "a"}
"""Whom a relay sends to: each has one sender, since events of different senders have no order."""


def twin(code: Any) -> Any:
    """The model's side of the orchestrator of the same name."""
    programs[code.__name__.removeprefix("model_")] = code
    return code


# --- activities --------------------------------------------------------------------------------------------------


@app.activity
async def add_one(x: int) -> int:
    return x + 1


@app.activity
async def flaky(wanted: int, ctx: ActivityContext) -> str:
    if ctx.attempt < wanted:
        raise ValueError(f"attempt {ctx.attempt} of {wanted}")
    return f"attempt {ctx.attempt}"


def _flaky(wanted: int, attempt: int) -> str:
    if attempt < wanted:
        raise ValueError(f"attempt {attempt} of {wanted}")
    return f"attempt {attempt}"


health = {"broken": True}
"""Of the real hosts; the model keeps its own."""


@app.activity
async def brittle(x: int) -> int:
    if health["broken"]:
        raise ValueError(f"{x} is broken")
    return x


def _brittle(x: int, broken: bool) -> int:
    if broken:
        raise ValueError(f"{x} is broken")
    return x


activities = {
    "add_one": lambda x, attempt, broken: x + 1,
    "flaky": lambda wanted, attempt, broken: _flaky(wanted, attempt),
    "brittle": lambda x, attempt, broken: _brittle(x, broken),
}

# --- steps -------------------------------------------------------------------------------------------------------


@app.orchestrator
async def chain(ctx: OrchestrationContext, n: int) -> int:
    x = 0
    for _ in range(n):
        x = await ctx.call_activity(add_one, x)
    return x


@twin
def model_chain(instance: Instance, n: int) -> Code:
    x = 0
    for _ in range(n):
        x = yield Call("add_one", x)
    return x


@app.orchestrator
async def failing(ctx: OrchestrationContext, text: Any) -> None:
    raise ValueError(f"no {text}")


@twin
def model_failing(instance: Instance, text: Any) -> Code:
    raise Failed(Failure("ValueError", f"no {text}"))
    yield


@app.orchestrator
async def retrying(ctx: OrchestrationContext, wanted: int) -> str:
    return await ctx.call_activity(flaky, wanted, retry=RetryPolicy(1.0, 3, backoff_coefficient=2.0))


@twin
def model_retrying(instance: Instance, wanted: int) -> Code:
    return (yield Call("flaky", wanted, attempts=3))


@app.orchestrator
async def sleeper(ctx: OrchestrationContext, seconds: float) -> str:
    await ctx.create_timer(seconds)
    ctx.set_custom_status("half")
    await asyncio.sleep(seconds)
    return "slept"


@twin
def model_sleeper(instance: Instance, seconds: float) -> Code:
    yield Sleep(seconds)
    yield SetStatus("half")
    if seconds:  # sleep(0) only lets the other tasks run
        yield Sleep(seconds)
    return "slept"


@app.orchestrator
async def repaired(ctx: OrchestrationContext, n: int) -> list[Any]:
    """Fails while its activity is broken, but not at once: other things happen before and after the failure."""
    first = await ctx.call_activity(add_one, n)
    timer = ctx.create_timer(2.0)
    event = ctx.wait_for_external_event("item", timeout=60, default="none")
    try:
        second = await ctx.call_activity(brittle, n)
    except TaskFailedError:
        ctx.set_custom_status("undoing")
        await ctx.call_activity(add_one, 0)
        await ctx.wait_for_external_event("go", timeout=2, default="none")
        raise
    await timer
    return [first, second, await event]


@twin
def model_repaired(instance: Instance, n: int) -> Code:
    first = yield Call("add_one", n)
    timer = yield Open(Sleep(2.0))
    event = yield Open(Wait("item", 60, "none"))
    try:
        second = yield Call("brittle", n)
    except Failed as error:
        yield SetStatus("undoing")
        yield Call("add_one", 0)
        yield Wait("go", 2, "none")
        raise error from None
    yield Join(timer)
    return [first, second, (yield Join(event))]


# --- events ------------------------------------------------------------------------------------------------------


@app.orchestrator
async def collect(ctx: OrchestrationContext, n: int) -> list[Any]:
    got: list[Any] = []
    while len(got) < n:
        got.append(await ctx.wait_for_external_event("item"))
        ctx.set_custom_status({"got": len(got)})
    return got


@twin
def model_collect(instance: Instance, n: int) -> Code:
    got: list[Any] = []
    while len(got) < n:
        got.append((yield Wait("item")))
        yield SetStatus({"got": len(got)})
    return got


@app.orchestrator
async def pair(ctx: OrchestrationContext, n: int) -> list[Any]:
    """Two waits of one name at once, and one of another name."""
    waits = [ctx.wait_for_external_event(name) for name in ("item", "go", "ITEM")]
    return await ctx.when_all(waits)


@twin
def model_pair(instance: Instance, n: int) -> Code:
    return (yield All([Wait("item"), Wait("go"), Wait("ITEM")]))


@app.orchestrator
async def eternal(ctx: OrchestrationContext, total: int) -> int | None:
    value = await ctx.wait_for_external_event("item")
    if not value:
        return total
    ctx.set_custom_status(total + value)
    await ctx.call_activity(add_one, 0)
    ctx.continue_as_new(total + value)
    return None


@twin
def model_eternal(instance: Instance, total: int) -> Code:
    value = yield Wait("item")
    if not value:
        return total
    yield SetStatus(total + value)
    yield Call("add_one", 0)
    yield Again(total + value)
    return None


@app.orchestrator
async def forgetful(ctx: OrchestrationContext, n: int) -> Any:
    """Goes on without the events that it has not taken, and leaves a child and a timer behind."""
    if not n:
        return await ctx.wait_for_external_event("item", timeout=5, default="none")
    ctx.call_sub_orchestrator(collect, 1)
    ctx.create_timer(1.0)
    await ctx.wait_for_external_event("go")
    ctx.continue_as_new(n - 1, preserve_events=False)
    return None


@twin
def model_forgetful(instance: Instance, n: int) -> Code:
    if not n:
        return (yield Wait("item", timeout_s=5, default="none"))
    yield Open(Child("collect", 1))
    yield Open(Sleep(1.0))
    yield Wait("go")
    yield Again(n - 1, keep_events=False)
    return None


@app.orchestrator
async def patient(ctx: OrchestrationContext, seconds: float) -> list[Any]:
    first = await ctx.wait_for_external_event("item", timeout=seconds, default="late")
    return [first, await ctx.wait_for_external_event("item", timeout=seconds, default="late")]


@twin
def model_patient(instance: Instance, seconds: float) -> Code:
    first = yield Wait("item", seconds, "late")
    return [first, (yield Wait("item", seconds, "late"))]


@app.orchestrator
async def racer(ctx: OrchestrationContext, seconds: float) -> str:
    timer = ctx.create_timer(seconds)
    event = ctx.wait_for_external_event("item")
    return "timer" if await ctx.when_any([timer, event]) is timer else "event"


@twin
def model_racer(instance: Instance, seconds: float) -> Code:
    return ["timer", "event"][(yield FirstOf([Sleep(seconds), Wait("item")]))]


@app.orchestrator
async def relay(ctx: OrchestrationContext, n: int) -> str:
    for number in range(n):
        await ctx.wait_for_external_event("go")
        await ctx.send_event(PARTNERS.get(ctx.instance_id, "nobody"), "item", 10 + number)
    return "relayed"


@twin
def model_relay(instance: Instance, n: int) -> Code:
    for number in range(n):
        yield Wait("go")
        yield SendEvent(PARTNERS.get(instance.instance_id, "nobody"), "item", 10 + number)
    return "relayed"


# --- cancellation ------------------------------------------------------------------------------------------------


@app.orchestrator
async def stubborn(ctx: OrchestrationContext, n: int) -> Any:
    try:
        return await ctx.wait_for_external_event("item")
    except asyncio.CancelledError:
        return "stubborn"


@twin
def model_stubborn(instance: Instance, n: int) -> Code:
    try:
        return (yield Wait("item"))
    except Canceled:
        return "stubborn"


@app.orchestrator
async def tidy(ctx: OrchestrationContext, seconds: float) -> Any:
    try:
        return await ctx.wait_for_external_event("item")
    finally:
        await ctx.create_timer(seconds)
        ctx.set_custom_status(await ctx.call_activity(add_one, 1))


@twin
def model_tidy(instance: Instance, seconds: float) -> Code:
    canceled: Canceled | None = None
    value: Any = None
    try:
        value = yield Wait("item")
    except Canceled as order:
        canceled = order
    yield Sleep(seconds)
    yield SetStatus((yield Call("add_one", 1)))
    if canceled is not None:
        raise canceled
    return value


# --- families ----------------------------------------------------------------------------------------------------


@app.orchestrator
async def parent(ctx: OrchestrationContext, child: list[Any]) -> Any:
    name, value, instance_id, catches = child
    if instance_id == ctx.instance_id:
        instance_id = None
    try:
        return ["child", await ctx.call_sub_orchestrator(name, value, instance_id=instance_id)]
    except TaskFailedError as error:
        if not catches:
            raise
        ctx.set_custom_status(error.details.type)
    return ["second", await ctx.call_sub_orchestrator("collect", 1)]


@twin
def model_parent(instance: Instance, child: list[Any]) -> Code:
    name, value, instance_id, catches = child
    if instance_id == instance.instance_id:
        instance_id = None
    try:
        return ["child", (yield Child(name, value, instance_id))]
    except Failed as error:
        if not catches:
            raise
        cause = error.failure.inner
        yield SetStatus(cause and cause.type)
    return ["second", (yield Child("collect", 1))]


@app.orchestrator
async def family(ctx: OrchestrationContext, n: int) -> Any:
    return await ctx.when_all([ctx.call_sub_orchestrator(collect, 1) for _ in range(n)])


@twin
def model_family(instance: Instance, n: int) -> Code:
    return (yield All([Child("collect", 1) for _ in range(n)]))


@app.orchestrator
async def starter(ctx: OrchestrationContext, n: int) -> str:
    return await ctx.start_orchestration(collect, n)


@twin
def model_starter(instance: Instance, n: int) -> Code:
    return (yield StartOther("collect", n))
