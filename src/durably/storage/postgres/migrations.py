"""The schema of a hub, as numbered steps: what each does, and which version of the schema it belongs to.

A version of the schema has steps of two phases, in this order:

- ``pre``: run before the deployment. What it leaves behind serves hosts of this version *and* of the one before: add tables,
  columns with defaults, indexes, functions under new names; take nothing away.
- ``post``: run when the last host of the version before is gone. Drops what only those needed. From its beginning on older
  hosts are refused. It is run by ``durably hub migrate --post``, or with the ``pre`` steps of the next version.

How to add a step:

1. Write its statements, with ``{s}`` for the schema, quoted. A large step gets a constant in a file of its own, as `schema`.
2. Append a `Step` to `STEPS`: the next number, and its version: one more than the newest released one (`RELEASED`), which
   several steps may have. Steps of a released version are never edited, removed or renumbered.
3. All statements of a step are one transaction, unless it is ``concurrently``: then each is sent alone, and none may be in a
   transaction (``CREATE INDEX CONCURRENTLY``, see `index`). A step that was cut off is run again from its beginning, so each
   of these statements must bear that.
4. Functions (`commit_function`) have their number in their name. One whose parameters or meaning change gets the next one,
   made by a ``pre`` step; a ``post`` step drops the old one. The step that made the old one then has no statements: new
   hubs do not need it, and hubs that are there have it.
5. A new hub gets all steps in one transaction, before anything else is in it.

What the role of hosts may do with new tables and functions follows by itself, see `grants`.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from durably.storage.postgres.commit_function import FUNCTIONS, TASK_FUNCTIONS
from durably.storage.postgres.schema import HOSTS, MIGRATIONS, TABLES
from durably.storage.postgres.task_schema import FUNCTIONS as CLAIMS
from durably.storage.postgres.task_schema import TASKS

Phase: TypeAlias = Literal["pre", "post"]

RELEASED: Final = 0
"""The newest version of the schema that a release of durably has made."""


class Step(NamedTuple):
    """One change of the schema.

    Attributes:
        number: Its place, from 1 on, without gaps.
        version: Of the schema that it belongs to.
        phase: See above.
        name: A word or two, for people.
        statements: SQL, each alone; ``{s}`` is the schema.
        concurrently: Without a transaction, see above.
    """

    number: int
    version: int
    phase: Phase
    name: str
    statements: tuple[str, ...]
    concurrently: bool = False

    def __str__(self) -> str:
        return f"{self.number} ({self.name}, {self.phase} of version {self.version})"


def statements(script: str) -> tuple[str, ...]:
    """Take a script apart. A statement ends with a semicolon at the end of a line; bodies of functions need another way."""
    return tuple(part.strip() for part in script.split(";\n") if part.strip())


def index(name: str, on: str, *, unique: bool = False) -> tuple[str, ...]:
    """The statements of a step that builds an index while hosts write: it may be run again when it was cut off.

    Args:
        name: Of the index.
        on: Table and columns, such as ``"instances (name) WHERE in_flight"``.
        unique: It also refuses doubles.
    """
    kind = "UNIQUE INDEX" if unique else "INDEX"
    return (
        f"DROP INDEX CONCURRENTLY IF EXISTS {{s}}.{name}",
        f"CREATE {kind} CONCURRENTLY {name} ON {{s}}.{on}",
    )


STEPS: Final = (
    Step(1, 1, "pre", "tables", (*statements(MIGRATIONS), *statements(TABLES))),
    Step(2, 1, "pre", "functions", FUNCTIONS),
    Step(3, 1, "pre", "hosts", statements(HOSTS)),
    Step(4, 1, "pre", "shared activities", (*statements(TASKS), *TASK_FUNCTIONS, *CLAIMS)),
)
"""All steps, in order."""

VERSION: Final = STEPS[-1].version
"""Of the schema that this code reads and writes."""
