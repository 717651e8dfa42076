"""The provider contract as tests: what passes here is a store.

A provider is done when this passes, in a test file of a few lines::

    class TestMyStore(StoreConformance):
        async def make(self) -> Store: ...
        async def reopen(self, store: Store) -> Store: ...
        async def crash(self, store: Store) -> None: ...

See `StoreHooks` for what they do. For messages that show both sides of a failed assertion, call
`pytest.register_assert_rewrite("durably.testing")` in a conftest before the suite is imported.
"""

from __future__ import annotations

from durably.testing.commit_conformance import CommitConformance
from durably.testing.hub_conformance import HubConformance
from durably.testing.inbox_conformance import InboxConformance
from durably.testing.reads_conformance import ReadsConformance
from durably.testing.rows_conformance import RowsConformance

__all__ = ["StoreConformance"]


class StoreConformance(
    HubConformance, CommitConformance, RowsConformance, InboxConformance, ReadsConformance
):
    """Every sentence of `durably.storage.api`, by topic. Subclass it and define the three hooks."""
