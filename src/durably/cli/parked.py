"""``durably parked``: what was set aside, and what becomes of it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from durably.cli.formats import FORMATS, Column, printer
from durably.cli.instances.bulk import SHARE, Tally, for_all, metered
from durably.cli.instances.ids import ids_of
from durably.cli.instances.session import with_client
from durably.cli.moments import exactly
from durably.cli.output import Exit, say
from durably.cli.settings import Commands, format_option, quiet_option, reach_options, settings_of, shared

if TYPE_CHECKING:
    from durably.client import Client
    from durably.core.parked import ParkedItem

KEYS = ("id", "kind", "instance_id", "cause", "payload", "since", "deliveries")
"""The columns of CSV, and the keys of an object."""

_COLUMNS = (
    Column("ID", lambda row: row["id"], elastic=True),
    Column("KIND", lambda row: row["kind"]),
    Column("INSTANCE", lambda row: row["instance_id"], elastic=True, optional=True),
    Column("SINCE", lambda row: f"{row['since'][:19]}Z"),
    Column("DEATHS", lambda row: str(row["deliveries"] or ""), right=True, optional=True),
    Column("CAUSE", lambda row: row["cause"], elastic=True, style=lambda _: {"fg": "red"}),
)
_DONE = (Column("ID", lambda row: row["instance_id"]),)
_PAGE = 500

Act = Callable[["Client", str], Awaitable[None]]


@click.group("parked", cls=Commands, short_help="List, redrive and discard what was set aside.")
@shared
def parked_group() -> None:
    """What was set aside, so that all else goes on.

    Instances that kill their host or whose data cannot be stored, and messages that cannot be read.
    """


def _selection(command: Callable[..., Any]) -> Callable[..., Any]:
    kind = click.option(
        "--kind",
        type=click.Choice(["instance", "message"]),
        show_envvar=True,
        help="Only one kind; else both.",
    )
    prefix = click.option(
        "--prefix", metavar="TEXT", show_envvar=True, help="The id of the instance begins with TEXT."
    )
    return kind(prefix(command))


@parked_group.command("list", short_help="List what is parked, and why.")
@_selection
@reach_options
@format_option(
    *FORMATS, help_text="For people; or all for programs, the last one for - of redrive and discard."
)
@shared
@click.pass_context
def list_command(
    context: click.Context, *, kind: str | None, prefix: str | None, hub: str, output: str
) -> None:
    """List what is parked: instances first, then messages."""
    shown = printer(output, sys.stdout, columns=_COLUMNS, keys=KEYS, color=settings_of(context).color)

    async def show(client: Client) -> int:
        count = 0
        async for item in _matching(client, kind, prefix):
            shown.row(_row(item, ids_only=output == "ids"))
            count += 1
        shown.close()
        return count

    if not with_client(hub, show) and sys.stdout.isatty():
        say("Nothing is parked")


def _verb(name: str, about: str, text: str, act: Act) -> click.Command:
    @click.argument("ids", metavar="[ID...|-]", nargs=-1)
    @click.option(
        "--all", "everything", is_flag=True, show_envvar=True, help="All that is parked and matches."
    )
    @_selection
    @click.option("--dry-run", is_flag=True, show_envvar=True, help="Only list what is meant.")
    @click.option("-y", "--yes", is_flag=True, show_envvar=True, help="Do not ask.")
    @reach_options
    @format_option(
        *FORMATS, help_text="Nothing but errors; or for each item an object, a line of CSV, its id."
    )
    @quiet_option
    @shared
    @click.pass_context
    def command(context: click.Context, /, **given: Any) -> int:
        return _carry_out(context, name, act, given)

    return click.command(name, short_help=about, help=text)(command)


def _carry_out(context: click.Context, name: str, act: Act, given: dict[str, Any]) -> int:
    ids: tuple[str, ...] = given["ids"]
    filtered = given["everything"] or given["kind"] is not None or given["prefix"] is not None
    if bool(ids) == filtered:
        raise click.UsageError(
            f"What to {name}? Expected ids, - for ids on stdin, or else --all, --kind or --prefix"
        )
    can_ask = sys.stdin.isatty() and sys.stderr.isatty()
    if filtered and not (given["yes"] or given["dry_run"] or can_ask):
        raise click.UsageError(
            f"Nobody can be asked whether to {name} all that match: add --yes, or look first with --dry-run"
        )
    named = ids_of(ids) if ids else None
    color = settings_of(context).color

    async def work(client: Client) -> int:
        meant = named
        if meant is None:
            meant = [item.id async for item in _matching(client, given["kind"], given["prefix"])]
        shown = printer(
            given["output"], sys.stdout, columns=_DONE, keys=("instance_id", "ok", "error"), color=color
        )
        if given["dry_run"]:
            for item_id in meant:
                shown.row({"instance_id": item_id, "ok": None, "error": None})
            shown.close()
            say(f"{len(meant):,} would be dealt with: {name}")
            return Exit.OK
        asks = filtered and not given["yes"]
        if asks and not click.confirm(f"{name.capitalize()} {len(meant):,} parked?", err=True):
            say("Nothing was done")
            return Exit.FAILED
        tally = Tally()
        progress, meter = metered(name.capitalize(), len(meant), quiet=given["quiet"], color=color)

        async def one(item_id: str) -> dict[str, Any]:
            await act(client, item_id)
            return {}

        def tell(row: dict[str, Any]) -> None:
            if given["output"] != "table":
                shown.row(row)

        with progress:
            await for_all(_each(meant), one, tell, meter, tally=tally, share=SHARE)
        if given["output"] != "table":
            shown.close()
        if filtered:
            say(f"{name.capitalize()}: {tally.done:,} done, {tally.failed:,} failed")
        return tally.code

    return with_client(given["hub"], work)


async def _matching(client: Client, kind: Any, prefix: str | None) -> AsyncIterator[ParkedItem]:
    token: str | None = None
    while True:
        page = await client.query_parked(
            kind=kind, instance_id_prefix=prefix, page_size=_PAGE, continuation_token=token
        )
        for item in page.items:
            yield item
        token = page.continuation_token
        if token is None:
            return


async def _each(ids: list[str]) -> AsyncIterator[str]:
    for item_id in ids:
        yield item_id


def _row(item: ParkedItem, *, ids_only: bool) -> dict[str, Any]:
    if ids_only:
        return {"instance_id": item.id}
    payload = item.payload.hex() if isinstance(item.payload, bytes) else item.payload
    return {
        "id": item.id,
        "kind": item.kind,
        "instance_id": item.instance_id,
        "cause": item.cause,
        "payload": payload,
        "since": exactly(item.since),
        "deliveries": item.deliveries,
    }


async def _redrive(client: Client, item_id: str) -> None:
    await client.redrive(item_id)


async def _discard(client: Client, item_id: str) -> None:
    await client.discard(item_id)


parked_group.add_command(
    _verb(
        "redrive",
        "Try again, after a deployment that cures it.",
        "Try parked instances and messages again, with nothing counted against them: after a deployment that cures them.",
        _redrive,
    )
)
parked_group.add_command(
    _verb(
        "discard",
        "Give up what is parked.",
        "Give up what is parked: the activity call that is to blame fails and its orchestration goes on; an instance that is "
        "parked for another reason is terminated; a message is deleted for good.",
        _discard,
    )
)
