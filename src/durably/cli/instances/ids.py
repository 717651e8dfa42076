"""Ids of instances on the command line: as arguments, or on stdin, one a line."""

from __future__ import annotations

import sys

import click


def ids_of(given: tuple[str, ...]) -> list[str]:
    """The ids, each once, in their order; ``-`` stands for those on stdin.

    Raises:
        click.UsageError: There is an empty one, or ``-`` stands beside others.
    """
    if "-" in given:
        if len(given) > 1:
            raise click.UsageError("- reads the ids from stdin: expected no others beside it")
        given = tuple(filter(None, (line.strip() for line in sys.stdin)))
    if not all(given):
        raise click.UsageError("An id is empty: expected the id of an instance")
    return list(dict.fromkeys(given))


def one_id(given: str) -> str:
    """The id of a command that takes one; ``-`` stands for the only line of stdin.

    Raises:
        click.UsageError: There is none, or more than one.
    """
    ids = ids_of((given,))
    if len(ids) != 1:
        raise click.UsageError(f"Expected one id on stdin, found {len(ids)}")
    return ids[0]
