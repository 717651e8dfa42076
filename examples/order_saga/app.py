"""The order saga: reserve the goods, charge the customer, ship; if a step fails, undo the steps before it.

Read from top to bottom: the models, the activities, which touch the world, and at the end the orchestrator, which calls
them and survives every crash. The shop's own database is in `shop.py`, what it has to sell in `inventory.py`.
"""

import asyncio
import os
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from durably import (
    ActivityContext,
    App,
    Client,
    NonRetryableError,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
)
from examples.order_saga.inventory import Hold, inventory, inventory_of
from examples.order_saga.shop import Shop

app = App()
app.include(inventory)

# Configuration comes from the environment, as in any service. Importing this file opens nothing.
shop = Shop(os.environ.get("SHOP_DB", "shop.db"), step_s=float(os.environ.get("SHOP_STEP_S", "0.4")))

DELIVERY_AREA = ("Bergen", "Oslo", "Trondheim")
CARRIER_ANSWER_S = 5.0
BUSY_CARD = "test-card-gateway-busy"  # a test card, as payment providers have them: its first charge fails
LARGE_ORDER = 500_00
APPROVAL = timedelta(days=2)


# --- models: plain dataclasses; inputs and results become JSON by their annotations -----------------------------------


@dataclass(frozen=True)
class OrderLine:
    """Some pieces of one article. Prices are in cents: floats are not for money."""

    sku: str
    quantity: int
    unit_price: int


@dataclass(frozen=True)
class Order:
    """What a customer wants."""

    order_id: str
    city: str
    card: str
    lines: list[OrderLine]

    @property
    def total(self) -> int:
        """In cents."""
        return sum(line.quantity * line.unit_price for line in self.lines)

    @property
    def pieces(self) -> Counter[str]:
        """How many of which article, by SKU."""
        pieces = Counter[str]()
        for line in self.lines:
            pieces[line.sku] += line.quantity
        return pieces


@dataclass(frozen=True)
class Payment:
    """Money that was taken."""

    payment_id: int
    order_id: str
    amount: int


@dataclass(frozen=True)
class Shipment:
    """A parcel that the carrier has accepted."""

    tracking: str


@dataclass(frozen=True)
class OrderResult:
    """How an order ended: `state` is "shipped" or "rejected"."""

    order_id: str
    state: str
    tracking: str | None = None
    reason: str | None = None


# --- activities -------------------------------------------------------------------------------------------------------
#
# The runtime runs an activity at least once: after a crash it cannot know whether one that had begun got to its end, so
# it runs it again. Each activity here therefore writes `ctx.idempotency_key` under a unique constraint, in the same
# transaction as its effect. The key is the same for every run of one call, so a second run finds the effect of the
# first and leaves it at that: at least once for the code, exactly once for the customer.
#
# A terminate comes at any moment, also while the card is being charged. So the books decide: a step looks in its own
# transaction whether the order has been rejected, and what rejects the order takes back whatever came before that.
#
# They are plain functions, because sqlite3 blocks: the host runs them in threads. An `async def` would run on its loop.


class GatewayBusyError(Exception):
    """The payment gateway is busy; in a moment it may not be."""


class UnknownAddressError(NonRetryableError):
    """The carrier does not deliver there."""


@app.activity
def accept_order(order: Order, ctx: ActivityContext) -> None:
    """Enter the order into the books."""
    with shop.step("accept_order", order.order_id, ctx):
        shop.open(order.order_id)


@app.activity
def reject_order(order: Order, ctx: ActivityContext) -> None:
    """Undo `accept_order`, what was reserved since, and what a step did that was cut off before it could say so."""
    with shop.step("reject_order", order.order_id, ctx):
        shop.reject(order.order_id, ctx.idempotency_key)
        asyncio.run(release_goods(order))


async def release_goods(order: Order) -> None:
    """Give back what the order holds. Activities talk to entities as everybody outside does: as clients of the hub."""
    async with Client(os.environ.get("SHOP_HUB", "sqlite:///hub.db")) as client:
        for sku in order.pieces:
            await client.call_entity(inventory_of(sku), "release", order.order_id, timeout=20)


@app.activity
def charge_payment(order: Order, ctx: ActivityContext) -> Payment:
    """Take the money."""
    with shop.step("charge_payment", order.order_id, ctx):
        if order.card == BUSY_CARD and ctx.attempt == 1:
            raise GatewayBusyError("payment gateway is busy")
        with shop.transaction() as db:
            shop.check(db, order.order_id)
            number = shop.book_money(db, order.order_id, order.total, ctx.idempotency_key)
        return Payment(number, order.order_id, order.total)


@app.activity
def refund_payment(payment: Payment, ctx: ActivityContext) -> None:
    """Undo `charge_payment`."""
    with shop.step("refund_payment", payment.order_id, ctx), shop.transaction() as db:
        shop.book_money(db, payment.order_id, -payment.amount, ctx.idempotency_key)


@app.activity
def arrange_shipping(order: Order, ctx: ActivityContext) -> Shipment:
    """Have the carrier collect the parcel."""
    with shop.step("arrange_shipping", order.order_id, ctx):
        if order.city not in DELIVERY_AREA:
            raise UnknownAddressError(f"address unknown: {order.city}")
        with shop.transaction() as db:
            shop.check(db, order.order_id)
            number, is_new = shop.book_parcel(db, order.order_id, ctx.idempotency_key)
        if is_new:
            # The parcel is booked, but the answer takes its time: the worst moment for a crash, and the one that the
            # demo picks. A booking that is there already is answered at once.
            time.sleep(CARRIER_ANSWER_S)
        return Shipment(f"PARCEL-{number:04}")


# --- the orchestrator -------------------------------------------------------------------------------------------------
#
# Ordinary async code whose every `await` is durable: after a crash it is replayed from its history up to where it was.
# For that it must decide alike each time, so it does no I/O and reads no clock itself: activities do, and `ctx` has one.

BUSY_GATEWAY = RetryPolicy(
    first_retry_interval=timedelta(seconds=0.5),
    max_number_of_attempts=4,
    backoff_coefficient=2,
)

# What has been taken must be given back: a compensation gives up only after days.
STUBBORN = RetryPolicy(
    first_retry_interval=timedelta(seconds=1),
    max_number_of_attempts=1_000,
    backoff_coefficient=2,
    max_retry_interval=timedelta(minutes=10),
)


@app.orchestrator
async def process_order(ctx: OrchestrationContext, order: Order) -> OrderResult:
    """All the way forward, or all the way back."""
    try:
        # An undo is recorded when its step has completed: one that failed has changed nothing, since each is a single
        # transaction. When the block fails, times out or is cancelled, the saga runs the undos, the newest first, and
        # raises the error again. When the order is terminated, they run as a child of its own.
        async with ctx.saga() as saga:
            # Recorded before anything is reserved, so there is no moment at which goods are held and nobody knows.
            await saga.step(accept_order, order, undo=reject_order, undo_retry=STUBBORN)
            await reserve_goods(ctx, order)
            await saga.step(
                charge_payment,
                order,
                retry=BUSY_GATEWAY,
                undo=refund_payment,
                undo_input=lambda payment: payment,
                undo_retry=STUBBORN,
            )
            if order.total >= LARGE_ORDER:
                ctx.set_custom_status("waits for approval")
                await ctx.wait_for_external_event("Approved", timeout=APPROVAL)
            shipment = await saga.step(arrange_shipping, order)
            # Leave in the commit that records the shipment: no crash and no terminate comes between the two.
            for sku in order.pieces:
                ctx.signal_entity(inventory_of(sku), "ship", order.order_id)
    except TaskFailedError as error:
        return OrderResult(order.order_id, "rejected", reason=error.details.message)
    except TimeoutError:
        return OrderResult(order.order_id, "rejected", reason=f"not approved within {APPROVAL.days} days")
    return OrderResult(order.order_id, "shipped", tracking=shipment.tracking)


async def reserve_goods(ctx: OrchestrationContext, order: Order) -> None:
    """Ask for all articles at once; the first that has not enough left fails the order."""
    holds = [
        ctx.call_entity(inventory_of(sku), "reserve", Hold(order.order_id, pieces))
        for sku, pieces in order.pieces.items()
    ]
    await ctx.when_all(holds)
