"""Book the payments of a CSV file into accounts: page by page, so many at a time, and each exactly once.

The effect is one that shows when it happens twice: a balance grows. What prevents it is the idempotency key.
"""

import csv
import os
import time
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path

from durably import ActivityContext, App, NonRetryableError, OrchestrationContext, RetryPolicy
from examples.effects import transaction

app = App()

SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (account TEXT PRIMARY KEY, cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS bookings (
    idempotency_key TEXT PRIMARY KEY, line INTEGER NOT NULL, account TEXT NOT NULL, cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rejects (line INTEGER PRIMARY KEY, reason TEXT NOT NULL);
"""


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """What to import and how far it is: what one page hands to the next.

    Attributes:
        csv: The file: a header, then account and amount. It must not change while it is imported.
        page_size: Records in a page. A page is an execution: its history stays short, however long the file is.
        max_in_flight: Records that are booked at the same time, at most.
        offset: Records done in pages before.
        booked: How many of them were booked.
        rejected: How many of them were not: their amount is none.
        found: How many of the booked ones a run had booked that was killed before the runtime knew of it.
    """

    csv: str
    page_size: int
    max_in_flight: int
    offset: int = 0
    booked: int = 0
    rejected: int = 0
    found: int = 0


@dataclass(frozen=True)
class Record:
    """One line of the file, as it is written there; the header is line 1."""

    line: int
    account: str
    amount: str


# --- activities -------------------------------------------------------------------------------------------------------


def database() -> Path:
    """Configuration comes from the environment, as in any service."""
    return Path(os.environ.get("CSV_IMPORT_DB", "accounts.db"))


@app.activity
def read_page(job: Import) -> list[Record]:
    """The next records; none at the end."""
    try:
        with Path(job.csv).open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            page = islice(rows, job.offset, job.offset + job.page_size)
            return [Record(rows.line_num, row["account"], row["amount"] or "") for row in page]
    except (FileNotFoundError, KeyError, UnicodeDecodeError) as error:
        raise NonRetryableError(f"{job.csv} is no CSV file with account and amount: {error!r}") from None


@app.activity
def book(record: Record, ctx: ActivityContext) -> str:
    """Book one record: "booked", "found" or "rejected". A bad record is a result, not a failure: the batch goes on."""
    cents = cents_of(record.amount)
    if cents is None:
        with transaction(database()) as db:
            reason = f"amount is {record.amount!r}, expected a number"
            db.execute("INSERT INTO rejects VALUES (?, ?) ON CONFLICT DO NOTHING", (record.line, reason))
        return "rejected"
    with transaction(database()) as db:
        note = db.execute(
            "INSERT INTO bookings VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (ctx.idempotency_key, record.line, record.account, cents),
        )
        # In the same transaction as the note. None was written: an earlier run of this call, killed before the
        # runtime knew of it, has moved the money already.
        if note.rowcount == 1:
            db.execute(
                "INSERT INTO accounts VALUES (?, ?) ON CONFLICT DO UPDATE SET cents = cents + excluded.cents",
                (record.account, cents),
            )
    # It is booked and the runtime does not know it yet: a kill hurts most here, so the example lingers.
    time.sleep(float(os.environ.get("CSV_IMPORT_RECORD_S", "0")))
    return "booked" if note.rowcount == 1 else "found"


def cents_of(amount: str) -> int | None:
    """An amount in cents, because floats are not for money; None when it is none."""
    try:
        cents = round(Decimal(amount) * 100)
    except (ArithmeticError, ValueError):  # no number; infinity; not a number
        return None
    return cents if abs(cents) < 10**15 else None


# --- the orchestrator -------------------------------------------------------------------------------------------------

PATIENT = RetryPolicy(first_retry_interval=1, max_number_of_attempts=5, backoff_coefficient=2)


@app.orchestrator
async def import_csv(ctx: OrchestrationContext, job: Import) -> Import:
    """One page; the last one is empty."""
    page = await ctx.call_activity(read_page, job, retry=PATIENT)
    if not page:
        return job

    # Of a thousand records, `max_in_flight` are open at any time: the next begins when one has ended.
    outcomes = await ctx.map(book, page, max_in_flight=job.max_in_flight, retry=PATIENT)

    job = replace(
        job,
        offset=job.offset + len(page),
        booked=job.booked + len(outcomes) - outcomes.count("rejected"),
        rejected=job.rejected + outcomes.count("rejected"),
        found=job.found + outcomes.count("found"),
    )
    ctx.set_custom_status({"done": job.offset, "rejected": job.rejected})
    ctx.continue_as_new(job)
    return job
