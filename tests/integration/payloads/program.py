"""A program that puts a secret into each place that a payload can reach, and is killed in the middle of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from durably import App, Client, EngineOptions, OrchestrationContext, RuntimeStatus, TaskFailedError
from tests.support.waiting import eventually, has_event

KINDS = [
    *(
        "input",
        "result",
        "status",
        "output",
        "failure",
        "cause",
        "custom",
        "error_of_task",
        "child",
        "child_result",
    ),
    *(
        "event",
        "held",
        "carried",
        "reason",
        "suspended",
        "orphan",
        "unreadable",
        "resumed",
        "next_input",
        "sent",
    ),
]

app = App()
secrets: dict[str, str] = {}
killed = Path("killed")
again = killed.exists()


class LedgerError(Exception):
    """An error of users, with fields."""

    def __init__(self, account: str) -> None:
        super().__init__(f"ledger refused {account}")
        self.account = account


@app.activity
async def work(order: dict[str, str]) -> str:
    assert order["secret"] == secrets["input"]
    return secrets["result"]


@app.activity
async def fail(_: Any) -> None:
    try:
        raise ValueError(secrets["cause"])
    except ValueError as error:
        raise LedgerError(secrets["custom"]) from error


@app.activity
def die(_: Any) -> str:
    """Kill the process, once, when all others have something in the file."""
    if not again:
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@app.orchestrator
async def child(ctx: OrchestrationContext, secret: str) -> str:
    assert secret == secrets["child"]
    return secrets["child_result"]


@app.orchestrator
async def keeper(ctx: OrchestrationContext, order: dict[str, str]) -> str:
    ctx.set_custom_status({"seen": secrets["status"]})
    await ctx.call_activity(work, order)
    try:
        await ctx.call_activity(fail, secrets["error_of_task"])
    except TaskFailedError:
        pass
    asyncio.get_running_loop().call_soon(_raise, secrets["orphan"])
    await ctx.call_sub_orchestrator(child, secrets["child"])
    await ctx.send_event("waiter", "Sent", secrets["sent"])
    await ctx.wait_for_external_event("Go")
    return secrets["output"]


def _raise(text: str) -> None:
    raise ValueError(text)


@app.orchestrator
async def waiter(ctx: OrchestrationContext, _: Any) -> str:
    await ctx.wait_for_external_event("Go")
    return "done"


@app.orchestrator
async def changes(ctx: OrchestrationContext, _: Any) -> str:
    """Another deployment asks for something else: code and history disagree."""
    await ctx.call_activity(fail if again else work, {"secret": secrets["input"]})
    await ctx.wait_for_external_event("Go")
    return "never"


@app.orchestrator
async def fails(ctx: OrchestrationContext, _: Any) -> None:
    raise LedgerError(secrets["failure"])


@app.orchestrator
async def eternal(ctx: OrchestrationContext, _: Any) -> None:
    await ctx.wait_for_external_event("First")
    ctx.continue_as_new(secrets["next_input"])


@app.orchestrator
async def killer(ctx: OrchestrationContext, _: Any) -> str:
    return await ctx.call_activity(die)


async def first(hub: str) -> None:
    async with app.host(hub) as host:
        client = host.client
        for fn in (keeper, waiter, changes, fails, eternal):
            await client.start(fn, {"secret": secrets["input"]}, instance_id=fn.__name__)
        await client.start(waiter, instance_id="stopped")
        await client.start(waiter, instance_id="doomed")
        await client.suspend("stopped", secrets["suspended"])
        await client.raise_event("stopped", "Go", secrets["held"])
        await client.raise_event("eternal", "Second", secrets["carried"])
        await client.raise_event("eternal", "First", None)
        await client.terminate("doomed", secrets["reason"])
        await client.wait_for_completion("fails")
        for name in ("keeper", "eternal", "changes"):
            await has_event(host, name, "EventAwaited")
        await client.start(killer, instance_id="killer")
        await asyncio.sleep(60)


async def second(hub: str) -> None:
    async with app.host(hub) as host:
        client = host.client
        for name in ("keeper", "killer", "waiter"):
            status = await client.wait_for_completion(name)
            assert status.runtime_status == RuntimeStatus.Completed, status
        status = await client.get_status("keeper")
        assert status is not None
        assert status.output == secrets["output"]
        assert status.custom_status == {"seen": secrets["status"]}
        doomed = await client.get_status("doomed")
        assert doomed is not None
        assert doomed.output == secrets["reason"]
        await client.raise_event("changes", "Go", None)
        await eventually(lambda: _is_blocked(client))
        await eventually(lambda: _has_parked(client))
        await client.resume("stopped", secrets["resumed"])
        await client.wait_for_completion("stopped")


async def _is_blocked(client: Client) -> bool:
    status = await client.get_status("changes")
    return status is not None and status.blocked is not None


async def _has_parked(client: Client) -> bool:
    return bool((await client.query_parked(kind="message")).items)


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG)
    secrets.update(json.loads(sys.stdin.read()))
    options = EngineOptions.from_environment()
    assert (options.encryption_keys is not None) == ("DURABLY_ENCRYPTION_KEYS" in os.environ)
    asyncio.run((second if again else first)(sys.argv[1]))
