"""``durably doctor``: what may be wrong with a hub and with this installation, and what to do."""

from __future__ import annotations

import sys
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from durably.cli.formats import colored, printable, terminal_width
from durably.cli.output import Exit, print_json
from durably.cli.settings import hub_option, output_option, settings_of, shared

if TYPE_CHECKING:
    from durably.storage.checkup import Finding

_COLORS = {"FAIL": "red", "WARN": "yellow", "OK": "green"}  # the worst first
_INDENT = len("FAIL  integrity  ")


@click.command("doctor", short_help="Look for what is wrong with a hub.")
@click.option(
    "--deep",
    is_flag=True,
    show_envvar=True,
    help="Also read the whole file of a SQLite hub, and compare tables with indexes; seconds a gigabyte.",
)
@hub_option
@output_option
@shared
@click.pass_context
def doctor_command(context: click.Context, *, deep: bool, hub: str, output: str) -> int:
    """Look at a hub and at this installation, a line for each thing: OK, WARN or FAIL, and what to do.

    Reads only, whether a host runs or not. Exit code 0: it can be used (there may be warnings). 1: something is wrong,
    or there is no hub.
    """
    from durably.clock import SystemClock
    from durably.storage.open import examine_hub, shown_url

    as_json = output == "json"
    colors = colored(sys.stdout, color=settings_of(context).color)
    found: list[Finding] = []
    for finding in (_installation(), *examine_hub(hub, SystemClock().now(), deep=deep)):
        found.append(finding)
        if not as_json:
            _print(finding, colors=colors)
    levels = {finding.level for finding in found}
    if as_json:
        worst = next(level for level in _COLORS if level in levels)
        answer = {
            "hub": shown_url(hub),
            "level": worst,
            "findings": [finding._asdict() for finding in found],
        }
        print_json(answer, sys.stdout, pretty=False, color=None)
    return Exit.FAILED if "FAIL" in levels else Exit.OK


def _installation() -> Finding:
    from importlib.metadata import version

    from durably.storage.checkup import Finding

    python = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("OK", "durably", f"durably {version('durably')}, Python {python} on {sys.platform}")


def _print(finding: Finding, *, colors: bool) -> None:
    level, subject = f"{finding.level:4}", finding.subject
    if colors:
        level = click.style(level, fg=_COLORS[finding.level], bold=finding.level != "OK")
    texts = [printable(finding.text)]
    if finding.advice and finding.level != "OK":
        texts.append(f"→ {printable(finding.advice)}")
    width = terminal_width(sys.stdout)
    for text in texts:
        for line in [text] if width is None else wrap(text, max(20, width - _INDENT)):
            click.echo(f"{level}  {subject:9}  {line}", color=colors)
            level, subject = "    ", ""
