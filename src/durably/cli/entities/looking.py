"""``durably entities list`` and ``show``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from durably.cli.completing import complete_entities
from durably.cli.formats import FORMATS, Column, Row, colored, plain, printable, printer
from durably.cli.instances.ids import ids_of
from durably.cli.instances.session import with_client
from durably.cli.moments import Moment, exactly
from durably.cli.output import Exit, complain, exit_code, say
from durably.cli.settings import format_option, reach_options, settings_of, shared

if TYPE_CHECKING:
    from durably.client import Client
    from durably.client.entities import EntityInfo

_ON_A_TERMINAL = 100
_PAGE = 500

KEYS = (
    "entity_id",
    "name",
    "key",
    "exists",
    "state",
    "last_modified",
    "locked_by",
    "locked_since",
    "scheduled",
    "corrupt",
)
"""The columns of CSV, and the keys of an object."""


def _state_of(row: Row) -> str:
    if row["corrupt"] is not None:
        return "(damaged)"
    return plain(row["state"]) if row["exists"] else "(does not exist)"


_COLUMNS = (
    Column("ID", lambda row: row["entity_id"], elastic=True),
    Column("MODIFIED", lambda row: f"{row['last_modified'][:19]}Z"),
    Column(
        "LOCKED BY",
        lambda row: row["locked_by"] or "",
        elastic=True,
        optional=True,
        style=lambda _: {"fg": "yellow"},
    ),
    Column(
        "SCHEDULED",
        lambda row: f"{row['scheduled']:,}" if row["scheduled"] else "",
        optional=True,
        right=True,
    ),
    Column("STATE", _state_of, elastic=True),
)

_LABELS = (
    ("state", "State"),
    ("last_modified", "Modified"),
    ("locked_by", "Locked by"),
    ("locked_since", "Locked since"),
    ("lock_waiters", "Wait to lock it"),
    ("waiting", "Messages wait"),
    ("scheduled", "Scheduled"),
    ("corrupt", "Damaged"),
)
_WIDTH = 17


def _row_of(info: EntityInfo) -> dict[str, Any]:
    return {
        "entity_id": str(info.entity_id),
        "name": info.entity_id.name,
        "key": info.entity_id.key,
        "exists": info.exists,
        "state": info.state,
        "last_modified": exactly(info.last_modified),
        "locked_by": info.locked_by,
        "locked_since": None if info.locked_since is None else exactly(info.locked_since),
        "scheduled": info.scheduled,
        "corrupt": info.corrupt,
    }


# --- list ------------------------------------------------------------------------------------------------------------

_EXAMPLES = """\b
Examples:
  durably entities list --name account --key-prefix eu-
  durably entities list --locked
  durably entities list --name account --all -o jsonl > accounts.jsonl
"""


@click.command("list", short_help="List entities, filtered.", epilog=_EXAMPLES)
@click.option("--name", metavar="NAME", show_envvar=True, help="The class or function.")
@click.option(
    "--key-prefix",
    metavar="TEXT",
    default="",
    show_envvar=True,
    help="The key begins with TEXT; needs --name.",
)
@click.option(
    "--modified-from", type=Moment("past"), metavar="WHEN", show_envvar=True, help="Changed at or after."
)
@click.option(
    "--modified-to", type=Moment("past"), metavar="WHEN", show_envvar=True, help="Changed at or before."
)
@click.option("--locked", is_flag=True, show_envvar=True, help="Only those that an orchestration has locked.")
@click.option(
    "--transient",
    is_flag=True,
    show_envvar=True,
    help="Also those that do not exist, and are locked or have a signal that is due later.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", show_envvar=True, help="The first N by id.")
@click.option("--all", "everything", is_flag=True, show_envvar=True, help="Every one that matches.")
@reach_options
@format_option(
    *FORMATS, help_text="For people; or all for programs: one array, one object a line, CSV, the ids alone."
)
@shared
@click.pass_context
def list_command(context: click.Context, *, hub: str, output: str, **given: Any) -> None:
    """List the entities that match all filters, in the order of their ids, with their states and locks.

    On a terminal the first 100, unless --limit or --all is given; into files and pipes, all of them.
    """
    limit, everything = given.pop("limit"), given.pop("everything")
    if limit is not None and everything:
        raise click.UsageError("--limit and --all exclude each other: leave one out")
    by_default = limit is None and not everything and sys.stdout.isatty()
    if by_default:
        limit = _ON_A_TERMINAL
    shown = printer(output, sys.stdout, columns=_COLUMNS, keys=KEYS, color=settings_of(context).color)

    async def show(client: Client) -> int:
        count = 0
        async for info in _matching(client, limit, **given):
            shown.row({"instance_id": str(info.entity_id)} if output == "ids" else _row_of(info))
            count += 1
        shown.close()
        return count

    count = with_client(hub, show)
    if not count and sys.stdout.isatty():
        say("No entity matches")
    if by_default and count == _ON_A_TERMINAL:
        say(f"These are the first {_ON_A_TERMINAL}: there may be more, --all lists every one")


async def _matching(
    client: Client,
    limit: int | None,
    *,
    name: str | None,
    key_prefix: str,
    modified_from: datetime | None,
    modified_to: datetime | None,
    locked: bool,
    transient: bool,
) -> AsyncIterator[EntityInfo]:
    token: str | None = None
    left = limit
    while True:
        page = await client.query_entities(
            name=name,
            key_prefix=key_prefix,
            last_modified_from=modified_from,
            last_modified_to=modified_to,
            locked=locked,
            include_transient=transient or locked,
            page_size=_PAGE if left is None else min(_PAGE, left),
            continuation_token=token,
        )
        for info in page.entities:
            yield info
        token = page.continuation_token
        left = None if left is None else left - len(page.entities)
        if token is None or left == 0:
            return


# --- show ------------------------------------------------------------------------------------------------------------


@click.command("show", short_help="Show all about entities.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_entities)
@reach_options
@format_option(
    "table", "json", "jsonl", help_text="For people; an object (several: an array), or one a line."
)
@shared
@click.pass_context
def show_command(context: click.Context, ids: tuple[str, ...], hub: str, output: str) -> int:
    """Show the state of entities, who has them locked, who waits for the lock, and how many messages wait.

    - reads ids from stdin.
    """
    from durably.errors import InvalidIdError

    wanted = ids_of(ids)
    color = settings_of(context).color
    single = output == "json" and ids != ("-",) and len(wanted) == 1
    rows = printer("jsonl" if single else output, sys.stdout, columns=(), keys=())

    async def show(client: Client) -> int:
        code: int = Exit.OK
        for entity_id in wanted:
            try:
                info = await client.get_entity(entity_id)
            except InvalidIdError as error:
                complain(str(error), color=color)
                code = exit_code(error)
                continue
            if info is None:
                complain(f"Entity '{entity_id}' does not exist, and nobody has it locked", color=color)
                code = Exit.NOT_FOUND
                continue
            row = _row_of(info) | {"waiting": info.waiting, "lock_waiters": info.lock_waiters}
            if output == "table":
                _print_card(row, color=color)
            else:
                rows.row(row)
        if output != "table":
            rows.close()
        return code

    return with_client(hub, show)


def _print_card(row: Row, *, color: bool | None) -> None:
    """All about one entity, a line for each thing."""
    colors = colored(sys.stdout, color=color)
    lines = [click.style(row["entity_id"], bold=True) if colors else row["entity_id"]]
    shown: dict[str, str] = {
        "state": _state_of(row),
        "last_modified": f"{row['last_modified'][:19]}Z",
        "locked_by": plain(row["locked_by"]),
        "locked_since": "" if row["locked_since"] is None else f"{row['locked_since'][:19]}Z",
        "lock_waiters": ", ".join(row["lock_waiters"]),
        "waiting": f"{row['waiting']:,}" if row["waiting"] else "",
        "scheduled": f"{row['scheduled']:,}" if row["scheduled"] else "",
        "corrupt": plain(row["corrupt"]),
    }
    for key, label in _LABELS:
        if shown[key]:
            lines.append(f"  {label:{_WIDTH}}{printable(shown[key])}")
    click.echo("\n".join(lines), color=colors)
