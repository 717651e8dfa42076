"""What the shell offers while somebody types: ids and names from the hub. Fast, and silent about whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from durably.client import Client

T = TypeVar("T")

_OFFERED_MAX = 100
_NAMES_FROM = 1_000
"""Names are looked for among so many instances."""

_PATIENCE_S = 1.0
"""Nobody waits longer for what a shell offers."""

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def complete_ids(*statuses: str) -> Complete:
    """Offer the ids of instances in one of these statuses; in any without some."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        async def look(client: Client) -> list[CompletionItem]:
            page = await client.query_instances(
                runtime_status=statuses or None,
                instance_id_prefix=incomplete,
                page_size=_OFFERED_MAX,
                fetch_payloads=False,
            )
            # zsh takes what follows a colon for the description, so there is none for such an id.
            return [
                CompletionItem(
                    one.instance_id,
                    help=None if ":" in one.instance_id else f"{one.name} {one.runtime_status.value}",
                )
                for one in page.instances
                if one.instance_id not in (context.params.get("ids") or ())
            ]

        return _asked(context, look, [])

    return complete


def complete_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the names of orchestrators that the hub has instances of."""
    from click.shell_completion import CompletionItem

    async def look(client: Client) -> list[CompletionItem]:
        page = await client.query_instances(page_size=_NAMES_FROM, fetch_payloads=False)
        names = sorted({one.name for one in page.instances})
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return _asked(context, look, [])


def complete_schedules(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the ids of schedules."""
    from click.shell_completion import CompletionItem

    async def look(client: Client) -> list[CompletionItem]:
        page = await client.schedules.list(prefix=incomplete, page_size=_OFFERED_MAX)
        taken = context.params.get("ids") or ()
        return [CompletionItem(one.schedule_id) for one in page.schedules if one.schedule_id not in taken]

    return _asked(context, look, [])


def complete_entities(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the ids of entities."""
    from click.shell_completion import CompletionItem

    async def look(client: Client) -> list[CompletionItem]:
        _, name, key = f"{incomplete}@@".split("@")[:3]
        whole = incomplete.count("@") > 1  # else the name is not complete
        page = await client.query_entities(
            name=name if whole else None,
            key_prefix=key if whole else "",
            include_state=False,
            include_transient=True,
            page_size=_OFFERED_MAX if whole else _NAMES_FROM,
        )
        ids = [str(one.entity_id) for one in page.entities]
        return [CompletionItem(one) for one in ids if one.startswith(incomplete)][:_OFFERED_MAX]

    return _asked(context, look, [])


def _asked(context: click.Context, look: Callable[[Client], Coroutine[Any, Any, T]], otherwise: T) -> T:
    try:
        import asyncio

        from durably.cli.connecting import client_of
        from durably.cli.settings import DEFAULT_HUB

        async def ask() -> T:
            async with (
                asyncio.timeout(_PATIENCE_S),
                client_of(context.params.get("hub") or DEFAULT_HUB) as client,
            ):
                return await look(client)

        return asyncio.run(ask())
    except Exception:  # noqa: BLE001 - whatever it is, a message in the middle of a command line helps nobody
        return otherwise
