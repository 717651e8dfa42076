"""A client for one command."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from durably.client import Client
    from durably.core.status import InstanceStatus

T = TypeVar("T")


def with_client(hub: str, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Run to completion with a client of the hub. Ctrl-C cancels the work, which may say how far it got."""
    import asyncio

    from durably.cli.connecting import client_of

    async def run() -> T:
        async with client_of(hub) as client:
            return await work(client)

    return asyncio.run(run())


async def status_of(client: Client, instance_id: str) -> InstanceStatus:
    """The status of an instance.

    Raises:
        InstanceNotFoundError: There is none.
    """
    from durably.errors import InstanceNotFoundError

    status = await client.get_status(instance_id)
    if status is None:
        raise InstanceNotFoundError(instance_id)
    return status
