"""Sell to four customers, play the warehouse, and look into the mailboxes."""

import argparse
import asyncio
import os
import sys
from contextlib import nullcontext
from email import message_from_bytes, policy
from pathlib import Path

from durably import Handle, InstanceStateError
from examples.command import at_least, command, run
from examples.effects import create, query
from examples.order_mails.app import SCHEMA, Order, State, accompany_order, app
from examples.order_mails.post_office import open_post_office

ARTICLES = {
    "ann@example.org": "a lamp",
    "bob@example.org": "a chair",
    "cy@example.org": "a book",
    "nobody@example.org": "a clock",  # a typing error in the address
}
SENDS_BACK = "bob@example.org"


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """One instance for each order. Without a server of yours, one is opened here."""
    database, mail = folder / "orders.db", folder / "mail"
    create(database, SCHEMA)
    os.environ["SHOP_DB"] = str(database)
    os.environ["SHOP_STEP_S"] = str(arguments.step)
    office = (
        nullcontext()
        if arguments.smtp
        else open_post_office(mail, [a for a in ARTICLES if a[:6] != "nobody"])
    )
    with office as opened:
        os.environ["SHOP_SMTP"] = arguments.smtp or (opened.address if opened else "")
        async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
            handles: dict[str, Handle[State]] = {}
            for number, (address, article) in enumerate(ARTICLES.items(), 1):
                order = Order(f"order-{number}", address, article, arguments.review_after)
                handles[order.order_id] = await host.client.start(
                    accompany_order, order, instance_id=order.order_id, on_existing="attach"
                )
            print(f"{len(handles)} orders; mails go to {os.environ['SHOP_SMTP']}")
            warehouse = asyncio.create_task(ship(database, handles))
            for handle in handles.values():
                state = await handle.result()
                print(f"  {state.order.order_id}  {state.order.address:18}  {state.state}: {state.note}")
            warehouse.cancel()

    for box in sorted(mail.glob("*@*")):
        print(f"{box}:")
        letters = [message_from_bytes(file.read_bytes(), policy=policy.default) for file in box.glob("new/*")]
        for letter in sorted(letters, key=lambda letter: letter["Subject"]):
            print(f"  {letter['Subject']}")
    return True


async def ship(database: Path, handles: dict[str, Handle[State]]) -> None:
    """The warehouse: raises the events of orders that are confirmed, once."""
    shipped: set[str] = set()
    while len(shipped) < len(handles):
        for order_id, address in query(
            database, "SELECT order_id, address FROM orders WHERE state = 'confirmed'"
        ):
            if order_id not in shipped:
                shipped.add(order_id)
                try:
                    if address == SENDS_BACK:  # too early, and kept until somebody waits for it
                        await handles[order_id].raise_event("Returned", data=True)
                    await handles[order_id].raise_event("Shipped", f"parcel-{order_id}")
                except InstanceStateError as error:
                    print(error)
        await asyncio.sleep(0.02)


parser = command("order_mails", "The mails of an order over SMTP: each once, with retries and a long wait.")
parser.add_argument("--smtp", metavar="HOST:PORT", help="a mail server of yours; else one is opened")
parser.add_argument(
    "--review-after", type=at_least(0), default=0.5, help="seconds until the review request (0.5)"
)
parser.add_argument("--step", type=at_least(0), default=0, help="seconds that each mail lingers (0)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
