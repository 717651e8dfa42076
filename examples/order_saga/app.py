"""The order saga: reserve the goods, charge the customer, ship; if a step fails, undo the steps before it.

Read from top to bottom: the models, the activities, which touch the world, and at the end the orchestrator, which
calls them and survives every crash. The shop's own database is in `shop.py`.
"""

import os
import time
from dataclasses import dataclass
from datetime import timedelta

from durably import (
    ActivityContext,
    App,
    NonRetryableError,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
)
from examples.order_saga.shop import Shop

app = App()

# Configuration comes from the environment, as in any service. Importing this file opens nothing.
shop = Shop(os.environ.get("SHOP_DB", "shop.db"), step_s=float(os.environ.get("SHOP_STEP_S", "0.4")))

DELIVERY_AREA = ("Bergen", "Oslo", "Trondheim")
CARRIER_ANSWER_S = 5.0
BUSY_CARD = "test-card-gateway-busy"  # a test card, as payment providers have them: its first charge fails


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
# They are plain functions, because sqlite3 blocks: the host runs them in threads. An `async def` would run on its loop.


class OutOfStockError(NonRetryableError):
    """Trying again would not help: no retry policy does."""


class GatewayBusyError(Exception):
    """The payment gateway is busy; in a moment it may not be."""


class UnknownAddressError(NonRetryableError):
    """The carrier does not deliver there."""


@app.activity
def reserve_inventory(order: Order, ctx: ActivityContext) -> None:
    """Take the goods of an order out of the stock: all of them, or none."""
    with shop.step("reserve_inventory", order.order_id, ctx):
        move_stock(order, -1, ctx.idempotency_key)


@app.activity
def restock(order: Order, ctx: ActivityContext) -> None:
    """Undo `reserve_inventory`."""
    with shop.step("restock", order.order_id, ctx):
        move_stock(order, +1, ctx.idempotency_key)


def move_stock(order: Order, sign: int, key: str) -> None:
    """Change the stock by the lines of an order, once per key."""
    with shop.transaction() as db:
        note = "INSERT INTO stock_moves VALUES (?, ?) ON CONFLICT DO NOTHING"
        if db.execute(note, (key, order.order_id)).rowcount == 0:
            return  # an earlier run of this call did it
        for line in order.lines:
            change = {"sku": line.sku, "change": sign * line.quantity}
            update = "UPDATE stock SET pieces = pieces + :change WHERE sku = :sku AND pieces + :change >= 0"
            if db.execute(update, change).rowcount == 0:
                # Rolls back the lines before this one, too, and the key with them.
                raise OutOfStockError(f"not enough of {line.sku}")


@app.activity
def charge_payment(order: Order, ctx: ActivityContext) -> Payment:
    """Take the money."""
    with shop.step("charge_payment", order.order_id, ctx):
        if order.card == BUSY_CARD and ctx.attempt == 1:
            raise GatewayBusyError("payment gateway is busy")
        number = book_money(order.order_id, order.total, ctx.idempotency_key)
        return Payment(number, order.order_id, order.total)


@app.activity
def refund_payment(payment: Payment, ctx: ActivityContext) -> None:
    """Undo `charge_payment`."""
    with shop.step("refund_payment", payment.order_id, ctx):
        book_money(payment.order_id, -payment.amount, ctx.idempotency_key)


def book_money(order_id: str, amount: int, key: str) -> int:
    """Write a payment, once per key, and return its number, also that of an earlier run."""
    with shop.transaction() as db:
        db.execute(
            "INSERT INTO payments (idempotency_key, order_id, amount) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (key, order_id, amount),
        )
        (number,) = db.execute("SELECT payment_id FROM payments WHERE idempotency_key = ?", (key,)).fetchone()
        return number


@app.activity
def arrange_shipping(order: Order, ctx: ActivityContext) -> Shipment:
    """Have the carrier collect the parcel."""
    with shop.step("arrange_shipping", order.order_id, ctx):
        if order.city not in DELIVERY_AREA:
            raise UnknownAddressError(f"address unknown: {order.city}")
        with shop.transaction() as db:
            booking = db.execute(
                "INSERT INTO shipments (idempotency_key, order_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (ctx.idempotency_key, order.order_id),
            )
            find = "SELECT shipment_id FROM shipments WHERE idempotency_key = ?"
            (number,) = db.execute(find, (ctx.idempotency_key,)).fetchone()
        if booking.rowcount == 1:
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
    """Three steps forward, or all the way back."""
    try:
        # An undo is recorded when its step has completed: one that failed has changed nothing, since each is a single
        # transaction. When a step fails, the saga runs the undos, the newest first, and raises the error again.
        async with ctx.saga() as saga:
            await saga.step(reserve_inventory, order, undo=restock, undo_retry=STUBBORN)
            await saga.step(
                charge_payment,
                order,
                retry=BUSY_GATEWAY,
                undo=refund_payment,
                undo_input=lambda payment: payment,
                undo_retry=STUBBORN,
            )
            shipment = await saga.step(arrange_shipping, order)
    except TaskFailedError as error:
        return OrderResult(order.order_id, "rejected", reason=error.details.message)
    return OrderResult(order.order_id, "shipped", tracking=shipment.tracking)
