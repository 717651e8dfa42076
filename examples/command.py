"""What the examples have in common as commands: `--dir`, Ctrl-C, and errors in one line. Nothing of it is about durably."""

import argparse
import asyncio
import contextlib
import io
import logging
import sys
import tempfile
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any, cast

from durably import DurablyError

Story = Callable[[Path, argparse.Namespace], Coroutine[Any, Any, bool]]


def command(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of an example, with the argument that all of them have."""
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}", description=description)
    parser.add_argument(
        "--dir",
        type=Path,
        help="keep all files here, and go on with what is in there; else a temporary folder, removed at the end",
    )
    return parser


def run(parser: argparse.ArgumentParser, story: Story) -> int:
    """Run an example.

    Args:
        parser: From `command`.
        story: Gets the folder and the arguments; returns whether all went well.

    Returns:
        The exit code.
    """
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    cast("io.TextIOWrapper", sys.stdout).reconfigure(line_buffering=True)  # in a pipe, too
    with folder_of(arguments.dir) as folder:
        try:
            return 0 if asyncio.run(story(folder, arguments)) else 1
        except KeyboardInterrupt:
            print(
                f"\nstopped; to go on: {parser.prog} --dir {arguments.dir}" if arguments.dir else "\nstopped"
            )
            return 130
        except DurablyError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 1


@contextlib.contextmanager
def folder_of(given: Path | None) -> Generator[Path]:
    """The given folder, made where needed, or one that is gone at the end."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="durably-") as temporary:
            yield Path(temporary)
    else:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()


def at_least(least: float) -> Callable[[str], float]:
    """The type of an argument that is a number with a lower bound."""

    def number(text: str) -> float:
        value = float(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is out of range: expected {least:g} or more")
        return value

    return number


def count(text: str) -> int:
    """The type of an argument that is a number of things."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range: expected 1 or more")
    return value
