"""Every tunable of the engine, with its unit and why the default is what it is."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from durably.core.ids import check_text
from durably.core.notices import ENDS, EVENTS, Destination, NoticeRules, check_callback
from durably.errors import UsageError
from durably.security.keys import KeySource, keys_from_environment

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "unknown_functions": ("auto", "fail", "wait"),
    "version_match_strategy": ("none", "strict", "current_or_older"),
    "version_failure_strategy": ("reject", "fail"),
}
_TEXTS = ("code_version", "default_version", "webhook_url", "event_grid_endpoint", "notify_events")
_MAY_BE_ZERO = (
    "compress_above",
    "drain_timeout_s",
    "function_timeout_s",
    "keep_finished_s",
    "partitions",
    "queue_keep_s",
    "slow_turn_s",
    "stall_limit_s",
)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Limits and times of one host. Each has an environment variable: ``DURABLY_`` and its name in capitals.

    Attributes:
        max_concurrent_activities: Attempts that run at once on this host. Coroutines that wait cost little, so the
            default is high; a function that needs less says `max_concurrent`.
        share_above: Where hosts share a hub: so many attempts wait for a place on the host that has scheduled them, beyond
            those that run at once; others go to a queue that all hosts share. A shared one costs a row and two transactions,
            each together with many others. Of a function with a limit of its own, no more wait than may run.
        activity_threads: Threads for activities that are plain functions.
        activity_processes: Worker processes for activities with ``executor="process"``, started when first needed; by
            default as many as there are processors: more could not compute at once.
        max_open_activities: Client starts wait while more activities than this are open on this host (running or
            queued), so that a flood of starts cannot fill the memory.
        max_commands: Client calls that may be under way at once; more wait in their callers.
        max_resident_instances: Live coroutines kept in the memory of a host; the longest idle ones beyond that are evicted
            and replayed when something arrives. 2 to 10 KiB each. The partitions of the host share them in equal parts.
        max_resident_entities: Entities kept in memory with their live objects; the longest idle ones beyond that are read
            again when something arrives. 2 KiB each, and their state.
        entity_operations_per_batch: Operations of entities in one batch. More would keep the orchestrations of the partition
            waiting, since the code of entities runs on its loop.
        turns_per_batch: Turns of one instance in one batch. More would let a hot loop run far ahead of the disk.
        batch_bytes: A batch takes no more turns beyond this many bytes of payload; 1 MiB is a few milliseconds of disk.
        timer_horizon_s: Timers due later than this stay in the store until half of it has passed.
        inbox_poll_s: How often messages from other processes are looked for when the store cannot wake the host.
        commit_retry_s: First delay before a batch that the store could not take is sent again; doubles up to a minute.
        drain_timeout_s: How long a stopping host waits for running activities; what is left runs again elsewhere.
        slow_turn_s: A turn of orchestrator code that takes longer, or an activity that holds up the event loop for longer,
            is reported with its stack; 0 switches that off.
        invariant_strikes: An instance that breaks an invariant this often is parked.
        max_deliveries: A turn, an attempt of an activity, or an operation of an entity that was running each of so many
            times when the process died is parked. Fewer would park what was only unlucky; each one costs a death.
        stall_limit_s: User code that holds up the event loop for longer ends the process with exit code 75, so that a
            supervisor starts it again and the culprit is found; 0 switches that off, as it should be where the program is
            somebody else's. `durably run` sets 300.
        function_timeout_s: An attempt of an activity, or a call of a function of a trigger, that takes longer has failed
            (`FunctionTimeoutError`); 0: it may take as long as it likes. Waiting for a thread or process does
            not count. With ``durably run`` also the limit for a turn, see `stall_limit_s`, where that is longer.
        max_actions: Actions of one execution; more is a loop that should continue as new.
        dedupe_window_s: How long ids of consumed messages are remembered.
        unknown_functions: ``"fail"`` fails an activity that this host does not know and refuses such a start. ``"wait"``
            leaves the work for a host that knows it. ``"auto"``: the first for a host that serves its hub alone, the second
            where hosts share it.
        code_version: Of all code of this host whose decorator says none. None: such code says nothing about versions.
        default_version: What new instances get for which nobody asks for a version. None: that of the newest code.
        version_match_strategy: Which instances code may run: ``"current_or_older"`` those of its version and older ones, as
            code that was changed with care for what is under way; ``"strict"`` those of its version only; ``"none"`` all.
        version_failure_strategy: What becomes of an instance for which there is no code. ``"reject"`` leaves it, blocked,
            for a host that has it; ``"fail"`` fails it with `VersionMismatchError` at its next turn.
        keep_finished_s: Finished instances are deleted this long after their end; 0 keeps them for ever. Deleting keeps to a
            fifth of the time as long as that is enough to keep up.
        queue_keep_s: A message of a queue is remembered this long after it was dealt with, so that one that is sent again
            under its id is known; 0 keeps it as any other instance.
        compress_above: A payload, or a row of a history, of more bytes is compressed where that helps; 0 never compresses.
            Below a page of the file little is won.
        payload_inline_max: A payload of an instance (input, output, custom status, failure) of more bytes is stored outside
            of its row, where a list and a change of status do not touch it. Four pages: less costs more outside.
        encryption_keys: Encrypt all payloads with the first of these keys, see `EncryptionKeys`; may be a function that
            returns them. The variable holds ``ID=KEY`` entries, or ``file:`` and the path of a file of them.
        webhook_url: Who is told what becomes of instances, see docs/notifications.md. The secret that these messages are
            signed with is in ``DURABLY_WEBHOOK_SECRET`` only.
        event_grid_endpoint: Of a topic of Azure Event Grid that is told, too; its key is in ``DURABLY_EVENT_GRID_KEY`` only.
        notify_events: What is told, separated by commas: ``started``, ``completed``, ``failed``, ``canceled``,
            ``terminated``, ``blocked``.
        lease_s: Time without renewal after which another host may take a partition over. Unused on a single file.
        partitions: Of a new hub on PostgreSQL, which keeps them: as many hosts can share it. 0: what the hub has, and
            32 for a new one. Unused on a single file, which has one.
    """

    max_concurrent_activities: int = 1_000
    share_above: int = 200
    activity_threads: int = 32
    activity_processes: int = os.cpu_count() or 1
    max_open_activities: int = 200_000
    max_commands: int = 10_000
    max_resident_instances: int = 20_000
    max_resident_entities: int = 20_000
    entity_operations_per_batch: int = 1_000
    turns_per_batch: int = 16
    batch_bytes: int = 1 << 20
    timer_horizon_s: float = 600.0
    inbox_poll_s: float = 1.0
    commit_retry_s: float = 0.05
    drain_timeout_s: float = 10.0
    slow_turn_s: float = 1.0
    invariant_strikes: int = 3
    max_deliveries: int = 5
    stall_limit_s: float = 0.0
    function_timeout_s: float = 0.0
    max_actions: int = 100_000
    dedupe_window_s: float = 3_600.0
    unknown_functions: Literal["auto", "fail", "wait"] = "auto"
    code_version: str | None = None
    default_version: str | None = None
    version_match_strategy: Literal["none", "strict", "current_or_older"] = "current_or_older"
    version_failure_strategy: Literal["reject", "fail"] = "reject"
    keep_finished_s: float = 0.0
    queue_keep_s: float = 600.0
    compress_above: int = 4_096
    payload_inline_max: int = 16_384
    encryption_keys: KeySource = None
    lease_s: float = 15.0
    partitions: int = 0
    webhook_url: str | None = None
    event_grid_endpoint: str | None = None
    notify_events: str = ",".join(ENDS)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "encryption_keys":
                continue  # looked at when they are asked for
            choices = _CHOICES.get(field.name)
            if choices is not None:
                if value not in choices:
                    expected = " or ".join(repr(choice) for choice in choices)
                    raise UsageError(f"{field.name} is {value!r}: expected {expected}")
            elif field.name in _TEXTS:
                check_text("" if value is None else value, field.name)
            elif field.name in _MAY_BE_ZERO and value == 0:
                continue
            elif type(value) not in (int, type(field.default)) or not 0 < value < math.inf:
                kind = "a number" if isinstance(field.default, float) else "a whole number"
                raise UsageError(f"{field.name} is {value!r}: expected {kind} above 0")
        _ = self.notices  # looked at now, not with the first instance

    @property
    def notices(self) -> NoticeRules:
        """What is told to others of all instances.

        Raises:
            UsageError: An event is unknown, or a URL is none.
        """
        events = frozenset(part.strip().lower() for part in self.notify_events.split(",") if part.strip())
        unknown = events.difference(EVENTS)
        if unknown:
            raise UsageError(
                f"notify_events has {min(unknown)!r}: expected some of {', '.join(EVENTS)}, separated by commas"
            )
        to: list[Destination] = []
        for form, name in (("webhook", "webhook_url"), ("eventgrid", "event_grid_endpoint")):
            url: str | None = getattr(self, name)
            if url:
                to.append(Destination(form, check_callback(url, name)))
        return NoticeRules(events, tuple(to))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **given: Any) -> EngineOptions:
        """Options from ``DURABLY_…`` variables; what is given in the call wins.

        Raises:
            UsageError: A variable does not hold what the option needs; the message names it.
        """
        source = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for field in fields(cls):
            variable = f"DURABLY_{field.name.upper()}"
            text = source.get(variable)
            if text is None or field.name in given:
                continue
            if field.name == "encryption_keys":
                values[field.name] = keys_from_environment(source)
                continue
            kind = cast(
                "type[str | int | float]", str if field.name in _TEXTS else type(getattr(cls, field.name))
            )
            try:
                values[field.name] = text if kind is str else kind(text)
            except ValueError:
                raise UsageError(
                    f"Environment variable {variable} is {text!r}: expected {kind.__name__}"
                ) from None
        return cls(**{**values, **given})
