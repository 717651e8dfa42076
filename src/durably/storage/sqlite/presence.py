"""Who serves a hub in a file: one host at most, which its lock file names to everybody."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime
from pathlib import Path

from durably.clock import SystemClock
from durably.storage.api import FUNCTIONS_MAX, HostInfo, HostReport, PartitionInfo, Survey
from durably.storage.sqlite.lock import Holder, holder_of
from durably.storage.sqlite.reader import Reader


class Presence:
    """What a store object says of its host, and what it sees of another one.

    Args:
        lock: Path of the lock file.

    Attributes:
        host_id: Of this object.
    """

    def __init__(self, lock: Path) -> None:
        self.host_id = os.urandom(8).hex()
        self._lock = lock
        self._report: HostReport | None = None
        self._since = self._seen_at = 0
        self._told_to_drain = False

    def say(self, report: HostReport) -> bool:
        """This host is there; True when it was not before."""
        is_new = self._report is None
        self._seen_at = SystemClock().now()
        if is_new:
            self._since = self._seen_at
        self._report = report._replace(functions=report.functions[:FUNCTIONS_MAX])
        return is_new

    def go(self) -> bool:
        """It is not there any more; False when it was not before."""
        was, self._report = self._report is not None, None
        self._told_to_drain = False
        return was

    def drain(self, host_id: str) -> bool:
        """Ask it to drain. A host of another process has nobody to give its partition to, and is not asked."""
        if host_id != self.host_id or self._report is None:
            return False
        self._told_to_drain = True
        return True

    def look(self, reader: Reader) -> Survey:
        """See `Store.survey`. The kernel knows who is alive."""
        epoch, held = reader.lease()
        holder = holder_of(self._lock)
        owner, host_id = "", None
        hosts: list[HostInfo] = []
        if holder is not None:
            owner, host_id = holder.owner or holder.text, holder.host_id or "unknown"
            if host_id != self.host_id:
                hosts.append(_seen(holder, host_id))
        if self._report is not None:
            count = int(host_id == self.host_id)
            hosts.append(
                HostInfo(
                    self.host_id,
                    self._report,
                    self._since,
                    self._seen_at,
                    count,
                    is_me=True,
                    told_to_drain=self._told_to_drain,
                )
            )
        partition = PartitionInfo(0, owner, host_id, epoch, orphaned=held and holder is None)
        return Survey([partition], sorted(hosts, key=lambda host: (host.since, host.host_id)))


def _seen(holder: Holder, host_id: str) -> HostInfo:
    """The host of another process: what its lock file says. It is alive, for it has the lock."""
    now = SystemClock().now()
    since = now
    with contextlib.suppress(ValueError, TypeError):
        since = int(datetime.fromisoformat(holder.since or "").timestamp() * 1_000_000)
    report = HostReport(holder.name or holder.text, holder.version)
    return HostInfo(host_id, report, since, now, 1, is_me=False, told_to_drain=False)
