"""The shop's own database, as any business has one. It knows nothing of workflows, except a column for a key.

Besides the business it keeps a log of the runs of each step, so that the demo can prove what ran how often.
"""

import logging
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from durably import ActivityContext, NonRetryableError

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS payments (
    payment_id INTEGER PRIMARY KEY, idempotency_key TEXT NOT NULL UNIQUE, order_id TEXT NOT NULL,
    amount INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS shipments (
    shipment_id INTEGER PRIMARY KEY, idempotency_key TEXT NOT NULL UNIQUE, order_id TEXT NOT NULL);

-- Not business: one row per run of a step, written when it begins. A run that was killed never says how it ended.
CREATE TABLE IF NOT EXISTS runs (
    run_id INTEGER PRIMARY KEY, order_id TEXT NOT NULL, step TEXT NOT NULL, attempt INTEGER NOT NULL, ended TEXT);
"""


class OrderClosedError(NonRetryableError):
    """The order was rejected while the step was on its way."""


class Shop:
    """The database file. Safe to use from many threads and processes.

    Args:
        path: The file.
        step_s: How long each step takes, in seconds: long enough to watch it.
    """

    def __init__(self, path: str | Path, step_s: float = 0.0) -> None:
        self._path = path
        self._step_s = step_s

    def create(self) -> None:
        """Make a new database, or leave the one that is there as it is."""
        with closing(self._connect()) as db:
            db.execute("PRAGMA journal_mode = WAL")  # readers need not wait for a writer
            db.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """All that is done in it becomes durable, or, if it raises, nothing. One at a time."""
        with closing(self._connect()) as db:
            db.execute("BEGIN IMMEDIATE")
            with db:
                yield db

    def query(self, sql: str, *values: object) -> list[Any]:
        """Read rows."""
        with closing(self._connect()) as db:
            return db.execute(sql, values).fetchall()

    # --- the business: each is once for its key, or leaves as it is what is there -------------------------------------

    def open(self, order_id: str) -> None:
        """Enter an order."""
        with self.transaction() as db:
            db.execute("INSERT INTO orders VALUES (?, 'open') ON CONFLICT DO NOTHING", (order_id,))

    def check(self, db: sqlite3.Connection, order_id: str) -> None:
        """Refuse to go on with an order that was rejected meanwhile."""
        (state,) = db.execute("SELECT state FROM orders WHERE order_id = ?", (order_id,)).fetchone()
        if state == "rejected":
            raise OrderClosedError(f"{order_id} is rejected")

    def book_money(self, db: sqlite3.Connection, order_id: str, amount: int, key: str) -> int:
        """Write a payment and return its number, also that of an earlier run."""
        db.execute(
            "INSERT INTO payments (idempotency_key, order_id, amount) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (key, order_id, amount),
        )
        find = "SELECT payment_id FROM payments WHERE idempotency_key = ?"
        return db.execute(find, (key,)).fetchone()[0]

    def book_parcel(self, db: sqlite3.Connection, order_id: str, key: str) -> tuple[int, bool]:
        """Have a parcel collected: its number, and whether this run booked it."""
        booking = db.execute(
            "INSERT INTO shipments (idempotency_key, order_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (key, order_id),
        )
        db.execute("UPDATE orders SET state = 'shipped' WHERE order_id = ?", (order_id,))
        find = "SELECT shipment_id FROM shipments WHERE idempotency_key = ?"
        return db.execute(find, (key,)).fetchone()[0], booking.rowcount == 1

    def reject(self, order_id: str, key: str) -> None:
        """Close an order, and take back what is left of it: a payment that nobody has refunded, a parcel."""
        with self.transaction() as db:
            db.execute("UPDATE orders SET state = 'rejected' WHERE order_id = ?", (order_id,))
            db.execute("DELETE FROM shipments WHERE order_id = ?", (order_id,))
            (left,) = db.execute(
                "SELECT coalesce(sum(amount), 0) FROM payments WHERE order_id = ?", (order_id,)
            ).fetchone()
            if left:
                self.book_money(db, order_id, -left, key)

    # --- the log of the runs ------------------------------------------------------------------------------------------

    @contextmanager
    def step(self, name: str, order_id: str, ctx: ActivityContext) -> Generator[None]:
        """Log a run of a step around its body, and let it take a moment."""
        with self.transaction() as db:
            begun = db.execute(
                "INSERT INTO runs (order_id, step, attempt) VALUES (?, ?, ?)", (order_id, name, ctx.attempt)
            )
        attempt = f", attempt {ctx.attempt}" if ctx.attempt > 1 else ""
        again = ", again after a crash" if ctx.delivery > 1 else ""
        log.info("%s  %s%s%s", order_id, name, attempt, again)
        try:
            time.sleep(self._step_s)
            yield
        except Exception as error:
            log.info("%s  %s failed: %s", order_id, name, error)
            self._end(begun.lastrowid, "failed")
            raise
        self._end(begun.lastrowid, "done")

    def _end(self, run_id: int | None, how: str) -> None:
        with self.transaction() as db:
            db.execute("UPDATE runs SET ended = ? WHERE run_id = ?", (how, run_id))

    def _connect(self) -> sqlite3.Connection:
        # No isolation level: transactions begin where this file says so, not where sqlite3 guesses.
        return sqlite3.connect(self._path, timeout=30, isolation_level=None)
