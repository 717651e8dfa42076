"""The typed face of the management protocol, for applications: in the process of a host, or in another one."""

from durably.client.bulk import BulkResult
from durably.client.client import Client, OnExisting
from durably.client.entities import CleanResult, EntityInfo, EntityPage
from durably.client.handle import Handle
from durably.client.schedules import Schedules
from durably.client.selection import Filters

__all__ = [
    "BulkResult",
    "CleanResult",
    "Client",
    "EntityInfo",
    "EntityPage",
    "Filters",
    "Handle",
    "OnExisting",
    "Schedules",
]
