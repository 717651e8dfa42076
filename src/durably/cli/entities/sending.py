"""``durably entities signal``, ``call`` and ``clean``."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from durably.cli.answers import plain_failure
from durably.cli.completing import complete_entities
from durably.cli.instances.ids import one_id
from durably.cli.instances.session import with_client
from durably.cli.moments import Moment
from durably.cli.output import Exit, complain, failure_text, print_json, say
from durably.cli.payloads import json_of
from durably.cli.settings import (
    format_option,
    output_option,
    reach_options,
    settings_of,
    shared,
    timeout_option,
)

if TYPE_CHECKING:
    from durably.client import Client

_input = click.option(
    "-i", "--input", "given", metavar="JSON|@FILE|-", show_envvar=True, help="The input; - is stdin."
)
_id = click.argument("entity_id", metavar="ID", shell_complete=complete_entities)


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  durably entities {line}" for line in lines)


def _meant(entity_id: str, given: str | None) -> str:
    if entity_id == given == "-":
        raise click.UsageError(
            "Id and --input cannot both come from stdin: put the input into a file, --input @FILE"
        )
    return one_id(entity_id)


@click.command(
    "signal",
    short_help="Ask for an operation, without waiting for it.",
    epilog=_examples(
        "signal @account@ann deposit --input 5", "signal @report@weekly send --at 2026-12-01T02:00Z"
    ),
)
@_id
@click.argument("operation")
@_input
@click.option(
    "--at",
    type=Moment("future"),
    metavar="WHEN",
    show_envvar=True,
    help="Not before this instant: 2026-11-20T12:00Z, or 2h, 3d (from now).",
)
@reach_options
@shared
def signal_command(
    *, entity_id: str, operation: str, given: str | None, at: datetime | None, hub: str
) -> None:
    """Ask an entity for an OPERATION, and return once that is durable. It is performed exactly once.

    Whether it fails is told to nobody but the log of the host.
    """
    wanted = _meant(entity_id, given)
    value = json_of(given, "--input")

    async def send(client: Client) -> None:
        await client.signal_entity(wanted, operation, value, at=at)
        if not await client.is_served():
            say("No host serves the hub: the next one performs it")

    with_client(hub, send)


@click.command(
    "call",
    short_help="Perform an operation, and print its result.",
    epilog=_examples("call @account@ann withdraw --input 5 --timeout 20"),
)
@_id
@click.argument("operation")
@_input
@timeout_option("Stop waiting after this long (exit code 6); the operation may be performed later.")
@reach_options
@format_option("table", "json", help_text="The result as JSON; or one object with result and failure.")
@shared
@click.pass_context
def call_command(
    context: click.Context,
    *,
    entity_id: str,
    operation: str,
    given: str | None,
    timeout: float | None,
    hub: str,
    output: str,
) -> int:
    """Perform an OPERATION of an entity, and print its result on stdout once it is durable.

    Exit code 0: it was performed. 7: it failed, and the state is as it was; the failure is on stderr. 6: the time is over.
    """
    from durably.errors import EntityOperationFailedError

    wanted = _meant(entity_id, given)
    value = json_of(given, "--input")
    color = settings_of(context).color

    async def call(client: Client) -> int:
        if not await client.is_served():
            say("No host serves the hub: waiting for one")
        result, failure = None, None
        try:
            result = await client.call_entity(wanted, operation, value, timeout=timeout)
        except EntityOperationFailedError as error:
            failure = error.details
        if output == "json":
            answer = {
                "entity_id": wanted,
                "operation": operation,
                "result": result,
                "failure": None if failure is None else plain_failure(failure),
            }
            print_json(answer, sys.stdout, pretty=False, color=color)
        elif failure is None:
            print_json(result, sys.stdout, pretty=True, color=color)
        if failure is None:
            return Exit.OK
        complain(f"Operation '{operation}' of entity '{wanted}' failed", color=color)
        click.echo(failure_text(failure), err=True, color=color)
        return Exit.INSTANCE_FAILED

    return with_client(hub, call)


@click.command("clean", short_help="Release locks whose orchestration has ended or is gone.")
@reach_options
@output_option
@shared
def clean_command(*, hub: str, output: str) -> None:
    """Release locks whose orchestration has ended or is gone. In a healthy hub there are none."""

    async def clean(client: Client) -> None:
        done = await client.clean_entity_storage()
        if output == "json":
            answer = {"released": done.released, "removed": done.removed}
            print_json(answer, sys.stdout, pretty=False, color=None)
        else:
            locks = f"{done.released:,} lock{'' if done.released == 1 else 's'}"
            click.echo(f"{locks} released; of these entities, {done.removed:,} did not exist")
        if done.released and not await client.is_served():
            say("No host serves the hub: the next one releases them")

    with_client(hub, clean)
