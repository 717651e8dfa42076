"""``durably audit``: who changed what over HTTP, and whether the record of it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from durably.cli.output import Exit, complain, print_json, say
from durably.cli.settings import Commands, hub_option, output_option, settings_here, shared

if TYPE_CHECKING:
    from pathlib import Path

    from durably.security.audit_chain import AuditLine

_EXAMPLES = """\b
Examples:
  durably audit list --last 20
  durably audit list -o json | jq 'select(.status == 401)'
  durably audit verify
"""


@click.group("audit", cls=Commands, short_help="Who changed what over HTTP.", epilog=_EXAMPLES)
@shared
def audit_group() -> None:
    """Show and check the audit log of a host.

    It is kept beside the hub file (DURABLY_HTTP_AUDIT_FILE says otherwise): one record for each request that would change
    something over an API, or with a key over an HTTP function, whatever its answer; and for each change of the keys.
    """


def _path(hub: str) -> Path:
    from pathlib import Path

    from durably.errors import UsageError
    from durably.security.key_file import audit_beside

    given = settings_here().get("DURABLY_HTTP_AUDIT_FILE")
    path = Path(given) if given else audit_beside(hub)
    if path is None:
        from durably.storage.open import shown_url

        raise UsageError(
            f"The hub {shown_url(hub)} has no audit log: expected the URL of a file, or DURABLY_HTTP_AUDIT_FILE"
        )
    return path


@audit_group.command("list", short_help="Show the records.")
@click.option(
    "--last",
    type=click.IntRange(min=1),
    metavar="N",
    show_envvar=True,
    help="Only the last N records (default: all).",
)
@hub_option
@output_option
@shared
def list_command(hub: str, last: int | None, output: str) -> int:
    """Show the records, oldest first. Whether any is missing or was changed says `durably audit verify`."""
    import sys
    from collections import deque

    import msgspec

    from durably.security.audit_chain import AuditLine, lines_of

    placed = lines_of(_path(hub))
    for line in placed if last is None else deque(placed, last):
        try:
            record = msgspec.json.decode(line.raw, type=AuditLine)
        except msgspec.DecodeError:
            complain(f"{line.where} is no record: it was changed")
            continue
        if output == "json":
            print_json(msgspec.to_builtins(record), sys.stdout, pretty=False, color=None)
        else:
            click.echo(_text(record))
    return Exit.OK


def _text(record: AuditLine) -> str:
    """One line; what others have written cannot break it."""
    parts = [
        record.at[:19].replace("T", " "),
        str(record.status),
        record.who,
        f"from {record.origin}" if record.origin else "",
        record.action,
        f"({record.function})" if record.function else "",
        " ".join(f"{name}={value}" for name, value in record.target.items()),
        f"made={record.made}" if record.made else "",
        ", ".join(record.did),
        f"reason: {record.reason}" if record.reason else "",
    ]
    text = "  ".join(part for part in parts if part)
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


@audit_group.command("verify", short_help="Check that no record is missing or changed.")
@click.option(
    "--first",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    show_envvar=True,
    help="The number of the first record, when older files were taken away (default: 1).",
)
@click.option(
    "--head",
    metavar="N:HASH",
    show_envvar=True,
    help="What an earlier check has printed: it has to be in the log still.",
)
@hub_option
@shared
def verify_command(hub: str, first: int, head: str | None) -> int:
    """Check each record against the one before it, and the last one against the head of the log.

    Whoever can write the log can write all of it anew. Keep the head that this prints elsewhere, and give it with --head:
    what was recorded until then cannot be changed unnoticed. Ends with exit code 1 when something is wrong.
    """
    from durably.security.audit_chain import Head, verify

    path = _path(hub)
    verdict = verify(path, first=first, kept=None if head is None else Head.parse(head))
    if verdict.problem is not None:
        complain(f"The audit log '{path}' is not whole: {verdict.problem}")
        return Exit.FAILED
    if not verdict.first:
        say(f"The audit log '{path}' has no records")
    else:
        say(f"Records {verdict.first} to {verdict.head.n} are in order. The head:")
    click.echo(str(verdict.head))
    return Exit.OK
