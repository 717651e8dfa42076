"""The commands that change instances: one or many, by their ids or by what they have in common."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from durably.cli.completing import complete_ids
from durably.cli.formats import FORMATS, Printer, printer
from durably.cli.instances.bulk import SHARE, Tally, for_all, metered
from durably.cli.instances.filters import Filters, criteria, filter_options, filters_of, matching
from durably.cli.instances.ids import ids_of
from durably.cli.instances.rows import COLUMNS, KEYS, row_of
from durably.cli.instances.session import status_of, with_client
from durably.cli.output import Exit, say
from durably.cli.settings import format_option, quiet_option, reach_options, settings_of, shared

if TYPE_CHECKING:
    from durably.client import Client
    from durably.core.status import InstanceStatus

Act = Callable[["Client", str], Awaitable["dict[str, Any]"]]
"""Does it to one instance; returns what else there is to tell."""

LIVE = ("Pending", "Running", "Suspended")
OVER = ("Completed", "Failed", "Canceled", "Terminated")


@dataclass(frozen=True, slots=True)
class Verb:
    """What a command does.

    Attributes:
        name: Of the command.
        done: Its past participle.
        applies_to: The statuses of the instances that it is for: those that the shell offers, and that filters without a
            status mean. As in `durably.client.bulk.APPLIES_TO`, which is slow to import for a help page.
        keys: What else a row of its output has.
    """

    name: str
    done: str
    applies_to: tuple[str, ...] = LIVE
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asked for: a verb, for whom, and how.

    Attributes:
        verb: What to do.
        act: How to do it to one.
        hub: URL of the hub.
        ids: For these; None: for those that match the filters.
        piped: The ids came from stdin.
        filters: See `ids`.
        dry_run: Only say for whom.
        yes: Do not ask.
        output: One of `FORMATS`.
        quiet: No progress.
        share: Of the time, so much at most.
        color: See `Settings.color`.
    """

    verb: Verb
    act: Act
    hub: str
    ids: list[str] | None
    piped: bool
    filters: Filters
    dry_run: bool
    yes: bool
    output: str
    quiet: bool
    share: float
    color: bool | None
    tally: Tally = field(default_factory=Tally)


def controls(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what all these commands have in common; `carry_out` takes it."""
    for option in (
        click.pass_context,
        shared,
        quiet_option,
        format_option(
            *FORMATS, help_text="Nothing but errors; or for each instance an object, a line of CSV, its id."
        ),
        reach_options,
        click.option("-y", "--yes", is_flag=True, show_envvar=True, help="Do not ask."),
        click.option(
            "--dry-run", is_flag=True, show_envvar=True, help="Only list the instances that are meant."
        ),
        click.option(
            "--share",
            type=click.FloatRange(0, 1, min_open=True),
            default=SHARE,
            show_default=True,
            show_envvar=True,
            metavar="SHARE",
            help="Of the time, so much at most; the rest is left to the other work of the hub.",
        ),
        filter_options,
    ):
        command = option(command)
    return command


def ids_argument(verb: Verb) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``ID...``."""
    return click.argument("ids", metavar="[ID...|-]", nargs=-1, shell_complete=complete_ids(*verb.applies_to))


def carry_out(context: click.Context, verb: Verb, act: Act, given: dict[str, Any]) -> int:
    """Do what the arguments say; return the exit code.

    Raises:
        click.UsageError: It is not clear which instances are meant, or nobody can be asked whether they are.
    """
    filters = filters_of(given)
    ids: tuple[str, ...] = given["ids"]
    if ids and filters.chosen:
        raise click.UsageError(
            "Ids and filters exclude each other: name the instances, or say what they have in common"
        )
    if not ids and not filters.narrowed:
        raise click.UsageError(
            f"Which instances to {verb.name}? Expected ids, - for ids on stdin, or filters (--all for every instance)"
        )
    if not filters.statuses:
        filters = replace(filters, statuses=verb.applies_to)
    order = Order(
        verb,
        act,
        given["hub"],
        ids_of(ids) if ids else None,
        "-" in ids,
        filters,
        given["dry_run"],
        given["yes"],
        given["output"],
        given["quiet"],
        given["share"],
        settings_of(context).color,
    )
    if order.ids is None and not (order.yes or order.dry_run or _can_ask()):
        raise click.UsageError(
            f"Nobody can be asked whether to {verb.name} all that match: add --yes, or look first with --dry-run"
        )
    return with_client(
        order.hub, lambda client: _preview(client, order) if order.dry_run else _act(client, order)
    )


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


# --- dry run ---------------------------------------------------------------------------------------------------------


async def _preview(client: Client, order: Order) -> int:
    """List who is meant."""
    shown = printer(order.output, sys.stdout, columns=COLUMNS, keys=KEYS, color=order.color)
    found = 0

    async def show(instance_id: str) -> dict[str, Any]:
        nonlocal found
        found += 1
        shown.row(row_of(await status_of(client, instance_id)))
        return {}

    if order.ids is None:
        async for status in matching(client, order.filters):
            found += 1
            shown.row(row_of(status))
    else:
        _, meter = metered("", 0, quiet=True, color=order.color)
        await for_all(_each(order.ids), show, lambda _: None, meter, tally=order.tally, share=1)
        found = order.tally.done
    shown.close()
    say(f"{_instances(found)} would be {order.verb.done}")
    return order.tally.code


# --- the work --------------------------------------------------------------------------------------------------------


async def _act(client: Client, order: Order) -> int:
    verb, tally = order.verb, order.tally
    if order.ids is None:
        order = replace(order, filters=_bounded(order.filters))
        total = await _count(client, order.filters)
        ids = _ids(matching(client, order.filters))
    else:
        total, ids = len(order.ids), _each(order.ids)
    asks = total > 1 and not order.yes and not order.piped and _can_ask()
    if asks and not click.confirm(f"{verb.name.capitalize()} {_instances(total)}?", err=True):
        say("Nothing was done")
        return Exit.FAILED
    shown = _printer(order)

    def tell(row: dict[str, Any]) -> None:
        shown.row(row)
        shown.flush()  # what was done is known, whatever happens next

    progress, meter = metered(verb.name.capitalize(), total, quiet=order.quiet, color=order.color)
    try:
        with progress:
            await for_all(
                ids,
                lambda instance_id: order.act(client, instance_id),
                tell,
                meter,
                tally=tally,
                share=order.share,
            )
    finally:
        shown.close()
        if not order.quiet:
            _sum_up(verb, tally, total)
    if tally.done and not await client.is_served():
        say("No host serves the hub: what was accepted happens when the next one starts")
    return tally.code


def _bounded(filters: Filters) -> Filters:
    """Only instances that exist now: what the work itself creates must not match."""
    from durably.clock import SystemClock
    from durably.core.timeline import instant

    now = instant(SystemClock().now())
    return replace(filters, created_to=now if filters.created_to is None else min(now, filters.created_to))


async def _count(client: Client, filters: Filters) -> int:
    count = await client.count_instances(**criteria(filters))
    return count if filters.limit is None else min(count, filters.limit)


async def _ids(instances: AsyncIterator[InstanceStatus]) -> AsyncIterator[str]:
    async for instance in instances:
        yield instance.instance_id


async def _each(ids: Iterable[str]) -> AsyncIterator[str]:
    for instance_id in ids:
        yield instance_id


class _Silent:
    """Prints nothing: people get the sum on stderr."""

    def row(self, row: Any) -> None:
        """See `Printer.row`."""

    def flush(self) -> None:
        """See `Printer.flush`."""

    def close(self) -> None:
        """See `Printer.close`."""


class _Succeeded:
    """Passes on what succeeded: ids for the next command of a pipe, or the new ones for people."""

    def __init__(self, printer: Printer, key: str) -> None:
        self._printer = printer
        self._key = key
        self.flush, self.close = printer.flush, printer.close

    def row(self, row: Any) -> None:
        """See `Printer.row`."""
        if row["ok"]:
            self._printer.row({"instance_id": row[self._key]})


def _printer(order: Order) -> Printer:
    key = order.verb.keys[0] if order.verb.keys else "instance_id"
    if order.output == "ids" or (order.output == "table" and order.verb.keys):
        return _Succeeded(printer("ids", sys.stdout, columns=(), keys=()), key)
    if order.output == "table":
        return _Silent()
    keys = ("instance_id", "ok", "error", *order.verb.keys)
    return printer(order.output, sys.stdout, columns=(), keys=keys)


def _sum_up(verb: Verb, tally: Tally, total: int) -> None:
    if total == 1 and tally.failed:  # its error says it all
        return
    parts = [f"{_instances(tally.done)} {verb.done}"]
    if tally.failed:
        parts.append(f"{tally.failed:,} failed")
    left = total - tally.done - tally.failed
    if left > 0:
        parts.append(f"{left:,} left")
    say(", ".join(parts))


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count:,} instances"
