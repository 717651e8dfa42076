"""``durably keys``: the keys that open the HTTP face of a host."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from durably.cli.output import Exit, print_json, say
from durably.cli.recording import recorded
from durably.cli.settings import Commands, hub_option, output_option, settings_here, shared

if TYPE_CHECKING:
    from durably.security.access_keys import AccessKey, KeyKind
    from durably.security.key_file import KeyFile

_KINDS = ("master", "host", "function", "system")
"""As `durably.security.access_keys.AZURE_KINDS`, which help does not load; a test compares them. So are the roles."""

_ROLES = ("viewer", "reader", "operator", "developer", "admin")

_which = click.argument("which", metavar="NAME|KIND")
_within = click.argument("name", metavar="[NAME]", required=False)

_function = click.option(
    "--function", metavar="NAME", show_envvar=True, help="The function that a function key opens."
)

_EXAMPLES = """\b
Examples:
  durably keys create ann --role operator    a key with a role, for the APIs and the functions
  durably keys renew ann                     another secret for it
  durably keys renew master                  a key for everything
  durably keys renew system                  the key of the management API
  durably keys renew function ci --function orders
"""


@click.group("keys", cls=Commands, short_help="Keys that open a host over HTTP.", epilog=_EXAMPLES)
@shared
def keys_group() -> None:
    """Create, list, renew and delete the keys of a host.

    They are kept beside the hub file (DURABLY_HTTP_KEY_FILE says otherwise), as digests: a key is shown when it is made, and
    never again. A running host follows at once. What is changed here is in the audit log of the host, with your name.

    Until there is a key, a host asks nobody on its machine for one, and serves nobody else.
    """


def _file(hub: str) -> KeyFile:
    from pathlib import Path

    from durably.clock import SystemClock
    from durably.errors import UsageError
    from durably.security.key_file import KeyFile, beside

    given = settings_here().get("DURABLY_HTTP_KEY_FILE")
    path = Path(given) if given else beside(hub)
    if path is None:
        from durably.storage.open import shown_url

        raise UsageError(
            f"The keys of {shown_url(hub)} live and end with its host: expected the URL of a file, or DURABLY_HTTP_KEY_FILE"
        )
    return KeyFile(path, SystemClock().now)


# --- which key is meant ----------------------------------------------------------------------------------------------


def _meant(which: str, name: str | None, function: str | None) -> tuple[KeyKind, str]:
    """One of a kind, which has a name of its own or the usual one; or a key with a role, by its name alone."""
    from durably.security.access_keys import AZURE_KINDS, DEFAULT, MANAGEMENT

    for kind in AZURE_KINDS:
        if which == kind:
            return kind, name or {"master": "_master", "system": MANAGEMENT}.get(kind, DEFAULT)
    if name is not None or function is not None:
        raise click.UsageError(
            f"'{which}' is no kind of keys: expected one of {', '.join(_KINDS)}, or the name of a key with a role, and nothing "
            "behind it"
        )
    return "role", which


def _target(kind: KeyKind, name: str, function: str | None = None) -> dict[str, str]:
    return {"kind": kind, "name": name, **({"function": function} if function else {})}


# --- commands --------------------------------------------------------------------------------------------------------


@keys_group.command("create", short_help="Make a key with a role.")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(_ROLES),
    required=True,
    show_envvar=True,
    help="What it opens; each role may do what the one before may.",
)
@hub_option
@output_option
@shared
def create_command(name: str, role: str, hub: str, output: str) -> int:
    """Make a key called NAME, and print it; it is never shown again. It is sent as x-functions-key, or as code in a query.

    viewer: states. reader: inputs, outputs and histories, too. operator: events, suspend, terminate, rewind. developer:
    starts, and HTTP functions of level function. admin: everything.
    """
    keys = _file(hub)
    first = not keys.ring.asks
    row: dict[str, str | None] = {"kind": "role", "name": name, "function": None, "role": role}
    with _showing(row, output), recorded(hub, "keys create", {**_target("role", name), "role": role}):
        row["key"] = keys.create(name, role)
    say("This key is not shown again. Send it as x-functions-key or code; durably takes it in DURABLY_KEY")
    _say_that_it_closes(first=first)
    return Exit.OK


@keys_group.command("list", short_help="Show which keys there are.")
@hub_option
@output_option
@shared
def list_command(hub: str, output: str) -> int:
    """Show which keys there are, without the keys themselves."""
    import sys

    ring = _file(hub).ring
    if output == "json":
        print_json([_plain(key) for key in ring.keys], sys.stdout, pretty=False, color=None)
        return Exit.OK
    if not ring.keys:
        then = "nobody gets in" if ring.asks else "hosts ask nobody on their machine"
        say(f"There are no keys: until 'durably keys create NAME --role ROLE' makes one, {then}")
    for key in ring.keys:
        row = _plain(key)
        where = f"  function {row['function']}" if row["function"] else f"  as {key.role}" if key.role else ""
        click.echo(f"{row['kind']:9} {row['name']:24} {row['created']}{where}")
    return Exit.OK


def _plain(key: AccessKey) -> dict[str, str | None]:
    from durably.core.timeline import instant

    created = instant(key.created_at).strftime("%Y-%m-%d %H:%M:%S")
    return {
        "kind": key.kind,
        "name": key.name,
        "function": key.function,
        "role": key.role,
        "created": created,
    }


@keys_group.command("renew", short_help="Make a key, in the place of the one of its name.")
@_which
@_within
@_function
@hub_option
@output_option
@shared
def renew_command(which: str, name: str | None, function: str | None, hub: str, output: str) -> int:
    """Make a key and print it. The one that had its name opens nothing any more, at once.

    NAME is a key with a role, which it keeps. KIND is master (everything), host (all HTTP functions), function (one of
    them), or system (the management API); such a key is made when it is not there.
    """
    kind, name = _meant(which, name, function)
    keys = _file(hub)
    first = not keys.ring.asks
    row: dict[str, str | None] = {"kind": kind, "name": name, "function": function}
    with _showing(row, output), recorded(hub, "keys renew", _target(kind, name, function)):
        row["key"] = keys.renew(kind, name, function)
    _say_that_it_closes(first=first)
    return Exit.OK


@contextmanager
def _showing(row: dict[str, str | None], output: str) -> Generator[None]:
    """Show the key that is made inside: also when its record fails, since it is there, and told by nobody else."""
    try:
        yield
    finally:
        if "key" in row:
            _show(row, output)


def _show(row: dict[str, str | None], output: str) -> None:
    import sys

    if output == "json":
        print_json(row, sys.stdout, pretty=False, color=None)
    else:
        click.echo(row["key"])


def _say_that_it_closes(*, first: bool) -> None:
    if first:
        say("Hosts of this hub ask for a key from now on")


@keys_group.command("delete", short_help="Delete a key.")
@_which
@_within
@_function
@hub_option
@shared
def delete_command(which: str, name: str | None, function: str | None, hub: str) -> int:
    """Delete a key; it opens nothing any more, at once.

    NAME is a key with a role; KIND is master, host, function or system. When the last one is gone, nobody gets in.
    """
    kind, name = _meant(which, name, function)
    keys = _file(hub)
    with recorded(hub, "keys delete", _target(kind, name, function)):
        keys.delete(kind, name, function)
    say(f"Deleted the key '{name}'" if kind == "role" else f"Deleted the {kind} key '{name}'")
    return Exit.OK


@keys_group.command("renew-links", short_help="Void all links that have been handed out.")
@hub_option
@shared
def renew_links_command(hub: str) -> int:
    """Sign links with a new secret: all that have been handed out are void, at once."""
    keys = _file(hub)
    with recorded(hub, "keys renew-links", {}):
        keys.renew_signing()
    say("All links that were handed out are void")
    return Exit.OK
