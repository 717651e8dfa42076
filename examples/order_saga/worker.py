"""A worker process: serves the hub and sees its orders through. Kill it whenever you like, and start it again.

Usage: python -m examples.order_saga.worker HUB_URL ORDER_ID ...
"""

import asyncio
import logging
import os
import sys

from durably import Client, Handle, OrchestrationFailedError
from examples.order_saga.app import (
    BUSY_CARD,
    Order,
    OrderLine,
    OrderResult,
    app,
    process_order,
    shop,
)
from examples.order_saga.inventory import Delivery, inventory_of

log = logging.getLogger("worker")

STOCK = {"book": 10, "chair": 8, "lamp": 5}
ORDERS = {
    order.order_id: order
    for order in (
        Order("order-1", "Bergen", "test-card", [OrderLine("lamp", 1, 49_00), OrderLine("book", 3, 12_50)]),
        Order("order-2", "Atlantis", BUSY_CARD, [OrderLine("lamp", 2, 49_00), OrderLine("chair", 4, 89_00)]),
        Order("order-3", "Oslo", "test-card", [OrderLine("chair", 8, 89_00)]),
    )
}


async def main(hub_url: str, *order_ids: str) -> None:
    """Open the hub, which goes on with all that is in flight, start what is new, and wait for all of it."""
    os.environ["SHOP_HUB"] = hub_url
    shop.create()
    async with app.host(hub_url) as host:
        for sku, pieces in STOCK.items():
            delivery = Delivery("opening stock", pieces)
            await host.client.call_entity(inventory_of(sku), "receive", delivery)
        handles: list[Handle[OrderResult]] = []
        for order_id in order_ids:
            known = await host.client.get_status(order_id)
            log.info("%s  %s", order_id, "is in the hub and goes on" if known else "is new")
            # The id makes the start idempotent: "attach" follows the instance that is there, so a worker that comes
            # back from a crash says the same as one that starts for the first time.
            handles.append(
                await host.client.start(
                    process_order, ORDERS[order_id], instance_id=order_id, on_existing="attach"
                )
            )
        for handle in handles:
            await see_through(host.client, handle)


async def see_through(client: Client, order: Handle[OrderResult]) -> None:
    """Wait until an order has ended, and, when somebody ended it, until it is undone."""
    try:
        result = await order.result()
        log.info("%s  %s %s", order.instance_id, result.state, result.tracking or f"({result.reason})")
    except OrchestrationFailedError as error:
        log.info("%s  %s: %s", order.instance_id, error.status, error.details.message)
        await client.wait_for_completion(f"{order.instance_id}:undo")
        log.info("%s  is undone", order.instance_id)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    asyncio.run(main(*sys.argv[1:]))
