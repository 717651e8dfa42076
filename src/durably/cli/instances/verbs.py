"""``durably instances raise|cancel|terminate|suspend|resume|rewind|restart|purge``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from durably.cli.instances.control import OVER, Verb, carry_out, controls, ids_argument
from durably.cli.payloads import json_of

if TYPE_CHECKING:
    from durably.client import Client

C = TypeVar("C", bound=Callable[..., Any])

_RAISE = Verb("raise", "told")
_CANCEL = Verb("cancel", "asked to cancel")
_TERMINATE = Verb("terminate", "terminated")
_SUSPEND = Verb("suspend", "suspended", ("Running", "Pending"))
_RESUME = Verb("resume", "resumed", ("Suspended",))
_REWIND = Verb("rewind", "rewound", ("Failed",))
_RESTART = Verb("restart", "restarted", OVER, ("new_instance_id",))
_PURGE = Verb("purge", "purged", OVER)

_reason = click.option("-r", "--reason", metavar="TEXT", show_envvar=True, help="Why; it is recorded.")


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  durably instances {line}" for line in lines)


@click.command(
    "raise",
    short_help="Deliver an external event.",
    epilog=_examples(
        'raise order-7 ManualApproval --data \'{"by": "ada"}\'', "raise Go --name wait --status Running --yes"
    ),
)
@ids_argument(_RAISE)
@click.argument("event")
@click.option("-d", "--data", metavar="JSON|@FILE|-", show_envvar=True, help="Its payload.")
@controls
def raise_command(context: click.Context, event: str, data: str | None, **given: Any) -> int:
    """Deliver the external event EVENT to instances: by id, or to all that match the filters.

    It is applied exactly once, and kept until the instance waits for it.
    """
    if data == "-" and "-" in given["ids"]:
        raise click.UsageError(
            "Ids and --data cannot both come from stdin: put the data into a file, --data @FILE"
        )
    payload = json_of(data, "--data")

    async def act(client: Client, instance_id: str) -> dict[str, Any]:
        await client.raise_event(instance_id, event, payload)
        return {}

    return carry_out(context, _RAISE, act, given)


@click.command("cancel", short_help="Ask instances to cancel themselves.")
@ids_argument(_CANCEL)
@_reason
@controls
def cancel_command(context: click.Context, *, reason: str | None, **given: Any) -> int:
    """Ask instances to cancel themselves: their code sees CancelledError, and may clean up."""

    async def act(client: Client, instance_id: str) -> dict[str, Any]:
        await client.cancel(instance_id, reason)
        return {}

    return carry_out(context, _CANCEL, act, given)


@click.command(
    "terminate",
    short_help="Stop instances at once.",
    epilog=_examples(
        "terminate order-7 --reason 'ordered twice'",
        "terminate --name poll --created-to 30d --dry-run",
        "list --status Suspended -o ids | durably instances terminate -",
    ),
)
@ids_argument(_TERMINATE)
@_reason
@click.option("--recursive", is_flag=True, show_envvar=True, help="Their sub-orchestrations too.")
@click.option(
    "--no-compensate", is_flag=True, show_envvar=True, help="Leave what their sagas have done as it is."
)
@controls
def terminate_command(
    context: click.Context, *, reason: str | None, recursive: bool, no_compensate: bool, **given: Any
) -> int:
    """Stop instances at once: their code sees nothing, their activities are cancelled."""
    options: dict[str, Any] = {"recursive": True} if recursive else {}
    if no_compensate:
        options["compensate"] = False

    async def act(client: Client, instance_id: str) -> dict[str, Any]:
        await client.terminate(instance_id, reason, **options)
        return {}

    return carry_out(context, _TERMINATE, act, given)


@click.command("suspend", short_help="Let no turn of instances run.")
@ids_argument(_SUSPEND)
@_reason
@controls
def suspend_command(context: click.Context, *, reason: str | None, **given: Any) -> int:
    """Let no turn of instances run until they are resumed; what arrives is kept."""

    async def act(client: Client, instance_id: str) -> dict[str, Any]:
        await client.suspend(instance_id, reason)
        return {}

    return carry_out(context, _SUSPEND, act, given)


@click.command("resume", short_help="Let suspended instances go on.")
@ids_argument(_RESUME)
@_reason
@controls
def resume_command(context: click.Context, *, reason: str | None, **given: Any) -> int:
    """Let suspended instances go on."""

    async def act(client: Client, instance_id: str) -> dict[str, Any]:
        await client.resume(instance_id, reason)
        return {}

    return carry_out(context, _RESUME, act, given)


@click.command(
    "rewind",
    short_help="Let failed instances try again what failed.",
    epilog=_examples(
        "rewind order-7 --reason 'the bank is back'", "rewind --status Failed --created-from 1d --yes"
    ),
)
@ids_argument(_REWIND)
@_reason
@controls
def rewind_command(context: click.Context, *, reason: str | None, **given: Any) -> int:
    """Let failed instances go on from before their failure: what succeeded is kept, what failed is tried again."""

    async def act(client: Client, instance_id: str) -> dict[str, Any]:
        await client.rewind(instance_id, reason)
        return {}

    return carry_out(context, _REWIND, act, given)


@click.command("restart", short_help="Start instances again from the beginning.")
@ids_argument(_RESTART)
@_reason
@click.option("--new-id", is_flag=True, show_envvar=True, help="As a new instance; the old one stays.")
@controls
def restart_command(context: click.Context, *, reason: str | None, new_id: bool, **given: Any) -> int:
    """Start instances again with their name, version, input and tags, and print their ids.

    Under their own id they must have ended, and what they did is forgotten.
    """

    async def act(client: Client, instance_id: str) -> dict[str, Any]:
        handle = await client.restart(instance_id, new_instance_id=new_id, reason=reason)
        return {"new_instance_id": handle.instance_id}

    return carry_out(context, _RESTART, act, given)


@click.command(
    "purge",
    short_help="Delete finished instances.",
    epilog=_examples("purge order-7", "purge --status Completed --created-to 30d --yes"),
)
@ids_argument(_PURGE)
@click.option("--recursive", is_flag=True, show_envvar=True, help="Their sub-orchestrations too.")
@controls
def purge_command(context: click.Context, *, recursive: bool, **given: Any) -> int:
    """Delete finished instances with their history. Their ids are free again."""
    options: dict[str, Any] = {"recursive": True} if recursive else {}

    async def act(client: Client, instance_id: str) -> dict[str, Any]:
        from durably.errors import InstanceNotFoundError

        if not await client.purge(instance_id, **options):
            raise InstanceNotFoundError(instance_id)
        return {}

    return carry_out(context, _PURGE, act, given)


COMMANDS = (
    raise_command,
    cancel_command,
    terminate_command,
    suspend_command,
    resume_command,
    rewind_command,
    restart_command,
    purge_command,
)
