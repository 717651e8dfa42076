"""The hub as a process without a host holds it: opened when it is first needed, never created by looking."""

from __future__ import annotations

import asyncio

from durably.client.endings import Endings
from durably.codec.keys import EncryptionKeys
from durably.errors import HubNotFoundError, UsageError
from durably.storage.api import Store
from durably.storage.open import store_of


class Connection:
    """A store that opens itself.

    Attributes:
        endings: What this process waits for.
        heard: What hosts tell of.
    """

    def __init__(self, hub: str | Store, keys: EncryptionKeys | None = None) -> None:
        """Name the hub; nothing is touched yet.

        Args:
            hub: Its URL, or a store that is not open.
            keys: That it is encrypted with.

        Raises:
            UsageError: The URL names no hub that another process could serve.
        """
        if isinstance(hub, str) and hub.lower().startswith("memory:"):
            raise UsageError(
                "A hub in memory ends with its host and is reached through host.client alone; "
                "expected a hub that others can open, such as sqlite:///hub.db or postgresql://host/database?hub=name"
            )
        self._store = store_of(hub, keys)
        self._opening = asyncio.Lock()
        self._is_open = False
        self.endings = Endings(self._store)
        self.heard = self.endings.heard

    async def store(self, *, create: bool = False) -> Store:
        """The store, opened.

        Raises:
            HubNotFoundError: The hub does not exist, and `create` is False.
        """
        if not self._is_open:
            async with self._opening:
                if not self._is_open:
                    await self._store.open(create=create)
                    self._is_open = True
        return self._store

    async def try_open(self) -> None:
        """Open the hub if there is one; the first start may create it later."""
        try:
            await self.store()
        except HubNotFoundError:
            return

    async def close(self) -> None:
        """Let go. Idempotent; afterwards every call raises `HubClosedError`."""
        self.endings.close()
        await self._store.close()
