"""``durably keys``: the keys that open the HTTP face of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from durably.cli.output import Exit, print_json, say
from durably.cli.settings import Commands, hub_option, output_option, shared

if TYPE_CHECKING:
    from durably.security.access_keys import AccessKey, KeyKind
    from durably.security.key_file import KeyFile

_KINDS = click.Choice(["master", "host", "function", "system"])

_function = click.option(
    "--function", metavar="NAME", show_envvar=True, help="The function that a function key opens."
)

_EXAMPLES = """\b
Examples:
  durably keys renew master                  a key for everything
  durably keys renew system                  the key of the management API
  durably keys renew function ci --function orders
"""


@click.group("keys", cls=Commands, short_help="Keys that open a host over HTTP.", epilog=_EXAMPLES)
@shared
def keys_group() -> None:
    """List, renew and delete the keys of a host.

    They are kept beside the hub file (DURABLY_HTTP_KEY_FILE says otherwise), as digests: a key is shown when it is made, and
    never again. A running host follows at once.
    """


def _named(kind: str, name: str | None) -> str:
    from durably.security.access_keys import DEFAULT, MANAGEMENT

    return name or {"master": "_master", "system": MANAGEMENT}.get(kind, DEFAULT)


def _file(hub: str) -> KeyFile:
    import os
    from pathlib import Path

    from durably.clock import SystemClock
    from durably.errors import UsageError
    from durably.security.key_file import KeyFile, beside

    given = os.environ.get("DURABLY_HTTP_KEY_FILE")
    path = Path(given) if given else beside(hub)
    if path is None:
        raise UsageError(
            f"The keys of {hub} live and end with its host: expected the URL of a file, or DURABLY_HTTP_KEY_FILE"
        )
    return KeyFile(path, SystemClock().now)


@keys_group.command("list", short_help="Show which keys there are.")
@hub_option
@output_option
@shared
def list_command(hub: str, output: str) -> int:
    """Show which keys there are, without the keys themselves."""
    import sys

    keys = _file(hub).ring.keys
    if output == "json":
        print_json([_plain(key) for key in keys], sys.stdout, pretty=False, color=None)
        return Exit.OK
    if not keys:
        say("There are no keys yet: the first host makes the standard ones, 'durably keys renew' any")
    for key in keys:
        row = _plain(key)
        where = f"  function {row['function']}" if row["function"] else ""
        click.echo(f"{row['kind']:9} {row['name']:24} {row['created']}{where}")
    return Exit.OK


def _plain(key: AccessKey) -> dict[str, str | None]:
    from durably.core.timeline import instant

    created = instant(key.created_at).strftime("%Y-%m-%d %H:%M:%S")
    return {"kind": key.kind, "name": key.name, "function": key.function, "created": created}


@keys_group.command("renew", short_help="Make a key, in the place of the one of its name.")
@click.argument("kind", type=_KINDS)
@click.argument("name", required=False)
@_function
@hub_option
@output_option
@shared
def renew_command(kind: KeyKind, name: str | None, function: str | None, hub: str, output: str) -> int:
    """Make a key and print it. The one that had its name opens nothing any more, at once.

    KIND is master (everything), host (all HTTP functions), function (one of them), or system (the management API).
    """
    import sys

    key = _file(hub).renew(kind, _named(kind, name), function)
    if output == "json":
        row = {"kind": kind, "name": _named(kind, name), "function": function, "key": key}
        print_json(row, sys.stdout, pretty=False, color=None)
    else:
        click.echo(key)
    return Exit.OK


@keys_group.command("delete", short_help="Delete a key.")
@click.argument("kind", type=_KINDS)
@click.argument("name", required=False)
@_function
@hub_option
@shared
def delete_command(kind: KeyKind, name: str | None, function: str | None, hub: str) -> int:
    """Delete a key; it opens nothing any more, at once."""
    _file(hub).delete(kind, _named(kind, name), function)
    say(f"Deleted the {kind} key '{_named(kind, name)}'")
    return Exit.OK


@keys_group.command("renew-links", short_help="Void all links that have been handed out.")
@hub_option
@shared
def renew_links_command(hub: str) -> int:
    """Sign links with a new secret: all that have been handed out are void, at once."""
    _file(hub).renew_signing()
    say("All links that were handed out are void")
    return Exit.OK
