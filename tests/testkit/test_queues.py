"""Queues in the test kit: delays and tries on virtual time, deaths in between."""

import asyncio
from datetime import timedelta

from durably import App, Client, OrchestrationContext, QueueMessage
from durably.testing import DurableEnvironment

app = App()


@app.orchestrator
async def ship(ctx: OrchestrationContext, item: str) -> str:
    return f"{item} at {ctx.current_utc_datetime:%d %b}"


@app.queue("orders", max_dequeue_count=3, visibility_timeout=timedelta(days=1))
async def take(item: str, message: QueueMessage, client: Client) -> None:
    if message.dequeue_count < 3:
        raise ConnectionError("the warehouse sleeps")
    await client.start(ship, item)


def test_a_message_is_tried_for_days_in_no_time_and_over_deaths() -> None:
    async def main() -> None:
        async with DurableEnvironment(app) as env:
            began = env.now
            env.kill_after(1)
            queue = env.client.queue("orders")
            await queue.send("tea", message_id="m1", delay=timedelta(days=7))
            await env.client.wait_for_completion("queue:orders:m1")
            assert await env.client.handle("orders:m1").result()
            # Whether the death came during a try, which counts as one, or between two of them is not said.
            assert timedelta(days=7) <= env.now - began <= timedelta(days=9, minutes=1)
            assert await queue.count() == 0
            assert await env.client.queue("orders-poison").count() == 0

    asyncio.run(main())
