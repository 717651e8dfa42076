"""What tests lean on, for users and for authors of providers.

`DurableEnvironment` is a whole hub on virtual time, `MockOrchestrationContext` runs one orchestrator without a hub,
`History` and `replay` check new code against old histories. Names are resolved at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably.testing.clock import VirtualClock
    from durably.testing.environment import DurableEnvironment
    from durably.testing.faults import Fault
    from durably.testing.history import History, replay
    from durably.testing.mock_activity import MockActivityContext
    from durably.testing.mock_entity import EntityMock, RecordedOperation
    from durably.testing.mock_http import HttpMock, MockedRequest
    from durably.testing.mock_orchestration import MockOrchestrationContext
    from durably.testing.pace import StuckError
    from durably.testing.stubs import RecordedCall, Stub

_ROOMS = {
    "DurableEnvironment": "environment",
    "EntityMock": "mock_entity",
    "Fault": "faults",
    "History": "history",
    "HttpMock": "mock_http",
    "MockActivityContext": "mock_activity",
    "MockOrchestrationContext": "mock_orchestration",
    "MockedRequest": "mock_http",
    "RecordedCall": "stubs",
    "RecordedOperation": "mock_entity",
    "Stub": "stubs",
    "StuckError": "pace",
    "VirtualClock": "clock",
    "replay": "history",
}

__all__ = [
    "DurableEnvironment",
    "EntityMock",
    "Fault",
    "History",
    "HttpMock",
    "MockActivityContext",
    "MockOrchestrationContext",
    "MockedRequest",
    "RecordedCall",
    "RecordedOperation",
    "Stub",
    "StuckError",
    "VirtualClock",
    "replay",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'durably.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"durably.testing.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
