"""The provider contract as tests: what passes here is a store.

A provider is done when this passes, in a test file of a few lines::

    class TestMyStore(StoreConformance):
        async def make(self) -> Store: ...
        async def reopen(self, store: Store) -> Store: ...
        async def crash(self, store: Store) -> None: ...

See `StoreHooks` for what they do.
"""

from __future__ import annotations

import pytest

_TOPICS = ("hub", "commit", "rows", "inbox", "reads", "parking", "payload", "entities")

# Before they are imported: failed assertions show both sides then.
pytest.register_assert_rewrite(*(f"durably.testing.{topic}_conformance" for topic in _TOPICS))

from durably.testing.commit_conformance import CommitConformance  # noqa: E402
from durably.testing.entities_conformance import EntitiesConformance  # noqa: E402
from durably.testing.hub_conformance import HubConformance  # noqa: E402
from durably.testing.inbox_conformance import InboxConformance  # noqa: E402
from durably.testing.parking_conformance import ParkingConformance  # noqa: E402
from durably.testing.payload_conformance import PayloadConformance  # noqa: E402
from durably.testing.reads_conformance import ReadsConformance  # noqa: E402
from durably.testing.rows_conformance import RowsConformance  # noqa: E402

__all__ = ["StoreConformance"]


class StoreConformance(
    HubConformance,
    CommitConformance,
    RowsConformance,
    InboxConformance,
    ReadsConformance,
    ParkingConformance,
    PayloadConformance,
    EntitiesConformance,
):
    """Every sentence of `durably.storage.api`, by topic. Subclass it and define the three hooks."""
