"""A worker process: serves the hub and sees its orders through. Kill it whenever you like, and start it again.

Usage: python -m examples.order_saga.worker HUB_URL ORDER_ID ...
"""

import asyncio
import logging
import sys

from durably import Handle
from examples.order_saga.app import BUSY_CARD, Order, OrderLine, OrderResult, app, process_order

log = logging.getLogger("worker")

ORDERS = {
    order.order_id: order
    for order in (
        Order("order-1", "Bergen", "test-card", [OrderLine("lamp", 1, 49_00), OrderLine("book", 3, 12_50)]),
        Order("order-2", "Atlantis", BUSY_CARD, [OrderLine("lamp", 2, 49_00), OrderLine("chair", 4, 89_00)]),
    )
}


async def main(hub_url: str, *order_ids: str) -> None:
    """Open the hub, which goes on with all that is in flight, start what is new, and wait for all of it."""
    async with app.host(hub_url) as host:
        handles: dict[str, Handle[OrderResult]] = {}
        for order_id in order_ids:
            known = await host.client.get_status(order_id)
            log.info("%s  %s", order_id, "is in the hub and goes on" if known else "is new")
            # The id makes the start idempotent: "attach" follows the instance that is there, so a worker that comes
            # back from a crash says the same as one that starts for the first time.
            handles[order_id] = await host.client.start(
                process_order, ORDERS[order_id], instance_id=order_id, on_existing="attach"
            )
        for order_id, handle in handles.items():
            result = await handle.result()
            log.info("%s  %s %s", order_id, result.state, result.tracking or f"({result.reason})")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    asyncio.run(main(*sys.argv[1:]))
