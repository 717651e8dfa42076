"""From ``--hub`` to a client: of the hub itself, or of a host that serves it over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from durably.cli.settings import Settings, is_http, settings_of

if TYPE_CHECKING:
    from durably.client import Client


def client_of(hub: str) -> Client:
    """A client, to be used with ``async with``. The key for a host is that of the command line.

    Raises:
        UsageError: The URL is none, or what it needs is not installed.
    """
    if not is_http(hub):
        from durably.client import Client

        return Client(hub)
    from durably.errors import UsageError

    try:
        from durably.client.remote.client import HttpClient
    except ImportError as error:
        raise UsageError(
            f"Asking over HTTP needs the extra 'http' ({error}): pip install 'durably[http]'"
        ) from None
    context = click.get_current_context(silent=True)
    settings = Settings() if context is None else settings_of(context)
    return HttpClient(hub, key=settings.key, token=settings.token, ca=settings.ca)
