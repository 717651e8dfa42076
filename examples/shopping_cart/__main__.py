"""A crowd in a shop with too little of everything: who bought what, who was reminded, and whether the books agree."""

import argparse
import asyncio
import os
import sys
from collections import Counter
from pathlib import Path

from durably import Client, EntityId, Handle
from examples.command import at_least, command, count, run
from examples.effects import create, query
from examples.shopping_cart import last_year
from examples.shopping_cart.app import SCHEMA, Cart, Receipt, Stock
from examples.shopping_cart.customers import app, open_shop, visit

DELIVERIES = {"book": 30, "chair": 25, "lamp": 20, "pen": 40, "table": 15}


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Last year, today, and the books; the exit code says whether they agree."""
    database, hub = folder / "shop.db", f"sqlite:///{folder / 'hub.db'}"
    os.environ["CART_DB"] = str(database)
    os.environ["CART_REMIND_S"] = str(arguments.remind_after)
    os.environ["CART_STEP_S"] = str(arguments.step)
    create(database, SCHEMA)
    if not (folder / "hub.db").exists():
        async with last_year.app.host(hub) as host:
            for article in ("lamp", "lamp", "book"):
                await host.client.signal_entity("@cart@zoe", "add", article)

    async with app.host(hub) as host:
        await show(host.client, "zoe", "left behind last year")
        opening = await host.client.start(
            open_shop, DELIVERIES, instance_id="open-shop", on_existing="attach"
        )
        await opening.result()
        handles: list[Handle[Receipt | None]] = [
            await host.client.start(
                visit, list(DELIVERIES), instance_id=f"customer-{number:03}", on_existing="attach"
            )
            for number in range(1, arguments.customers + 1)
        ]
        receipts = {handle.instance_id: await handle.result() for handle in handles}
        ends = Counter(receipt.state if receipt else "left the cart" for receipt in receipts.values())
        print(", ".join(f"{number} {end}" for end, number in sorted(ends.items())))
        await reminded(
            database,
            {name for name, receipt in receipts.items() if not receipt or receipt.state == "sold out"},
        )
        for name, text in query(database, "SELECT customer, text FROM reminders ORDER BY customer LIMIT 2"):
            await show(host.client, name, f"was written to: {text}")
        return await agree(host.client, database)


async def reminded(database: Path, customers: set[str]) -> None:
    """Return when all of them have mail."""
    while True:
        found = {name for (name,) in query(database, "SELECT customer FROM reminders")}
        if customers <= found:
            return
        await asyncio.sleep(0.02)


async def show(client: Client, customer: str, remark: str) -> None:
    """A cart, as it was committed last: this read waits for nobody, also not for a checkout that has it locked."""
    cart = await client.read_entity(EntityId("cart", customer), Cart)
    print(f"  {customer}: {cart.pieces if cart else 'no cart'} ({remark})")


async def agree(client: Client, database: Path) -> bool:
    """Whether what was delivered is what is left and what was sold."""
    sold = dict(query(database, "SELECT article, sum(pieces) FROM orders GROUP BY article"))
    agreed = True
    for article, delivered in DELIVERIES.items():
        stock = await client.read_entity(EntityId("stock", article), Stock)
        left = stock.pieces if stock else 0
        agreed = agreed and delivered == left + sold.get(article, 0)
        print(f"  {article:6} delivered {delivered}, sold {sold.get(article, 0)}, left {left}")
    return agreed


parser = command("shopping_cart", "Carts and stocks as entities; a checkout that locks them.")
parser.add_argument("--customers", type=count, default=60, help="how many come (60)")
parser.add_argument(
    "--remind-after", type=at_least(0), default=0.5, help="seconds until a cart is abandoned (0.5)"
)
parser.add_argument("--step", type=at_least(0), default=0, help="seconds that each order lingers (0)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
