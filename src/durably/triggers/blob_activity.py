"""Hands a version of a blob to its function."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from durably.bindings.blobs.store import BlobStore
from durably.bindings.outlets import Outlets
from durably.client import Client
from durably.core.blobs import BlobItem, activity_of, blob_instance
from durably.errors import BlobNotFoundError, BrokerError, FailureDetails, HubClosedError
from durably.executors.time_limit import in_time
from durably.program.activity_context import ActivityContext
from durably.program.registry import ActivityFunction
from durably.triggers.blob_function import BlobFunction, UnreadableBlobError
from durably.triggers.blob_orchestrator import Handled
from durably.triggers.forgetting import Forgetting
from durably.triggers.giving_back import leave_to_the_next_host
from durably.triggers.message_client import MessageClient

_log = logging.getLogger("durably.blob")


class BlobActivity:
    """Hands blobs to one function.

    Args:
        function: The function.
        time_limit_s: See `EngineOptions.function_timeout_s`.
    """

    _client: Client
    _store: BlobStore
    _outlets: Outlets
    _forgetting: Forgetting

    def __init__(self, function: BlobFunction, time_limit_s: float) -> None:
        self._function = function
        self._time_limit_s = time_limit_s

    def connect(self, client: Client, store: BlobStore, outlets: Outlets, forgetting: Forgetting) -> None:
        """Say what the function talks to, where blobs are, and who deletes what was dealt with; before all else."""
        self._client = client
        self._store = store
        self._outlets = outlets
        self._forgetting = forgetting

    def registered(self) -> ActivityFunction:
        """The activity, as an executor takes it; the pool keeps to the limit of the function."""
        function = self._function
        return ActivityFunction(
            self.perform, activity_of(function.name), "coroutine", None, function.max_concurrent
        )

    async def perform(self, data: dict[str, Any], context: ActivityContext) -> dict[str, Any]:
        """Hand out one version once; never raises for what its function raised."""
        item = msgspec.convert(data["item"], BlobItem)
        # Each death of a process while the function had the blob is a try as well.
        handled = await self._hand_out(item, data["count"] + context.delivery - 1)
        if handled.outcome not in ("again", "later"):
            self._forgetting.note(blob_instance(item))
        await self._forgetting.forget_due()
        return msgspec.to_builtins(handled)

    async def _hand_out(self, item: BlobItem, count: int) -> Handled:
        function = self._function
        missing = await self._missing(item)
        if missing is not None:
            return missing
        if count > function.max_tries:
            return Handled("poison", failure="the process ended while the function had it")
        client = MessageClient.of_stem(self._client, item.id)
        try:
            call = function.call(item, count, client, self._store, self._outlets)
            await in_time(call, self._time_limit_s, f"Blob function '{function.name}'")
        except HubClosedError:
            await leave_to_the_next_host()
        except UnreadableBlobError as error:
            return Handled("later", failure=str(error))
        except Exception as error:  # noqa: BLE001 - user code
            if isinstance(error, BlobNotFoundError) and error.version == item.version:
                missing = await self._missing(item)
                if missing is not None:
                    return missing
            return self._failed(item, count, error)
        return Handled("done")

    async def _missing(self, item: BlobItem) -> Handled | None:
        """What comes of a version that is not there, or of which nobody knows; None for one that is."""
        try:
            entry = await self._store.head(item.container, item.name)
        except BrokerError as error:
            return Handled("later", failure=str(error))
        return None if entry is not None and entry.version == item.version else Handled("gone")

    def _failed(self, item: BlobItem, count: int, error: Exception) -> Handled:
        function = self._function
        _log.warning(
            "blob '%s/%s' failed in '%s', try %d of %d",
            item.container,
            item.name,
            function.name,
            count,
            function.max_tries,
            exc_info=error,
        )
        details = FailureDetails.of(error)
        failure = f"{details.type}: {details.message}"
        if count >= function.max_tries:
            return Handled("poison", failure=failure)
        return Handled("again", function.retry_delay_us / 1_000_000, failure)
