"""The hosts of a hub, as operators see them."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A live host.

    Attributes:
        host_id: `Client.drain_host` takes it. A host that is started again is another one.
        name: Its process and machine, for people.
        version: Of durably; "" when it did not say.
        since: When it came (aware, UTC), by the clock of the hub.
        seen_at: When it last said that it is there.
        partitions: How many of the partitions of the hub it owns.
        draining: It gives its partitions away, and takes none; or it was asked to, and will.
        backlog: How many of its activities wait for a place.
        oldest_wait: How long the oldest of them has waited; None when none does.
        functions: What it has, as ``"activity:charge"``; the first thousand.
    """

    host_id: str
    name: str
    version: str
    since: datetime
    seen_at: datetime
    partitions: int
    draining: bool
    backlog: int = 0
    oldest_wait: timedelta | None = None
    functions: tuple[str, ...] = ()
