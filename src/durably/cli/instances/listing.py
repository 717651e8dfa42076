"""``durably instances list`` and ``count``."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from durably.cli.formats import FORMATS, Column, Row, printer, status_style
from durably.cli.instances.filters import STATUSES, Filters, criteria, filter_options, filters_of, matching
from durably.cli.instances.rows import COLUMNS, KEYS, row_of
from durably.cli.instances.session import with_client
from durably.cli.output import say
from durably.cli.settings import format_option, reach_options, settings_of, shared

if TYPE_CHECKING:
    from durably.cli.formats import Printer
    from durably.client import Client

ON_A_TERMINAL = 100
"""So many are listed on a terminal when nothing is said; programs get all."""

_FLUSH_EVERY = 100

_EXAMPLES = """\b
Examples:
  durably instances list --status Failed --created-from 1d
  durably instances list --name process_order --tag region=eu --all -o csv > orders.csv
  durably instances list --status Failed -o ids | durably instances rewind -
"""


@click.command("list", short_help="List instances, filtered.", epilog=_EXAMPLES)
@filter_options
@reach_options
@format_option(
    *FORMATS, help_text="For people; or all for programs: one array, one object a line, CSV, the ids alone."
)
@shared
@click.pass_context
def list_command(context: click.Context, *, hub: str, output: str, **given: Any) -> None:
    """List the instances that match all filters, in the order in which they were created.

    On a terminal the first 100, unless --limit or --all is given; into files and pipes, all of them.
    """
    filters = filters_of(given)
    by_default = filters.limit is None and not filters.everything and sys.stdout.isatty()
    if by_default:
        filters = replace(filters, limit=ON_A_TERMINAL)
    shown = printer(output, sys.stdout, columns=COLUMNS, keys=KEYS, color=settings_of(context).color)
    count = with_client(hub, lambda client: _list(client, filters, shown))
    if by_default and count == ON_A_TERMINAL:
        say(f"These are the first {ON_A_TERMINAL}: there may be more, --all lists every one")


async def _list(client: Client, filters: Filters, shown: Printer) -> int:
    """List them, and return how many."""
    count = 0
    async for status in matching(client, filters):
        shown.row(row_of(status))
        count += 1
        if count % _FLUSH_EVERY == 0:
            shown.flush()
    shown.close()
    if sys.stdout.isatty():
        await _explain(client, filters, count)
    return count


async def _explain(client: Client, filters: Filters, count: int) -> None:
    """Why a person may not see what was expected."""
    if not count:
        say("No instance matches" if filters.narrowed else "There is no instance in this hub")
    if not await client.is_served():
        say("No host serves the hub: what is Pending starts when the next one does")


@click.command("count", short_help="Count instances by name and status.")
@filter_options
@reach_options
@format_option(
    "table", "json", "jsonl", "csv", help_text="For people, or one object for each name and status."
)
@shared
@click.pass_context
def count_command(context: click.Context, *, hub: str, output: str, **given: Any) -> None:
    """Count the instances that match all filters, by the name of their orchestrator and their status."""
    filters = filters_of(given)
    if filters.limit is not None:
        raise click.UsageError("--limit is for lists: all that match are counted")
    counts = with_client(hub, lambda client: _count(client, filters))
    color = settings_of(context).color
    if output == "table":
        rows, columns = _crossed(counts)
    else:
        rows, columns = _flat(counts), []
    shown = printer(output, sys.stdout, columns=columns, keys=("name", "status", "count"), color=color)
    for row in rows:
        shown.row(row)
    shown.close()


async def _count(client: Client, filters: Filters) -> Counter[tuple[str, str]]:
    counts = await client.count_instances(by="name_and_status", **criteria(filters))
    return Counter({(name, status.value): count for (name, status), count in counts.items()})


def _flat(counts: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "status": status, "count": counts[name, status]}
        for name in sorted({name for name, _ in counts})
        for status in STATUSES
        if counts[name, status]
    ]


def _crossed(counts: Counter[tuple[str, str]]) -> tuple[list[Row], list[Column]]:
    """A line for each name, a column for each status that occurs, and the sums of both."""
    present = [status for status in STATUSES if any(counts[key] for key in counts if key[1] == status)]
    names = sorted({name for name, _ in counts})
    rows: list[Row] = [
        {"name": name} | {status: counts[name, status] for status in present} for name in names
    ]
    if len(names) > 1:
        total = {status: sum(counts[name, status] for name in names) for status in present}
        rows.append({"name": "TOTAL"} | total)
    if not rows:
        rows.append({"name": "TOTAL"})
    columns = [Column("NAME", lambda row: row["name"], elastic=True)]
    columns += [_column(status) for status in present]
    columns.append(Column("TOTAL", lambda row: f"{sum(row[status] for status in present):,}", right=True))
    return rows, columns


def _column(status: str) -> Column:
    return Column(
        status.upper(),
        lambda row: f"{row[status]:,}",
        right=True,
        style=lambda row: status_style({"status": status}) if row[status] else {"dim": True},
    )
