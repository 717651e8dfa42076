"""``durably new``: a small project that runs, for each pattern."""

from __future__ import annotations

import os

import click

from durably.cli.output import Exit, say
from durably.cli.settings import shared

PATTERNS = {
    "chaining": "steps that follow each other",
    "fan-out": "many pieces of work at once, one result",
    "http": "a request that starts an orchestration",
    "approval": "waiting for a person, with reminders",
    "monitor": "looking at something for as long as it takes",
    "saga": "steps that are undone when a later one fails",
    "entity": "small pieces of state with a name",
}

_FILES = ("app.py", "test_app.py", "README.md")

_IGNORED = "__pycache__/\n.pytest_cache/\n.venv/\ndurably.db*\n"

_LISTED = "\n".join(f"  {name:10} {about}" for name, about in PATTERNS.items())

_EXAMPLES = f"""\b
Patterns:
{_LISTED}

\b
Examples:
  durably new shop
  durably new shop --pattern saga
"""


@click.command("new", short_help="Write a small project that runs.", epilog=_EXAMPLES)
@click.argument("folder", metavar="NAME")
@click.option(
    "--pattern",
    type=click.Choice(tuple(PATTERNS)),
    default="chaining",
    show_default=True,
    show_envvar=True,
    help="What it shows.",
)
@shared
def new_command(*, folder: str, pattern: str) -> int:
    """Write a project into the new folder NAME: app.py, a test of it, and how to run both.

    A folder that exists must be empty.
    """
    from importlib.resources import files
    from pathlib import Path

    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise click.UsageError(f"'{folder}' exists: expected the name of a new folder, or of an empty one")
    templates = files("durably.cli") / "templates" / pattern
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            text = (templates / name).read_text(encoding="utf-8")
            (target / name).write_text(text.replace("PROJECT", target.resolve().name), encoding="utf-8")
        (target / ".gitignore").write_text(_IGNORED, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"'{folder}' cannot be written: {error.strerror or error}") from None
    say(f"Wrote {', '.join(os.path.join(folder, name) for name in _FILES)}")  # noqa: PTH118 - as it was given
    click.echo(f"cd {folder} && cat README.md")
    return Exit.OK
