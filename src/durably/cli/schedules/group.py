"""``durably schedules``: list, look at, and control."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from durably.cli.completing import complete_schedules
from durably.cli.formats import FORMATS, colored, printer
from durably.cli.instances.bulk import SHARE, Tally, for_all, metered
from durably.cli.instances.ids import ids_of
from durably.cli.instances.session import with_client
from durably.cli.moments import Moment
from durably.cli.output import Exit, complain, exit_code, say
from durably.cli.schedules.making import create_command, overlap_option, told, update_command
from durably.cli.schedules.rows import COLUMNS, KEYS, card_of, row_of
from durably.cli.settings import Commands, format_option, quiet_option, reach_options, settings_of, shared

if TYPE_CHECKING:
    from durably.client import Client
    from durably.schedules.description import ScheduleDescription

_PAGE = 500

Act = Callable[["Client", str, dict[str, Any]], Awaitable["dict[str, Any]"]]
"""Does it to one schedule, with what the options say; returns what else there is to tell."""


@click.group("schedules", cls=Commands, short_help="Create, list and control schedules.")
@shared
def schedules_group() -> None:
    """Recurring starts and signals: create, list, look at, pause, resume, trigger, backfill, delete.

    From any process, whether a host of the hub runs or not: while none does, what is accepted waits for the next one.
    """


_ids_argument = click.argument(
    "ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_schedules
)


@schedules_group.command("list", short_help="List schedules.")
@click.option("--prefix", default="", metavar="TEXT", show_envvar=True, help="The id begins with TEXT.")
@reach_options
@format_option(*FORMATS, help_text="For people; or all for programs, the last one for - of other commands.")
@shared
@click.pass_context
def list_command(context: click.Context, *, prefix: str, hub: str, output: str) -> None:
    """List schedules, in the order of their ids."""
    shown = printer(output, sys.stdout, columns=COLUMNS, keys=KEYS, color=settings_of(context).color)

    async def show(client: Client) -> int:
        count = 0
        async for found in _matching(client, prefix):
            shown.row({"instance_id": found.schedule_id} if output == "ids" else row_of(found))
            count += 1
        shown.close()
        return count

    if not with_client(hub, show) and sys.stdout.isatty():
        say("There are no schedules")


async def _matching(client: Client, prefix: str) -> AsyncIterator[ScheduleDescription]:
    token: str | None = None
    while True:
        page = await client.schedules.list(prefix=prefix, page_size=_PAGE, continuation_token=token)
        for found in page.schedules:
            yield found
        token = page.continuation_token
        if token is None:
            return


@schedules_group.command("describe", short_help="Show all about schedules.")
@_ids_argument
@reach_options
@format_option(
    "table", "json", "jsonl", help_text="For people; an object (several: an array), or one a line."
)
@shared
@click.pass_context
def describe_command(context: click.Context, ids: tuple[str, ...], hub: str, output: str) -> int:
    """Show what schedules do, when next, what runs, and how the newest runs went. - reads ids from stdin."""
    wanted = ids_of(ids)
    color = settings_of(context).color
    alone = output == "json" and ids != ("-",) and len(wanted) == 1
    rows = printer("jsonl" if alone else output, sys.stdout, columns=(), keys=())

    async def show(client: Client) -> int:
        from durably.errors import ScheduleNotFoundError

        code: int = Exit.OK
        for schedule_id in wanted:
            try:
                found = await client.schedules.describe(schedule_id)
            except ScheduleNotFoundError as error:
                complain(str(error), color=color)
                code = exit_code(error)
                continue
            if output == "table":
                colors = colored(sys.stdout, color=color)
                click.echo(card_of(found, colors=colors), color=colors)
            else:
                rows.row(row_of(found))
        rows.close()
        return code

    return with_client(hub, show)


# --- orders ----------------------------------------------------------------------------------------------------------


def _verb(name: str, about: str, text: str, act: Act, *options: Callable[..., Any]) -> click.Command:
    @_ids_argument
    @reach_options
    @format_option(
        *FORMATS, help_text="Nothing but errors; or for each schedule an object, a line of CSV, its id."
    )
    @quiet_option
    @shared
    @click.pass_context
    def command(context: click.Context, /, **given: Any) -> int:
        return _carry_out(context, name, act, given)

    for option in options:
        command = option(command)
    return click.command(name, short_help=about, help=f"{text} - reads ids from stdin.")(command)


def _carry_out(context: click.Context, name: str, act: Act, given: dict[str, Any]) -> int:
    ids = ids_of(given.pop("ids"))
    hub, output, quiet = given.pop("hub"), given.pop("output"), given.pop("quiet")
    color = settings_of(context).color

    async def work(client: Client) -> int:
        keys = ("schedule_id", "ok", "error")
        shown = printer(output, sys.stdout, columns=(), keys=keys, color=color)
        tally = Tally()
        progress, meter = metered(name.capitalize(), len(ids), quiet=quiet, color=color)

        def tell(row: dict[str, Any]) -> None:
            schedule_id = row.pop("instance_id")
            if output == "ids":
                shown.row({"instance_id": row.get("instance") or schedule_id})
            elif output != "table":
                shown.row({"schedule_id": schedule_id, **row})
            elif row.get("instance"):
                click.echo(row["instance"])

        with progress:
            await for_all(
                _each(ids),
                lambda schedule_id: act(client, schedule_id, given),
                tell,
                meter,
                tally=tally,
                share=SHARE,
            )
        if output != "table":
            shown.close()
        await told(client)
        return tally.code

    return with_client(hub, work)


async def _each(ids: list[str]) -> AsyncIterator[str]:
    for schedule_id in ids:
        yield schedule_id


async def _pause(client: Client, schedule_id: str, given: dict[str, Any]) -> dict[str, Any]:
    await client.schedules.pause(schedule_id, given["note"])
    return {}


async def _resume(client: Client, schedule_id: str, given: dict[str, Any]) -> dict[str, Any]:
    await client.schedules.resume(schedule_id, given["note"])
    return {}


async def _trigger(client: Client, schedule_id: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"instance": await client.schedules.trigger(schedule_id, overlap=given["overlap"])}


async def _backfill(client: Client, schedule_id: str, given: dict[str, Any]) -> dict[str, Any]:
    start: datetime = given["start"]
    end: datetime = given["end"]
    await client.schedules.backfill(schedule_id, start, end, at_once=given["at_once"])
    return {}


async def _delete(client: Client, schedule_id: str, given: dict[str, Any]) -> dict[str, Any]:
    await client.schedules.delete(schedule_id)
    return {}


_note = click.option("--note", metavar="TEXT", show_envvar=True, help="Why, for people.")


def _bound(name: str, parameter: str, about: str) -> Callable[..., Any]:
    return click.option(
        name, parameter, type=Moment("past"), required=True, metavar="WHEN", show_envvar=True, help=about
    )


_at_once = click.option(
    "--at-once", is_flag=True, show_envvar=True, help="All beside each other; else one after the other."
)

for _command in (
    create_command,
    update_command,
    _verb("pause", "Let no occurrence run.", "Let no occurrence run until they are resumed.", _pause, _note),
    _verb("resume", "Let occurrences run again.", "Let occurrences run again, from now on.", _resume, _note),
    _verb(
        "trigger",
        "Run now.",
        "Run schedules now, once more than their occurrences, and print the ids of the instances.",
        _trigger,
        overlap_option,
    ),
    _verb(
        "backfill",
        "Run the occurrences of a past range.",
        "Run the occurrences of a past range. Those whose instance is in the hub do not run again.",
        _backfill,
        _at_once,
        _bound("--to", "end", "Its end, included: an instant, or how long ago."),
        _bound(
            "--from",
            "start",
            "Its start, included: an instant such as 2026-11-20T12:00Z, or how long ago, such as 2d.",
        ),
    ),
    _verb("delete", "Delete schedules.", "Delete schedules. What they have started goes on.", _delete),
):
    schedules_group.add_command(_command)
