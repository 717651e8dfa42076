"""The mails of an order: confirmation, shipping, and after some days a request for a review. Each arrives once.

SMTP alone cannot promise that: when a program dies between the server's "250 OK" and its own note of it, nobody knows
whether the mail is out, so it is sent again. All that a sender can do is to give both the same Message-ID.
"""

import os
import smtplib
import time
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path

from durably import (
    ActivityContext,
    App,
    NonRetryableError,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
)
from examples.effects import transaction

app = App()

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY, address TEXT NOT NULL, state TEXT NOT NULL, note TEXT NOT NULL);
"""

SENDER = "shop@shop.example"
ANSWER_S = 10.0


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """What a customer has bought. `review_after_s` is the time between parcel and review request: a week in real life."""

    order_id: str
    address: str
    article: str
    review_after_s: float


@dataclass(frozen=True)
class Mail:
    """A few words to a customer."""

    to: str
    subject: str
    text: str


@dataclass(frozen=True)
class State:
    """Where an order stands: "confirmed", "shipped", "done", or "unreachable" when the customer gets no mails."""

    order: Order
    state: str
    note: str = ""


# --- activities -------------------------------------------------------------------------------------------------------


class DeferredError(Exception):
    """The server did not take it now: any status 4xx, or no answer at all."""


class RefusedError(NonRetryableError):
    """The server will never take it: any status 5xx."""


@app.activity(max_concurrent=4)  # as many connections as a mail server likes to have from one client
def send_mail(mail: Mail, ctx: ActivityContext) -> None:
    """Hand a mail to the server. All attempts of one call have one Message-ID, so a second copy can be told."""
    message = EmailMessage()
    message["Message-ID"] = f"<{sha256(ctx.idempotency_key.encode()).hexdigest()}@shop.example>"
    message["Date"] = formatdate()
    try:
        message["From"], message["To"], message["Subject"] = SENDER, mail.to, mail.subject
    except ValueError as error:  # a line break in the address: no server may ever see it
        raise RefusedError(f"'{mail.to}' is no address: {error}") from None
    message.set_content(mail.text)

    host, _, port = os.environ.get("SHOP_SMTP", "127.0.0.1:25").rpartition(":")
    try:
        with smtplib.SMTP(host, int(port), timeout=ANSWER_S) as server:
            server.send_message(message)
    except OSError as error:  # also what smtplib raises
        raise verdict_on(error) from None
    # It is out and the runtime does not know it yet: a kill hurts most here, so the example lingers.
    time.sleep(float(os.environ.get("SHOP_STEP_S", "0")))


def verdict_on(error: OSError) -> Exception:
    """Whether another attempt makes sense: the server says so by the first digit of its status."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, reason = next(iter(error.recipients.values()))
    elif isinstance(error, smtplib.SMTPResponseException):
        code, reason = error.smtp_code, error.smtp_error
    else:
        return DeferredError(f"no answer: {error}")
    text = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
    return RefusedError(f"{code} {text}") if code >= 500 else DeferredError(f"{code} {text}")


@app.activity
def enter(state: State) -> None:
    """Enter where an order stands. Setting a value twice is setting it once."""
    database = Path(os.environ.get("SHOP_DB", "orders.db"))
    with transaction(database) as db:
        db.execute(
            "INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)",
            (state.order.order_id, state.order.address, state.state, state.note),
        )


# --- the orchestrator -------------------------------------------------------------------------------------------------

# Servers that greylist want another attempt after minutes, a server that is being repaired after hours. The delays are
# durable timers, 0.1 s here.
POSTMAN = RetryPolicy(
    first_retry_interval=0.1, max_number_of_attempts=12, backoff_coefficient=2, max_retry_interval=3600
)
PATIENT = RetryPolicy(first_retry_interval=1, max_number_of_attempts=10, backoff_coefficient=2)


@app.orchestrator
async def accompany_order(ctx: OrchestrationContext, order: Order) -> State:
    """One instance for each order, from the purchase to the review: weeks, most of which are rows in a file."""
    try:
        state = State(order, "done", await write_mails(ctx, order))
    except TaskFailedError as error:
        if not error.details.is_caused_by(RefusedError):
            raise  # the server was down for hours: the instance fails, and `rewind` sends it on its way again
        state = State(order, "unreachable", error.details.message)  # somebody has to call this customer
    await ctx.call_activity(enter, state, retry=PATIENT)
    return state


async def write_mails(ctx: OrchestrationContext, order: Order) -> str:
    """The three mails, each at its time; what there is to note at the end."""

    async def mail(subject: str, text: str) -> None:
        letter = Mail(order.address, f"{subject} ({order.order_id})", text)
        await ctx.call_activity(send_mail, letter, retry=POSTMAN)

    await mail("Thank you for your order", f"You have bought: {order.article}.")
    await ctx.call_activity(enter, State(order, "confirmed"), retry=PATIENT)

    parcel = await ctx.wait_for_external_event("Shipped", str)
    await mail("Your parcel is on its way", f"Its number is {parcel}.")
    await ctx.call_activity(enter, State(order, "shipped", parcel), retry=PATIENT)

    # A timer that an event may end: nobody praises what he has sent back.
    returned = await ctx.wait_for_external_event(
        "Returned", bool, timeout=order.review_after_s, default=False
    )
    if returned:
        return "returned"
    await mail("How do you like it?", f"Please write a review of: {order.article}.")
    return "asked for a review"
