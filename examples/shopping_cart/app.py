"""A cart for each customer and a stock for each article, both entities; a checkout that locks what it sells."""

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from durably import ActivityContext, App, EntityContext, EntityId, OrchestrationContext, RetryPolicy
from examples.effects import transaction

app = App()

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    idempotency_key TEXT NOT NULL, customer TEXT NOT NULL, article TEXT NOT NULL, pieces INTEGER NOT NULL,
    PRIMARY KEY (idempotency_key, article));
CREATE TABLE IF NOT EXISTS reminders (idempotency_key TEXT PRIMARY KEY, customer TEXT NOT NULL, text TEXT NOT NULL);
"""

PIECES_MAX = 100


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """Some pieces of an article."""

    article: str
    pieces: int = 1


@dataclass(frozen=True)
class Basket:
    """What is in the cart of a customer, by article."""

    customer: str
    pieces: dict[str, int]


@dataclass(frozen=True)
class Receipt:
    """How a checkout ended: `state` is "sold", "sold out" or "empty"."""

    state: str
    basket: Basket


# --- entities ---------------------------------------------------------------------------------------------------------


def counted(state: Any, version: int) -> Any:
    """Last year's carts were lists of articles. Each is migrated when its customer comes back, if ever."""
    return {"pieces": Counter[str](state["articles"])}


@app.entity(read_only=["content"], state_version=1, migrate=counted, idle_ttl=timedelta(days=30))
@dataclass
class Cart:
    """The cart of the customer who is its key. Operations come one after the other; one that raises changes nothing."""

    pieces: dict[str, int] = field(default_factory=dict[str, int])
    changes: int = 0

    def add(self, item: Item, ctx: EntityContext) -> int:
        """Put more of an article in."""
        return self.set_quantity(Item(item.article, self.pieces.get(item.article, 0) + item.pieces), ctx)

    def set_quantity(self, item: Item, ctx: EntityContext) -> int:
        """Have so many of an article."""
        if not 1 <= item.pieces <= PIECES_MAX:
            raise ValueError(f"{item.pieces} x {item.article}: expected 1 to {PIECES_MAX} pieces")
        self.pieces[item.article] = item.pieces
        self._changed(ctx)
        return item.pieces

    def remove(self, article: str, ctx: EntityContext) -> None:
        """Take an article out."""
        self.pieces.pop(article, None)
        self._changed(ctx)

    def content(self) -> dict[str, int]:
        """What is in it."""
        return self.pieces

    def checkout(self) -> None:
        """It was sold."""
        self.pieces = {}
        self.changes += 1

    def _changed(self, ctx: EntityContext) -> None:
        """Have a look at it later: a signal to itself. There is none to call back; `remind` sees whether it is stale."""
        self.changes += 1
        ctx.signal_entity(
            ctx.entity_id, "remind", self.changes, at=float(os.environ.get("CART_REMIND_S", "86400"))
        )

    def remind(self, change: int, ctx: EntityContext) -> None:
        """Nothing has changed since: remind the customer. An entity has no effects outside; an orchestration has."""
        if change == self.changes and self.pieces:
            basket = Basket(ctx.entity_key, self.pieces)
            ctx.start_orchestration(
                remind_customer, basket, instance_id=f"reminder-{ctx.entity_key}-{change}"
            )


@app.entity(read_only=["available"])
@dataclass
class Stock:
    """What there is of the article that is its key."""

    pieces: int = 0

    def deliver(self, pieces: int) -> None:
        """More of it."""
        self.pieces += pieces

    def take(self, pieces: int) -> None:
        """Less of it."""
        if pieces > self.pieces:
            raise ValueError(f"there are only {self.pieces} pieces")
        self.pieces -= pieces

    def available(self) -> int:
        """How many there are."""
        return self.pieces


# --- activities -------------------------------------------------------------------------------------------------------


def database() -> Path:
    """Configuration comes from the environment, as in any service."""
    return Path(os.environ.get("CART_DB", "shop.db"))


@app.activity
def record_order(basket: Basket, ctx: ActivityContext) -> None:
    """Write the order, once per call: the key is unique."""
    with transaction(database()) as db:
        rows = [(ctx.idempotency_key, basket.customer, *item) for item in basket.pieces.items()]
        db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)
    # It is written and the runtime does not know it yet: a kill hurts most here, so the example lingers.
    time.sleep(float(os.environ.get("CART_STEP_S", "0")))


@app.activity
def write_reminder(basket: Basket, ctx: ActivityContext) -> None:
    """Write to the customer, once per call."""
    text = "Still in your cart: " + ", ".join(
        f"{count} x {article}" for article, count in basket.pieces.items()
    )
    with transaction(database()) as db:
        row = (ctx.idempotency_key, basket.customer, text)
        db.execute("INSERT INTO reminders VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row)


# --- orchestrators ----------------------------------------------------------------------------------------------------

PATIENT = RetryPolicy(first_retry_interval=1, max_number_of_attempts=10, backoff_coefficient=2)


@app.orchestrator
async def remind_customer(ctx: OrchestrationContext, basket: Basket) -> None:
    """Started by a cart."""
    await ctx.call_activity(write_reminder, basket, retry=PATIENT)


@app.orchestrator
async def check_out(ctx: OrchestrationContext, customer: str) -> Receipt:
    """Sell what is in a cart: all of it or nothing, and never a piece that is not there."""
    cart = EntityId("cart", customer)
    while True:
        # What is to be locked has to be known before. A cart that changes until then is looked at again.
        wanted = await ctx.call_entity(cart, "content", returns=dict[str, int])
        basket = Basket(customer, wanted)
        if not wanted:
            return Receipt("empty", basket)
        stocks = {article: EntityId("stock", article) for article in wanted}
        async with ctx.lock_entities(cart, stocks.values()):
            if await ctx.call_entity(cart, "content", returns=dict[str, int]) != wanted:
                continue
            for article, pieces in wanted.items():
                if await ctx.call_entity(stocks[article], "available", returns=int) < pieces:
                    return Receipt("sold out", basket)  # the locks end with the block
            # What may fail comes first: a critical section is no transaction, and nothing would put the goods back.
            await ctx.call_activity(record_order, basket, retry=PATIENT)
            for article, pieces in wanted.items():
                await ctx.call_entity(stocks[article], "take", pieces)
            await ctx.call_entity(cart, "checkout")
            return Receipt("sold", basket)
