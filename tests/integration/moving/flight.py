"""A hub with something of everything under way, and how all of it ends."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

from durably import App, AppHost, EntityId, OrchestrationContext, RetryPolicy
from durably.core.history import decode_rows
from durably.core.query import FIRST, InstanceQuery
from durably.storage.api import Store
from tests.support.clock import START, ManualClock
from tests.support.waiting import eventually, has_event, is_quiet, reaches

LATER_S = 7_200
"""The copy is served so much later."""

LARGE = "x" * 100_000

app = App()
ships = threading.Event()
"""Until then, shipping takes its time."""


@app.activity
async def ship(order: str) -> str:
    while not ships.is_set():  # noqa: ASYNC110 - it belongs to no loop
        await asyncio.sleep(0.005)
    return f"{order} shipped"


@app.activity
async def flaky(order: str) -> str:
    if not ships.is_set():
        raise ConnectionError("not yet")
    return order


@app.orchestrator
async def shipping(ctx: OrchestrationContext, orders: list[str]) -> list[str]:
    return await asyncio.gather(*(ctx.call_activity(ship, order) for order in orders))


@app.orchestrator
async def approval(ctx: OrchestrationContext, order: str) -> str:
    ctx.set_custom_status({"order": order[:10]})
    return order + await ctx.wait_for_external_event("Approved", str)


@app.orchestrator
async def sleeping(ctx: OrchestrationContext) -> str:
    await ctx.create_timer(timedelta(hours=1))
    return "awake"


@app.orchestrator
async def retrying(ctx: OrchestrationContext) -> str:
    policy = RetryPolicy(first_retry_interval=timedelta(minutes=5), max_number_of_attempts=3)
    return await ctx.call_activity(flaky, "again", retry=policy)


@app.orchestrator
async def parent(ctx: OrchestrationContext) -> str:
    return await ctx.call_sub_orchestrator(approval, "child ")


@app.orchestrator
async def rounds(ctx: OrchestrationContext, number: int) -> int:
    if number < 3:
        ctx.continue_as_new(number + 1)
        return 0
    return number + await ctx.wait_for_external_event("More", int)


@app.orchestrator
async def rewound(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(flaky, "rewound")


@app.entity
class Account:
    euros: int = 0

    def deposit(self, euros: int) -> int:
        self.euros += euros
        return self.euros


@app.orchestrator
async def audit(ctx: OrchestrationContext, account: str) -> int:
    async with ctx.lock_entities(EntityId("account", account)):
        await ctx.wait_for_external_event("Done")
        return await ctx.call_entity(EntityId("account", account), "deposit", 10, returns=int)


@app.orchestrator
async def tick(ctx: OrchestrationContext) -> str:
    return "tock"


ENDS = {
    "shipping": ["a shipped", "b shipped"],
    "sleeping": "awake",
    "retrying": "again",
    "rewound": "rewound",
    "suspended": "held now",
    "approval": LARGE + "ok",
    "parent": "child ok",
    "parent:0:0000": "child ok",
    "rounds": 8,
    "audit-1": 15,
    "audit-2": 25,
    "later": "tock",
}
MANY = 40
"""So many more that only wait: they go to all partitions."""


async def depart(host: AppHost) -> None:
    """Bring everything under way."""
    client = host.client
    await client.start(shipping, ["a", "b"], instance_id="shipping", tags={"kind": "ship"})
    await client.start(sleeping, instance_id="sleeping")
    await client.start(retrying, instance_id="retrying")
    await client.start(rewound, instance_id="rewound")
    await client.start(approval, "held ", instance_id="suspended")
    await client.start(approval, LARGE, instance_id="approval")
    await client.start(parent, instance_id="parent")
    await client.start(rounds, 0, instance_id="rounds")
    await client.start(tick, instance_id="later", start_at=timedelta(minutes=30))
    await client.call_entity(EntityId("account", "ann"), "deposit", 5)
    await client.signal_entity("@account@ann", "deposit", 1, at=timedelta(hours=100))
    await client.start(audit, "ann", instance_id="audit-1")
    await has_event(host, "audit-1", "EventAwaited")
    await client.start(audit, "ann", instance_id="audit-2")
    await has_event(host, "audit-2", "EntityLockRequested")
    await asyncio.gather(
        *(client.start(approval, "many ", instance_id=f"many-{number}") for number in range(MANY))
    )
    await client.schedules.create("beat", tick, interval=timedelta(hours=1))
    await reaches(host, "rewound", "Failed")
    await client.rewind("rewound", "again")
    await eventually(lambda: _has_bases(host), "the second execution")
    await has_event(host, "retrying", "TaskAttemptFailed")
    await has_event(host, "parent:0:0000", "EventAwaited")
    await has_event(host, "shipping", "TaskScheduled", 2)
    await reaches(host, "suspended", "Running")
    await client.suspend("suspended", "audit")
    await client.raise_event("suspended", "Approved", "now")
    await eventually(lambda: _has_round(host), "the last round")
    await is_quiet(host)


async def _has_bases(host: AppHost) -> bool:
    row = await host.engine.store.get_instance("rewound")
    return row is not None and row.bases is not None and row.status == "Failed"


async def _has_round(host: AppHost) -> bool:
    history = await host.client.get_history("rounds")
    return any(entry.event_type == "EventAwaited" for entry in history)


def later() -> ManualClock:
    """The clock of the host of the copy, which is about to start: what was to fail before succeeds from now on."""
    ships.set()
    return ManualClock(START + timedelta(seconds=LATER_S))


async def arrive(host: AppHost) -> None:
    """Bring everything to its end."""
    client = host.client
    ships.set()
    try:
        await reaches(host, "rewound", "Failed")  # it failed once more, before the copy
        await client.rewind("rewound", "and again")
        await client.resume("suspended")
        for instance_id in ("approval", "parent:0:0000"):
            await client.raise_event(instance_id, "Approved", "ok")
        await client.raise_event("rounds", "More", 5)
        for instance_id in ("audit-1", "audit-2"):
            await client.raise_event(instance_id, "Done")
        for number in range(MANY):
            await client.raise_event(f"many-{number}", "Approved", "ok")
        for instance_id in [*ENDS, *(f"many-{number}" for number in range(MANY))]:
            async with asyncio.timeout(30):
                status = await client.wait_for_completion(instance_id)
            assert status.output == ENDS.get(instance_id, "many ok"), (instance_id, status)
        assert await client.read_entity("@account@ann") == {"euros": 25}
        schedule = await client.schedules.describe("beat")
        assert schedule.orchestrator == "tick"
        run = await client.schedules.trigger("beat", overlap="allow")
        assert run is not None
        async with asyncio.timeout(30):
            assert (await client.wait_for_completion(run)).output == "tock"
        tagged = await client.query_instances(tags={"kind": "ship"})
        assert [one.instance_id for one in tagged.instances] == ["shipping"]
    finally:
        ships.clear()


async def check_histories(store: Store) -> int:
    """Decode every history: fails when a row is missing or was changed. Returns how many instances there are."""
    count, after = 0, FIRST
    while after is not None:
        found = await store.query(InstanceQuery(after=after, page_size=500))
        for row in found.rows:
            history = await store.read_history(row.instance_id)
            events, _ = decode_rows(row.instance_id, row.execution_id, history)
            assert events or row.status == "Pending", row
            count += 1
        after = found.next_after
    return count
