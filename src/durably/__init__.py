"""Durable Functions in Python: long-running, stateful workflows as ordinary async functions.

The public names are resolved at first use (PEP 562), so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably.app import App, AppHost
    from durably.bindings.blobs.container import BlobContainer
    from durably.bindings.blobs.store import BlobEntry
    from durably.bindings.outputs import BlobOutput, Out, QueueOutput
    from durably.client import BulkResult, Client, EntityInfo, EntityPage, Handle, Schedules
    from durably.codec.convert import Converter, JsonConverter
    from durably.codec.keys import EncryptionKeys
    from durably.config.settings import Settings
    from durably.core.entities import EntityId
    from durably.core.hosts import HostStatus
    from durably.core.load import HubLoad
    from durably.core.parked import ParkedItem, ParkedPage
    from durably.core.status import InstancePage, InstanceStatus, RuntimeStatus
    from durably.core.timeline import HistoryEntry
    from durably.engine.options import EngineOptions
    from durably.errors import (
        AccessDeniedError,
        BlobNotFoundError,
        BrokerError,
        DurablyError,
        EncryptionKeyError,
        EntityCorruptError,
        EntityOperationFailedError,
        FailureDetails,
        FunctionTimeoutError,
        HistoryCorruptError,
        HostNotFoundError,
        HttpRefusedError,
        HttpRequestError,
        HttpStatusError,
        HubClosedError,
        HubLockedError,
        HubNotFoundError,
        HubSilentError,
        HubVersionError,
        InstanceAlreadyExistsError,
        InstanceEvicted,
        InstanceNotFoundError,
        InstanceStateError,
        InvalidIdError,
        InvalidScheduleError,
        InvalidTextError,
        InvariantError,
        LeaseLostError,
        LockingRulesViolationError,
        NonDeterminismError,
        NonDeterministicCall,
        NonRetryableError,
        OperationError,
        OrchestrationFailedError,
        OrchestratorDeadlockError,
        PayloadError,
        ProcessDiedError,
        RegistrationError,
        ScheduleAlreadyExistsError,
        ScheduleNotFoundError,
        StoreFailedError,
        StoreRefusedError,
        StoreUnavailableError,
        TaskFailedError,
        TaskTimeoutError,
        UnknownFunctionError,
        UsageError,
        VersionMismatchError,
    )
    from durably.executors.http.policy import HttpPolicy
    from durably.http_api.client import DurableClient, client_of
    from durably.http_api.options import HttpOptions
    from durably.program.activity_context import ActivityContext
    from durably.program.context import OrchestrationContext
    from durably.program.entity_context import EntityContext
    from durably.program.http import DurableHttpResponse, TokenSource
    from durably.program.retry_policy import RetryPolicy
    from durably.schedules.description import ScheduleDescription, SchedulePage, ScheduleRun
    from durably.triggers.blob_function import Blob
    from durably.triggers.queue_function import QueueMessage
    from durably.triggers.timer_function import TimerRequest

_ROOMS = {
    "App": "durably.app",
    "Blob": "durably.triggers.blob_function",
    "BlobContainer": "durably.bindings.blobs.container",
    "BlobEntry": "durably.bindings.blobs.store",
    "AppHost": "durably.app",
    "BlobOutput": "durably.bindings.outputs",
    "Out": "durably.bindings.outputs",
    "QueueOutput": "durably.bindings.outputs",
    "BulkResult": "durably.client",
    "Client": "durably.client",
    "EntityInfo": "durably.client",
    "EntityPage": "durably.client",
    "Handle": "durably.client",
    "Schedules": "durably.client",
    "Converter": "durably.codec.convert",
    "JsonConverter": "durably.codec.convert",
    "EncryptionKeys": "durably.codec.keys",
    "EntityId": "durably.core.entities",
    "ParkedItem": "durably.core.parked",
    "ParkedPage": "durably.core.parked",
    "InstancePage": "durably.core.status",
    "InstanceStatus": "durably.core.status",
    "RuntimeStatus": "durably.core.status",
    "HistoryEntry": "durably.core.timeline",
    "EngineOptions": "durably.engine.options",
    "HttpPolicy": "durably.executors.http.policy",
    "DurableClient": "durably.http_api.client",
    "client_of": "durably.http_api.client",
    "HostNotFoundError": "durably.errors",
    "HostStatus": "durably.core.hosts",
    "HubLoad": "durably.core.load",
    "HttpOptions": "durably.http_api.options",
    "Settings": "durably.config.settings",
    "ActivityContext": "durably.program.activity_context",
    "OrchestrationContext": "durably.program.context",
    "DurableHttpResponse": "durably.program.http",
    "TokenSource": "durably.program.http",
    "EntityContext": "durably.program.entity_context",
    "RetryPolicy": "durably.program.retry_policy",
    "QueueMessage": "durably.triggers.queue_function",
    "TimerRequest": "durably.triggers.timer_function",
    "ScheduleDescription": "durably.schedules.description",
    "SchedulePage": "durably.schedules.description",
    "ScheduleRun": "durably.schedules.description",
}

__all__ = [
    "AccessDeniedError",
    "ActivityContext",
    "App",
    "AppHost",
    "Blob",
    "BlobContainer",
    "BlobEntry",
    "BlobNotFoundError",
    "BlobOutput",
    "BrokerError",
    "BulkResult",
    "Client",
    "Converter",
    "DurableClient",
    "DurableHttpResponse",
    "DurablyError",
    "EncryptionKeyError",
    "EncryptionKeys",
    "EngineOptions",
    "EntityContext",
    "EntityCorruptError",
    "EntityId",
    "EntityInfo",
    "EntityOperationFailedError",
    "EntityPage",
    "FailureDetails",
    "FunctionTimeoutError",
    "Handle",
    "HistoryCorruptError",
    "HistoryEntry",
    "HostNotFoundError",
    "HostStatus",
    "HttpOptions",
    "HttpPolicy",
    "HttpRefusedError",
    "HttpRequestError",
    "HttpStatusError",
    "HubClosedError",
    "HubLoad",
    "HubLockedError",
    "HubNotFoundError",
    "HubSilentError",
    "HubVersionError",
    "InstanceAlreadyExistsError",
    "InstanceEvicted",
    "InstanceNotFoundError",
    "InstancePage",
    "InstanceStateError",
    "InstanceStatus",
    "InvalidIdError",
    "InvalidScheduleError",
    "InvalidTextError",
    "InvariantError",
    "JsonConverter",
    "LeaseLostError",
    "LockingRulesViolationError",
    "NonDeterminismError",
    "NonDeterministicCall",
    "NonRetryableError",
    "OperationError",
    "OrchestrationContext",
    "OrchestrationFailedError",
    "OrchestratorDeadlockError",
    "Out",
    "ParkedItem",
    "ParkedPage",
    "PayloadError",
    "ProcessDiedError",
    "QueueMessage",
    "QueueOutput",
    "RegistrationError",
    "RetryPolicy",
    "RuntimeStatus",
    "ScheduleAlreadyExistsError",
    "ScheduleDescription",
    "ScheduleNotFoundError",
    "SchedulePage",
    "ScheduleRun",
    "Schedules",
    "Settings",
    "StoreFailedError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "TaskFailedError",
    "TaskTimeoutError",
    "TimerRequest",
    "TokenSource",
    "UnknownFunctionError",
    "UsageError",
    "VersionMismatchError",
    "client_of",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'durably' has no attribute {name!r}")
    value = getattr(importlib.import_module(_ROOMS.get(name, "durably.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
