"""How much there is to do in a hub, and how many hosts it takes: one rule, for people, KEDA and ``--processes MIN:MAX``."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil
from typing import Final, NamedTuple

import msgspec

COUNT_MAX: Final = 5_000
"""More is not counted: it would take longer, and is no other answer."""


class HubLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A hub at one moment. Numbers of messages, timers and instances end at 5,000.

    What waits for a person is not counted: messages and timers of instances that are suspended, blocked, parked, or not to
    begin yet.

    Attributes:
        at: The moment, by the clock of the hub.
        hosts: That are alive, and are not leaving.
        partitions: Of the hub.
        unowned: Of them, that no live host owns.
        messages: That nobody has dealt with: starts, events, orders, answers.
        timers_due: That are due, and have not fired.
        tasks: Activities in the queue of all hosts that nobody has claimed.
        activities: That wait for a place in a host.
        running: Activities that run.
        places: Activities that all hosts together may run at once.
        in_flight: Instances with an activity, a child or a call of an entity under way.
        oldest_wait: How long the oldest of what waits has done so; None: nothing does.
        held_at: When the newest message to an instance that is held came: it may be the order that lets it go on.
        next_timer: When the next timer is due.
    """

    at: datetime
    hosts: int
    partitions: int
    unowned: int
    messages: int = 0
    timers_due: int = 0
    tasks: int = 0
    activities: int = 0
    running: int = 0
    places: int = 0
    in_flight: int = 0
    oldest_wait: timedelta | None = None
    held_at: datetime | None = None
    next_timer: datetime | None = None

    @property
    def backlog(self) -> int:
        """What waits for a host, in all."""
        return self.messages + self.timers_due + self.tasks + self.activities

    @property
    def recommended_hosts(self) -> int:
        """How many hosts the hub should have, by the `Rule` that holds where nobody says another."""
        return recommended_hosts(self)


class Rule(NamedTuple):
    """How much one host takes upon itself.

    Attributes:
        messages: Messages and due timers that wait, for each host.
        places: Activities at once for each host, as long as none has said how many it may run.
        patience: What waits for longer calls for more hosts.
        wake: So long before a timer is due there is a host again. It covers the time that one takes to start.
    """

    messages: int = 500
    places: int = 1_000
    patience: timedelta = timedelta(seconds=10)
    wake: timedelta = timedelta(seconds=60)


RULE: Final = Rule()


def is_idle(load: HubLoad, rule: Rule = RULE) -> bool:
    """True when nothing needs a host: nothing waits or runs, no instance has work under way, and no timer is due soon."""
    soon = load.at + rule.wake
    if load.backlog or load.running or load.in_flight:
        return False
    if load.held_at is not None and load.held_at > load.at - rule.wake:
        return False
    return load.next_timer is None or load.next_timer > soon


def recommended_hosts(load: HubLoad, rule: Rule = RULE, *, least: int = 0, most: int | None = None) -> int:
    """How many hosts the hub should have.

    1. None, when it `is_idle`.
    2. Else one for each `Rule.messages` messages and due timers, and one for as many activities, running or waiting, as a
       host has places for; in all, rounded up.
    3. When the oldest has waited beyond `Rule.patience`, messages and timers count twice; and when activities wait, it is
       one host more than there are, but no more than there are activities.
    4. Never more than the hub has partitions: a host without any would have little to do.

    Args:
        load: What there is.
        rule: What a host takes.
        least: Not fewer.
        most: Not more.
    """
    wanted = 0 if is_idle(load, rule) else max(1, ceil(_by_amount(load, rule)))
    if _is_late(load, rule) and load.activities + load.tasks:
        wanted = max(wanted, min(load.hosts + 1, load.running + load.activities + load.tasks))
    wanted = min(wanted, load.partitions)
    return max(least, wanted if most is None else min(wanted, most))


def _by_amount(load: HubLoad, rule: Rule) -> float:
    places = load.places / load.hosts if load.hosts and load.places else rule.places
    activities = (load.running + load.activities + load.tasks) / places
    times = 2 if _is_late(load, rule) else 1
    return activities + times * (load.messages + load.timers_due) / rule.messages


def _is_late(load: HubLoad, rule: Rule) -> bool:
    return load.oldest_wait is not None and load.oldest_wait > rule.patience
