"""How the clients of a simulated world reach it, whether it has one host or many."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol

from durably.client import Client
from durably.storage.api import Store


class Door(NamedTuple):
    """A process that clients call: what they may say to it, and the hub as it sees it."""

    client: Client
    store: Store


class Doors(Protocol):
    """All of them."""

    @property
    def door(self) -> Door | None:
        """One to call now, or None while there is none."""
        ...

    def begin(self, call: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Begin a call through the door that was asked for last."""
        ...

    async def boot_if_down(self) -> None:
        """See to it that somebody serves the hub."""
        ...
