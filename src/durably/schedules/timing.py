"""The occurrences of a schedule: the next one, the latest one, how many."""

from __future__ import annotations

import hashlib
from datetime import UTC

from durably.core.timeline import instant
from durably.schedules.cron import parse_cron
from durably.schedules.spec import SECOND_US, Spec
from durably.schedules.zones import next_match, zone_of

COUNT_MAX = 1_000
"""Occurrences that nobody runs are counted up to here."""


class Timing:
    """When the occurrences of a spec are. All instants in microseconds since 1970 UTC.

    Args:
        spec: Of the schedule.
        anchor: Where an interval is counted from, unless the spec says where it starts.
        bounded: False: start and end of the spec do not matter, as they do not for a backfill.
    """

    def __init__(self, spec: Spec, anchor: int, *, bounded: bool = True) -> None:
        self._anchor = anchor if spec.start_at is None else spec.start_at
        self._interval = spec.interval
        self._cron = None if spec.cron is None else parse_cron(spec.cron)
        self._zone = zone_of(spec.time_zone)
        self._start = spec.start_at if bounded else None
        self._end = spec.end_at if bounded else None

    def after(self, moment: int) -> int | None:
        """The first occurrence behind an instant, or None."""
        if self._start is not None and moment < self._start:
            moment = self._start - 1
        if self._interval is not None:
            found: int | None = moment - (moment - self._anchor) % self._interval + self._interval
        elif self._cron is not None:
            found = next_match(self._cron, self._zone, moment)
        else:
            found = None
        return None if found is None or (self._end is not None and found > self._end) else found

    def latest(self, after: int, until: int) -> int | None:
        """The last occurrence in (after, until], or None. Found by halving, however many there are."""
        found = self.after(after)
        if found is None or found > until:
            return None
        low, high = found, until
        while high - low > SECOND_US:
            middle = (low + high) // 2
            later = self.after(middle)
            if later is None or later > until:
                high = middle
            else:
                found = low = later
        return self._last_of(found, until)

    def _last_of(self, found: int, until: int) -> int:
        later = self.after(found)
        while later is not None and later <= until:
            found, later = later, self.after(later)
        return found

    def count(self, after: int, until: int) -> int:
        """How many occurrences are in (after, until]; `COUNT_MAX` for more."""
        found = 0
        moment = self.after(after)
        while moment is not None and moment <= until and found < COUNT_MAX:
            found += 1
            moment = self.after(moment)
        return found


def jitter_of(spec: Spec, schedule_id: str, occurrence: int) -> int:
    """By how much an occurrence comes later: as good as random, and always the same for the same one."""
    if not spec.jitter:
        return 0
    digest = hashlib.blake2b(f"{schedule_id}\n{occurrence}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % (spec.jitter + 1)


def iso(moment: int) -> str:
    """An instant as text in ids and tags: ``2026-11-21T08:00:00Z``, with microseconds where there are some."""
    text = instant(moment).astimezone(UTC).isoformat().removesuffix("+00:00")
    return f"{text}Z"
