"""The blob functions of a host: what is built into it for them, and who looks at their containers."""

from __future__ import annotations

import asyncio

from durably.bindings.outlets import Outlets
from durably.client import Client
from durably.core.blobs import RECEIPT
from durably.management import Management
from durably.program.entities import BuiltInEntity
from durably.triggers.blob_activity import BlobActivity
from durably.triggers.blob_function import BlobFunction, BlobFunctions
from durably.triggers.blob_orchestrator import HANDLING
from durably.triggers.blob_receipts import ReceiptCode
from durably.triggers.blob_watch import BlobWatch
from durably.triggers.forgetting import Forgetting

RECEIPTS = BuiltInEntity(RECEIPT, ReceiptCode)


class BlobTriggers:
    """The blob functions of a host. One without any has no tasks for them.

    Attributes:
        builtins: What the executor of the host has to have, whatever the app.

    Args:
        functions: Of the app, as this host calls them.
        time_limit_s: See `EngineOptions.function_timeout_s`.
    """

    def __init__(self, functions: BlobFunctions, time_limit_s: float) -> None:
        self._functions = functions
        self._handing = {function.name: BlobActivity(function, time_limit_s) for function in functions}
        self.builtins = (HANDLING, RECEIPTS, *(one.registered() for one in self._handing.values()))
        self._watches: list[BlobWatch] = []
        self._watching: list[asyncio.Task[None]] = []

    def connect(
        self,
        client: Client,
        management: Management,
        outlets: Outlets,
        forgetting: Forgetting,
    ) -> None:
        """Say which hub and which stores it is, before anything runs.

        Raises:
            RegistrationError: The connection of a function is no store.
        """
        containers: dict[tuple[str | None, str], list[BlobFunction]] = {}
        for function in self._functions:
            store = outlets.blobs.store(function.connection)
            self._handing[function.name].connect(client, store, outlets, forgetting)
            containers.setdefault((function.connection, function.pattern.container), []).append(function)
        self._watches = [
            BlobWatch(container, outlets.blobs.store(connection), some, management)
            for (connection, container), some in containers.items()
        ]

    def start(self) -> None:
        """Begin to look."""
        self._watching = [asyncio.create_task(watch.run(), name="durably-blobs") for watch in self._watches]

    async def stop(self) -> None:
        """Leave off. Idempotent."""
        watching, self._watching = self._watching, []
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
