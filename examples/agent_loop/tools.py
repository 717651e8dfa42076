"""The tools: real effects on a database, a folder and a service. What a model asks for is a wish, and is checked.

`ToolError` tells the model that it has asked for nonsense. Other exceptions are troubles of the tool, and are tried again.
"""

import json
import os
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from inspect import signature
from pathlib import Path
from typing import Any

from durably import NonRetryableError
from examples.effects import transaction, write_file

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY, customer TEXT NOT NULL, cents INTEGER NOT NULL, parcel TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refunds (idempotency_key TEXT PRIMARY KEY, order_id TEXT NOT NULL, cents INTEGER NOT NULL);
"""

ROWS_MAX = 100
ANSWER_S = 5.0


class ToolError(NonRetryableError):
    """The wish cannot be fulfilled, however often it is tried."""


@dataclass(frozen=True)
class Tool:
    """A function of an idempotency key and of what the model says; `dangerous` ones need the approval of a human."""

    function: Callable[..., str]
    dangerous: bool

    def use(self, arguments: dict[str, Any], key: str) -> str:
        """Fulfil a wish."""
        try:
            bound = signature(self.function).bind(key, **arguments)
        except TypeError as error:
            raise ToolError(str(error)) from None
        return self.function(*bound.args, **bound.kwargs)


TOOLS: dict[str, Tool] = {}


def tool(*, dangerous: bool = False) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Offer a function to the model."""

    def offer(function: Callable[..., str]) -> Callable[..., str]:
        TOOLS[function.__name__] = Tool(function, dangerous)
        return function

    return offer


def folder() -> Path:
    """Configuration comes from the environment, as in any service."""
    return Path(os.environ.get("AGENT_DIR", "."))


@tool()
def query(key: str, sql: str) -> str:
    """Rows of the shop's database, as JSON. SQL that does more than read is refused, and no other file can be attached."""
    with closing(sqlite3.connect(f"{(folder() / 'shop.db').as_uri()}?mode=ro", uri=True, timeout=30)) as db:
        db.set_authorizer(only_reads)
        try:
            return json.dumps(db.execute(sql).fetchmany(ROWS_MAX))
        except sqlite3.Error as error:
            raise ToolError(str(error)) from None


def only_reads(action: int, *_: str | None) -> int:
    """What SQLite asks before it runs a statement."""
    harmless = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION)
    return sqlite3.SQLITE_OK if action in harmless else sqlite3.SQLITE_DENY


@tool()
def track(key: str, parcel: str) -> str:
    """What the carrier knows of a parcel."""
    url = f"{os.environ.get('CARRIER_URL', 'http://127.0.0.1:8000')}/parcels/{urllib.parse.quote(parcel, safe='')}"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:  # noqa: S310 - the operator chose it
            return str(json.load(answer)["state"])
    except urllib.error.HTTPError as error:
        with error:
            if error.code == HTTPStatus.NOT_FOUND:
                raise ToolError(f"the carrier knows no parcel '{parcel}'") from None
        raise


@tool()
def write_note(key: str, name: str, text: str) -> str:
    """Write a file into the folder of notes, or replace it."""
    if Path(name).name != name or name.startswith("."):
        raise ToolError(f"'{name}' is no file name: expected one without a folder")
    write_file(folder() / "notes" / name, text.encode())
    return f"wrote {name}"


@tool(dangerous=True)
def refund(key: str, order_id: str, cents: int) -> str:
    """Pay a customer back. Once per key: this is the tool that must not be used twice by accident."""
    with transaction(folder() / "shop.db") as db:
        order = db.execute("SELECT cents FROM orders WHERE order_id = ?", (order_id,)).fetchone()
        if order is None or not 0 < cents <= order[0]:
            raise ToolError(f"{cents} cents of order '{order_id}' cannot be paid back")
        db.execute("INSERT INTO refunds VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (key, order_id, cents))
    # The money is gone and the runtime does not know it yet: a kill hurts most here, so the example lingers.
    time.sleep(float(os.environ.get("AGENT_STEP_S", "0")))
    return f"refunded {cents} cents of {order_id}"
