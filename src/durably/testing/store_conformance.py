"""The provider contract as tests: what passes here is a store.

A provider is done when this passes, in a test file of a few lines::

    class TestMyStore(StoreConformance):
        async def make(self) -> Store: ...
        async def reopen(self, store: Store) -> Store: ...
        async def crash(self, store: Store) -> None: ...
        async def expire(self, store: Store) -> None: ...  # where hubs are shared

A store whose hubs have several partitions, or are shared by hosts, takes these classes in as well::

    class TestMyStore(StoreConformance, PartitionConformance, TasksConformance):
        async def make_of(self, partitions: int) -> Store: ...

See `StoreHooks` for what they do.
"""

from __future__ import annotations

import pytest

_TOPICS = (
    "hub",
    "commit",
    "rows",
    "inbox",
    "reads",
    "parking",
    "payload",
    "entities",
    "workload",
    "lease",
    "partition",
    "tasks",
    "moving",
)

# Before they are imported: failed assertions show both sides then.
pytest.register_assert_rewrite(*(f"durably.testing.{topic}_conformance" for topic in _TOPICS))

from durably.testing.commit_conformance import CommitConformance  # noqa: E402
from durably.testing.entities_conformance import EntitiesConformance  # noqa: E402
from durably.testing.hub_conformance import HubConformance  # noqa: E402
from durably.testing.inbox_conformance import InboxConformance  # noqa: E402
from durably.testing.lease_conformance import LeaseConformance  # noqa: E402
from durably.testing.moving_conformance import MovingConformance  # noqa: E402
from durably.testing.parking_conformance import ParkingConformance  # noqa: E402
from durably.testing.partition_conformance import PartitionConformance  # noqa: E402
from durably.testing.payload_conformance import PayloadConformance  # noqa: E402
from durably.testing.reads_conformance import ReadsConformance  # noqa: E402
from durably.testing.rows_conformance import RowsConformance  # noqa: E402
from durably.testing.tasks_conformance import TasksConformance  # noqa: E402
from durably.testing.workload_conformance import WorkloadConformance  # noqa: E402

__all__ = ["PartitionConformance", "StoreConformance", "TasksConformance"]


class StoreConformance(
    HubConformance,
    CommitConformance,
    RowsConformance,
    InboxConformance,
    ReadsConformance,
    ParkingConformance,
    PayloadConformance,
    EntitiesConformance,
    LeaseConformance,
    MovingConformance,
    WorkloadConformance,
):
    """Every sentence of `durably.storage.api` about a hub of one partition, by topic. Subclass it and define the hooks."""
