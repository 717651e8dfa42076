"""``durably func-durable``: the verbs of ``func durable`` (Azure Functions Core Tools), for scripts that use them.

Where a command of ours does the same, the verb is only another way to write it.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from durably.cli.func_options import common, data_of, filters, flag, hub_of, id_option, option, reason_option
from durably.cli.instances.group import instances_group
from durably.cli.output import Exit, print_json, say
from durably.cli.settings import Commands, settings_of, shared

if TYPE_CHECKING:
    from durably.client import Client

_EXAMPLES = """\b
Examples:
  durably func-durable start-new --function-name process_order --input @order.json --id order-7
  durably func-durable get-instances --runtime-status "running failed" --top 50
  durably func-durable purge-history --created-before 2026-11-01
"""


@click.group(
    "func-durable", cls=Commands, short_help="The verbs of Azure's 'func durable'.", epilog=_EXAMPLES
)
@shared
def func_durable_group() -> None:
    """Understand the command line of 'func durable', so that scripts need another program name and nothing else.

    The hub is that of --hub or DURABLY_HUB. --connection-string-setting names an environment variable that holds its URL
    instead; --task-hub-name is a URL, or what the hub file is called, as a check.
    """


def _ours(context: click.Context, given: dict[str, Any], *words: str) -> int:
    """Do what a command of ours does."""
    command = instances_group.commands[words[0]]
    arguments = [f"--hub={hub_of(given)}", *words[1:]]
    # In a context below ours: the key of this command line is known there.
    with command.make_context(words[0], arguments, parent=context.parent) as made:
        return command.invoke(made)


# --- the verbs -------------------------------------------------------------------------------------------------------


@func_durable_group.command("start-new", short_help="Start an instance.")
@click.option("--function-name", metavar="NAME", required=True, show_envvar=True, help="The orchestrator.")
@click.option(
    "--id", "instance_id", metavar="ID", show_envvar=True, help="The instance; a new id by default."
)
@click.option("--input", "data", metavar="JSON|TEXT|@FILE", show_envvar=True, help="The input.")
@common
@click.pass_context
def start_new(
    context: click.Context, *, function_name: str, instance_id: str | None, data: str | None, **given: Any
) -> int:
    """Start an instance, and print its id: durably instances start."""
    options = (*option("--id", instance_id), *option("--input", data_of(data)))
    return _ours(context, given, "start", *options, "--", function_name)


@func_durable_group.command("raise-event", short_help="Deliver an external event.")
@id_option
@click.option("--event-name", metavar="NAME", required=True, show_envvar=True, help="The event.")
@click.option("--event-data", "data", metavar="JSON|TEXT|@FILE", show_envvar=True, help="Its payload.")
@common
@click.pass_context
def raise_event(
    context: click.Context, *, instance_id: str, event_name: str, data: str | None, **given: Any
) -> int:
    """Deliver an external event: durably instances raise."""
    return _ours(context, given, "raise", *option("--data", data_of(data)), "--", instance_id, event_name)


@func_durable_group.command("terminate", short_help="Stop an instance at once.")
@id_option
@reason_option
@common
@click.pass_context
def terminate(context: click.Context, *, instance_id: str, reason: str | None, **given: Any) -> int:
    """Stop an instance at once: durably instances terminate."""
    return _ours(context, given, "terminate", *option("--reason", reason), "--", instance_id)


@func_durable_group.command("rewind", short_help="Let a failed instance try again.")
@id_option
@reason_option
@common
@click.pass_context
def rewind(context: click.Context, *, instance_id: str, reason: str | None, **given: Any) -> int:
    """Let a failed instance go on from before its failure: durably instances rewind."""
    return _ours(context, given, "rewind", *option("--reason", reason), "--", instance_id)


@func_durable_group.command("get-history", short_help="Print a history.")
@id_option
@common
@click.pass_context
def get_history(context: click.Context, *, instance_id: str, **given: Any) -> int:
    """Print the history of an instance as JSON: durably instances history."""
    return _ours(context, given, "history", "--payloads", "--output=json", "--", instance_id)


@func_durable_group.command("purge-history", short_help="Delete finished instances.")
@filters
@common
@click.pass_context
def purge_history(
    context: click.Context,
    *,
    statuses: tuple[str, ...],
    after: datetime | None,
    before: datetime | None,
    **given: Any,
) -> int:
    """Delete finished instances with their history, without asking: durably instances purge."""
    words = ["purge", "--yes", "--quiet", *(f"--status={status}" for status in statuses)]
    words += [*option("--created-from", after), *option("--created-to", before)]
    if not (statuses or after or before):
        words.append("--all")
    return _ours(context, given, *words)


@func_durable_group.command("get-instances", short_help="Print a page of instances.")
@filters
@click.option(
    "--top",
    type=click.IntRange(1, 1_000),
    default=10,
    show_default=True,
    show_envvar=True,
    help="So many at most.",
)
@click.option("--continuation-token", metavar="TOKEN", show_envvar=True, help="Of the page before.")
@common
@click.pass_context
def get_instances(
    context: click.Context,
    *,
    statuses: tuple[str, ...],
    after: datetime | None,
    before: datetime | None,
    top: int,
    continuation_token: str | None,
    **given: Any,
) -> int:
    """Print a page of instances as JSON, and the token of the next one on stderr."""
    from durably.cli.instances.rows import row_of
    from durably.cli.instances.session import with_client

    async def find(client: Client) -> int:
        page = await client.query_instances(
            runtime_status=statuses or None,
            created_from=after,
            created_to=before,
            page_size=top,
            continuation_token=continuation_token or None,
            fetch_payloads=False,
        )
        rows = [row_of(one) for one in page.instances]
        print_json(rows, sys.stdout, pretty=True, color=settings_of(context).color)
        if page.continuation_token is not None:
            say(f"Continuation token for the next page: '{page.continuation_token}'")
        return Exit.OK

    return with_client(hub_of(given), find)


@func_durable_group.command("get-runtime-status", short_help="Print the status of an instance.")
@id_option
@flag("--show-input", "Its input, too.")
@flag("--show-output", "Its output, too.")
@common
@click.pass_context
def get_runtime_status(
    context: click.Context, *, instance_id: str, show_input: bool, show_output: bool, **given: Any
) -> int:
    """Print the status of an instance as JSON."""
    from durably.cli.instances.rows import row_of
    from durably.cli.instances.session import status_of, with_client

    async def show(client: Client) -> int:
        status = await status_of(client, instance_id)
        row = row_of(status)
        if show_input:
            row["input"] = status.input
        if show_output:
            row["output"] = status.output
        print_json(row, sys.stdout, pretty=True, color=settings_of(context).color)
        return Exit.OK

    return with_client(hub_of(given), show)


@func_durable_group.command("delete-task-hub", short_help="Delete a hub, with all that is in it.")
@common
@click.pass_context
def delete_taskhub_of(context: click.Context, **given: Any) -> int:
    """Delete a hub with all its instances, without asking. Refused while a host serves it. Its keys stay."""
    import asyncio

    from durably.errors import UsageError
    from durably.storage.open import open_store

    hub = hub_of(given)
    if hub.lower().startswith(("http://", "https://")):
        raise UsageError(
            f"A hub cannot be deleted over HTTP: stop the host of {hub}, and name the hub itself"
        )

    store = open_store(hub)

    async def delete() -> None:
        await store.open(create=False)  # says when there is none, or when it is none of ours
        await store.delete()

    asyncio.run(delete())
    say(f"Deleted {store.url}")
    return Exit.OK
