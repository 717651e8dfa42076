"""``durably config``: what is set, and where."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from durably.cli.formats import printable
from durably.cli.output import Exit, complain, print_json, say, warn
from durably.cli.settings import Commands, app_hub_option, output_option, serving_options, shared

if TYPE_CHECKING:
    from durably.cli.config.effective import Effective
    from durably.config.settings import Settings

_EXAMPLES = """\b
Examples:
  durably config show --origin
  durably config show orders.py --port 8080 -o json
  durably config validate
"""


@click.group("config", cls=Commands, short_help="What is set, and where.", epilog=_EXAMPLES)
@shared
def config_group() -> None:
    """Show and check settings.

    From low to high: defaults, host.json, local.settings.json, the environment, the command line. The files are those beside
    APP, or in the current folder. Everything has the name of its environment variable; docs/settings.md has them all.
    """


@config_group.command("show", short_help="Show what is set.")
@click.argument("apps", metavar="[APP]...", nargs=-1)
@click.option("--origin", is_flag=True, show_envvar=True, help="Also where each was set.")
@click.option(
    "--all", "everything", is_flag=True, show_envvar=True, help="Defaults, too (default with --origin)."
)
@app_hub_option
@serving_options
@output_option
@shared
@click.pass_context
def show_command(
    context: click.Context,
    *,
    apps: tuple[str, ...],
    origin: bool,
    everything: bool,
    output: str,
    **given: Any,
) -> int:
    """Show every setting that durably run APP would have, with its value. What is secret is not shown.

    Names of settings of the app itself, from local.settings.json, are shown without their values.
    """
    from durably.cli.config.effective import effective
    from durably.cli.from_files import settings_of_apps

    settings = settings_of_apps(apps)
    _tell(settings)
    settings.check()
    rows = effective(settings, context)
    if output == "json":
        print_json([row.as_json() for row in rows], sys.stdout, pretty=False, color=None)
        return Exit.OK
    shown = [row for row in rows if everything or origin or row.origin != "default"]
    if not shown:
        say("Nothing is set: all is as it is by default (--all)")
    _print(shown, origin=origin)
    return Exit.OK


def _print(rows: list[Effective], *, origin: bool) -> None:
    names = max((len(row.name) for row in rows), default=0)
    values = min(max((len(row.text) for row in rows), default=0), 48)
    for row in rows:
        where = f"  {row.origin}" if origin else ""
        click.echo(printable(f"{row.name:{names}}  {row.text:{values if origin else 0}}{where}").rstrip())


@config_group.command("validate", short_help="Look for what is wrong with the settings.")
@click.argument("apps", metavar="[APP]...", nargs=-1)
@shared
def validate_command(*, apps: tuple[str, ...]) -> int:
    """Name every setting that is wrong, unknown, or not supported. Exit code 1: there is one."""
    from durably.cli.config.catalogue import check_values
    from durably.cli.from_files import settings_of_apps
    from durably.errors import UsageError

    settings = settings_of_apps(apps)
    found = _tell(settings)
    for problem in settings.problems:
        if problem.level == "error":
            complain(problem.text)
            found += 1
    try:
        check_values(settings)
    except UsageError as error:
        complain(str(error))
        found += 1
    if not found:
        say("All settings are known, and mean something")
    return Exit.FAILED if found else Exit.OK


def _tell(settings: Settings) -> int:
    from durably.cli.config.catalogue import unknown_variables

    lines = [*settings.warnings, *unknown_variables(settings)]
    for line in lines:
        warn(line)
    return len(lines)
