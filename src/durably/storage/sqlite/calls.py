"""The calls of APSW that all share: with the types that its stubs leave open."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import apsw

Execute: TypeAlias = Callable[..., Any]
"""`execute(text, values)`; the answer is iterated, or asked for `fetchall()`."""


def executor(connection: apsw.Connection) -> Execute:
    """Executes each statement on a cursor of its own."""
    return cast("Any", connection).execute


def cursor_executor(connection: apsw.Connection) -> Execute:
    """Executes on one cursor, which is cheaper; an answer is over when the next statement begins."""
    return cast("Any", connection).cursor().execute


def pragma(connection: apsw.Connection, name: str, value: int | str | None = None) -> Any:
    """Set a pragma, or ask for its value."""
    values = () if value is None else (value,)
    return cast("Any", connection).pragma(name, *values)


@contextmanager
def one_moment(connection: apsw.Connection) -> Generator[None, None, None]:
    """All that is read within is of the same moment."""
    execute = executor(connection)
    execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            execute("COMMIT")
