"""What a schedule can be asked for: the operations of its entity, and their inputs."""

from __future__ import annotations

from typing import Final

import msgspec

from durably.schedules.spec import Overlap, Spec, SpecChange

CREATE: Final = "create"
DECLARE: Final = "declare"
UNDECLARE: Final = "undeclare"
UPDATE: Final = "update"
PAUSE: Final = "pause"
RESUME: Final = "resume"
TRIGGER: Final = "trigger"
BACKFILL: Final = "backfill"
DELETE: Final = "delete"


class CreateOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """Input of `CREATE`."""

    spec: Spec
    paused: bool = False
    note: str | None = None


class DeclareOrder(msgspec.Struct, frozen=True):
    """Input of `DECLARE`: code has a schedule like this."""

    spec: Spec


class UpdateOrder(msgspec.Struct, frozen=True):
    """Input of `UPDATE`."""

    change: SpecChange


class NoteOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """Input of `PAUSE` and `RESUME`: why, for people."""

    note: str | None = None


class TriggerOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """Input of `TRIGGER`. Without `overlap` that of the schedule holds."""

    overlap: Overlap | None = None


class BackfillOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """Input of `BACKFILL`: occurrences from an instant to another one, both included; at once, or one after the other."""

    start: int
    end: int
    at_once: bool = False


class NoInput(msgspec.Struct, frozen=True):
    """Input of `UNDECLARE` and `DELETE`."""
