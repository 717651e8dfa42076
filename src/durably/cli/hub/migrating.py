"""``durably hub migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from durably.cli.output import Exit, say
from durably.cli.settings import hub_option, shared

if TYPE_CHECKING:
    from durably.storage.hub_state import SchemaStep


@click.command("migrate", short_help="Make a hub, or bring its schema to this version.")
@click.option(
    "--post",
    is_flag=True,
    show_envvar=True,
    help="Also drop what hosts of the version before need: when none of them is left.",
)
@click.option("--print-sql", is_flag=True, show_envvar=True, help="Print what would be run; change nothing.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 4_096),
    metavar="N",
    show_envvar=True,
    help="Of a new hub on PostgreSQL; never changed again.",
)
@click.option(
    "--grant",
    metavar="ROLE",
    show_envvar=True,
    help="Let this role of the PostgreSQL server run hosts and clients, and not change the schema.",
)
@hub_option
@shared
def migrate_command(
    *, post: bool, print_sql: bool, partitions: int | None, grant: str | None, hub: str
) -> int:
    """Make a hub where there is none, or bring its schema to the version of this durably.

    Hosts whose role may change the schema do it by themselves. Before a deployment, run it with the new version: hosts of
    the version before go on. Behind it, when the last of them is gone, run it with --post. May be repeated, and run in
    several places at once: one works, the others wait.
    """
    from durably.storage.administration import migrate_hub, migration_script

    if print_sql:
        text = migration_script(hub, post=post, partitions=partitions, grant=grant)
        if text:
            click.echo(text)
        return Exit.OK
    done: list[SchemaStep] = []

    def told(step: SchemaStep) -> None:
        done.append(step)
        say(f"Step {step}")

    left = migrate_hub(hub, post=post, partitions=partitions, grant=grant, told=told)
    if not done:
        say("The schema of the hub is up to date")
    if grant is not None:
        say(f"Role '{grant}' may run hosts")
    if left:
        steps = ", ".join(map(str, left))
        say(f"When no host of an older version is left: durably hub migrate --post, for step {steps}")
    return Exit.OK
