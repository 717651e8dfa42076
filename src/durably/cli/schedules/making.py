"""``durably schedules create`` and ``update``: the options that say what a schedule does, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from durably.cli.completing import complete_names
from durably.cli.instances.filters import Tag
from durably.cli.instances.session import with_client
from durably.cli.moments import Length, Moment
from durably.cli.output import Exit, say
from durably.cli.payloads import json_of
from durably.cli.settings import reach_options, shared

if TYPE_CHECKING:
    from durably.client import Client

OVERLAPS = ("skip", "allow", "buffer_one", "buffer_all", "cancel_other", "terminate_other")
CATCH_UPS = ("latest", "all", "skip")

_EXAMPLES = """\b
Examples:
  durably schedules create nightly report --cron '0 30 2 * * *' --time-zone Europe/Berlin
  durably schedules create poll check --every 30s --overlap buffer_one --input '{"depth": 2}'
  durably schedules create beat --entity @monitor@main --operation beat --every 1min
"""

_INSTANT = "an instant such as 2026-11-20T12:00Z, or a distance such as 2h or 3d from now"


def overlap_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--overlap``."""
    return click.option(
        "--overlap",
        type=click.Choice(OVERLAPS),
        show_envvar=True,
        help="What to do while an instance of the schedule still runs.",
    )(command)


def _what_and_when(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        shared,
        reach_options,
        click.option(
            "--catch-up-window",
            type=Length(),
            metavar="SPAN",
            show_envvar=True,
            help="Nothing that is later than this is made up for.",
        ),
        click.option(
            "--catch-up",
            type=click.Choice(CATCH_UPS),
            show_envvar=True,
            help="What is made up for that came due while no host ran.",
        ),
        overlap_option,
        click.option(
            "--jitter", type=Length(), metavar="SPAN", show_envvar=True, help="Up to so much later."
        ),
        click.option(
            "--end", "end_at", type=Moment("future"), metavar="WHEN", show_envvar=True, help=f"{_INSTANT}."
        ),
        click.option(
            "--start",
            "start_at",
            type=Moment("future"),
            metavar="WHEN",
            show_envvar=True,
            help=f"{_INSTANT}.",
        ),
        click.option(
            "--time-zone",
            metavar="NAME",
            show_envvar=True,
            help="Of --cron, such as Europe/Berlin; else UTC.",
        ),
        click.option(
            "--every",
            "interval",
            type=Length(),
            metavar="SPAN",
            show_envvar=True,
            help="In the place of --cron: 30s, 5min, 2h, 1d.",
        ),
        click.option(
            "--cron",
            metavar="TEXT",
            show_envvar=True,
            help="'{second} {minute} {hour} {day} {month} {day-of-week}'.",
        ),
        click.option(
            "--tag",
            type=Tag(),
            multiple=True,
            metavar="KEY=VALUE",
            show_envvar=True,
            help="Of the instances.",
        ),
        click.option("--version", metavar="TEXT", show_envvar=True, help="Of the instances."),
        click.option("--operation", metavar="NAME", show_envvar=True, help="What to ask the entity for."),
        click.option(
            "--entity", metavar="@NAME@KEY", show_envvar=True, help="Signal this, in the place of a start."
        ),
        click.option(
            "-i", "--input", "given", metavar="JSON|@FILE|-", show_envvar=True, help="The input; - is stdin."
        ),
        click.argument("name", required=False, shell_complete=complete_names),
        click.argument("schedule_id", metavar="ID"),
    ):
        command = option(command)
    return command


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    """What was said, for `Schedules.create` and `update`."""
    kept = {key: value for key, value in given.items() if value is not None and key != "tag"}
    if given["tag"]:
        kept["tags"] = dict(given["tag"])
    return kept


@click.command("create", short_help="Create a schedule.", epilog=_EXAMPLES)
@click.option("--note", metavar="TEXT", show_envvar=True, help="For people.")
@click.option("--paused", is_flag=True, show_envvar=True, help="It waits for resume.")
@_what_and_when
def create_command(
    *, schedule_id: str, name: str | None, given: str | None, hub: str, paused: bool, **options: Any
) -> int:
    """Create the schedule ID: it starts instances of the orchestrator NAME, or signals an entity."""
    arguments, value = _arguments(options), json_of(given, "--input")

    async def create(client: Client) -> int:
        await client.schedules.create(schedule_id, name, value, paused=paused, **arguments)
        return await told(client)

    return with_client(hub, create)


@click.command("update", short_help="Change a schedule.")
@_what_and_when
def update_command(*, schedule_id: str, name: str | None, given: str | None, hub: str, **options: Any) -> int:
    """Change what is said, and nothing else. A schedule of code is as declared again when the next host starts."""
    arguments = _arguments(options)
    if given is not None:
        arguments["input"] = json_of(given, "--input")
    if not arguments and name is None:
        raise click.UsageError("Nothing is changed: expected an orchestrator or an option that says what")

    async def update(client: Client) -> int:
        await client.schedules.update(schedule_id, name, **arguments)
        return await told(client)

    return with_client(hub, update)


async def told(client: Client) -> int:
    """Say when nobody does it yet; returns the exit code."""
    if not await client.is_served():
        say("No host serves the hub: the next one does it")
    return Exit.OK
