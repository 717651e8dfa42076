"""``durably instances start`` and ``result``."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from durably.cli.answers import answer_of, failure_of
from durably.cli.completing import complete_ids, complete_names
from durably.cli.instances.filters import Tag
from durably.cli.instances.ids import one_id
from durably.cli.instances.session import status_of, with_client
from durably.cli.moments import Moment
from durably.cli.output import Exit, complain, failure_text, print_json, say
from durably.cli.payloads import json_of
from durably.cli.settings import format_option, reach_options, settings_of, shared, timeout_option

if TYPE_CHECKING:
    from durably.client import Client
    from durably.core.status import InstanceStatus

_EXAMPLES = """\b
Examples:
  durably instances start process_order --input '{"id": 7}' --id order-7 --tag region=eu
  durably instances start nightly_report --at 2026-12-01T02:00Z
  durably instances start process_order --input @order.json --wait --timeout 60
"""

_timeout = timeout_option("Stop waiting after this long (exit code 6); the instance goes on.")


@click.command("start", short_help="Start an instance.", epilog=_EXAMPLES)
@click.argument("name", shell_complete=complete_names)
@click.option(
    "-i", "--input", "given", metavar="JSON|@FILE|-", show_envvar=True, help="The input; - is stdin."
)
@click.option(
    "--id", "instance_id", metavar="ID", show_envvar=True, help="The instance; a new id by default."
)
@click.option(
    "--at",
    type=Moment("future"),
    metavar="WHEN",
    show_envvar=True,
    help="Not before this instant: 2026-11-20T12:00Z, or 2h, 3d (from now).",
)
@click.option(
    "--tag", type=Tag(), multiple=True, metavar="KEY=VALUE", show_envvar=True, help="May be repeated."
)
@click.option("--version", metavar="TEXT", show_envvar=True, help="The version that it keeps.")
@click.option(
    "--on-existing",
    type=click.Choice(("replace_finished", "fail", "replace", "attach")),
    default="replace_finished",
    show_default=True,
    show_envvar=True,
    help="What to do when the id is taken.",
)
@click.option("--wait", is_flag=True, show_envvar=True, help="Wait for the result, and print that.")
@_timeout
@reach_options
@format_option("table", "json", help_text="The id (with --wait: the result), or one object.")
@shared
@click.pass_context
def start_command(
    context: click.Context,
    *,
    name: str,
    given: str | None,
    instance_id: str | None,
    at: datetime | None,
    tag: tuple[tuple[str, str], ...],
    version: str | None,
    on_existing: Literal["replace_finished", "fail", "replace", "attach"],
    wait: bool,
    timeout: float | None,
    hub: str,
    output: str,
) -> int:
    """Start an instance of the orchestrator NAME, and print its id once the start is durable.

    A host of the hub runs it. While none does, the start waits for the next one.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for waiting: add --wait, or leave it out")
    value = json_of(given, "--input")

    async def start(client: Client) -> int:
        handle = await client.start(
            name,
            value,
            instance_id=instance_id,
            start_at=at,
            version=version,
            tags=dict(tag) or None,
            on_existing=on_existing,
        )
        if wait:
            say(f"Started {handle.instance_id}")
            return await _result(context, client, handle.instance_id, timeout, output)
        if output == "json":
            answer = {"instance_id": handle.instance_id, "name": name}
            print_json(answer, sys.stdout, pretty=False, color=None)
        else:
            click.echo(handle.instance_id)
        if not await client.is_served():
            say("No host serves the hub: the next one starts it")
        return Exit.OK

    return with_client(hub, start)


@click.command("result", short_help="Wait for an instance, and print its result.")
@click.argument("instance_id", metavar="ID", shell_complete=complete_ids())
@_timeout
@reach_options
@format_option(
    "table", "json", help_text="The result as JSON; or one object with status, result and failure."
)
@shared
@click.pass_context
def result_command(
    context: click.Context, *, instance_id: str, timeout: float | None, hub: str, output: str
) -> int:
    """Wait until the instance has ended, and print its result on stdout.

    Exit code 0: it completed. 7: it failed, was cancelled or terminated; the failure is on stderr. 4: there is none.
    6: the time is over, and it goes on.
    """
    wanted = one_id(instance_id)
    return with_client(hub, lambda client: _result(context, client, wanted, timeout, output))


async def _result(
    context: click.Context, client: Client, instance_id: str, timeout_s: float | None, output: str
) -> int:
    status = await status_of(client, instance_id)
    if not status.runtime_status.is_terminal:
        if not await client.is_served():
            say("No host serves the hub: waiting for one")
        elif status.blocked is not None:
            say(f"Instance '{instance_id}' cannot go on as it is. {await client.why(instance_id)}")
        status = await client.wait_for_completion(instance_id, timeout_s)
    return tell_end(context, status, output)


def tell_end(context: click.Context, status: InstanceStatus, output: str) -> int:
    """Print how an instance ended; return the exit code."""
    failure = failure_of(status)
    color = settings_of(context).color
    if output == "json":
        answer: Any = answer_of(status, failure, ended=True)
        print_json(answer, sys.stdout, pretty=False, color=color)
    elif failure is None:
        print_json(status.output, sys.stdout, pretty=True, color=color)
    if failure is None:
        return Exit.OK
    complain(f"Instance '{status.instance_id}' ended as {status.runtime_status.value}", color=color)
    click.echo(failure_text(failure), err=True, color=color)
    return Exit.INSTANCE_FAILED
