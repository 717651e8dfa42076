"""What a commit lets others know that wait for it, so that they need not look again and again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from durably.core.commit import Batch
from durably.core.status import TERMINAL


class News(NamedTuple):
    """What is true now, or worth a look. News may be lost, may come twice, and may be about what nobody waits for.

    Attributes:
        accepted: Ids of messages that were accepted, with nothing to say about them: their verdict is empty.
        answered: Ids of messages that have another verdict.
        ended: Ids of instances that have ended, or are gone.
    """

    accepted: frozenset[str]
    answered: frozenset[str]
    ended: frozenset[str]


def news_of(batches: Iterable[Batch]) -> News:
    """What these batches, which are committed, let others know."""
    accepted: list[str] = []
    answered: list[str] = []
    ended: list[str] = []
    for batch in batches:
        for tombstone in batch.tombstones:
            (answered if tombstone.verdict else accepted).append(tombstone.message_id)
        ended += [row.instance_id for row in batch.instances if row.status in TERMINAL]
        ended += [change.instance_id for change in batch.changes if change.status in TERMINAL]
        ended += [removal.instance_id for removal in batch.removed]
    return News(frozenset(accepted), frozenset(answered), frozenset(ended))
