"""Recorded histories: to be kept as files, and replayed by the code of tomorrow."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from durably.app import App
from durably.core.events import Event, ExecutionStarted, HistoryEvent
from durably.core.timeline import HistoryEntry, timeline
from durably.errors import HistoryCorruptError
from durably.executors.native import NativeExecutor, NativeOptions

_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(HistoryEvent)}

_encode = msgspec.json.encode


class History:
    """The events of one execution.

    A file is JSON with one line an event: its kind, and the fields that have a value. Payloads stand in it as the JSON that
    they are; any other payload is kept as base64 text under ``{"base64": …}``.

    Attributes:
        events: In order.
    """

    def __init__(self, events: Sequence[HistoryEvent]) -> None:
        self.events = list(events)

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[HistoryEntry]:
        return iter(timeline(self.events))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.events == other.events

    __hash__ = None  # pyright: ignore[reportAssignmentType] - mutable

    def __repr__(self) -> str:
        started = self._started()
        return f"<history of {started.name} '{started.instance_id}': {len(self.events)} events>"

    def _started(self) -> ExecutionStarted:
        for event in self.events:
            if isinstance(event, ExecutionStarted):
                return event
        raise HistoryCorruptError("History has no event of its start: expected one; record it anew")

    def save(self, path: str | Path) -> None:
        """Write it to a file."""
        lines = b",\n".join(b"  " + _line(event) for event in self.events)
        Path(path).write_bytes(b'{"durably_history": 1, "events": [\n' + lines + b"\n]}\n")

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read a file that `save` wrote.

        Raises:
            HistoryCorruptError: It is none.
        """
        try:
            file = msgspec.json.decode(Path(path).read_bytes(), type=_File)
            return cls([_event(fields) for fields in file.events])
        except (msgspec.MsgspecError, KeyError, ValueError) as error:
            raise HistoryCorruptError(
                f"{path} is no history that this version can read ({error}): expected a file that History.save wrote"
            ) from None


def replay(app: App, history: History | str | Path) -> None:
    """Let the code of today go through a history of yesterday, and see whether it still decides the same.

    Args:
        app: The code.
        history: What was recorded, or the file it is in.

    Raises:
        NonDeterminismError: The code decides something else; the text shows where, as a diff. An instance with this history
            would be blocked after a deployment of the code.
        UnknownFunctionError: The app has no such orchestrator.
        HistoryCorruptError: The file holds no history.
    """
    recorded = history if isinstance(history, History) else History.load(history)
    executor = NativeExecutor(app.registry, app.converter, NativeOptions(slow_turn_s=0))
    executor.replay(recorded.events).close()


class _File(msgspec.Struct):
    durably_history: int
    events: list[dict[str, msgspec.Raw]]


def _line(event: HistoryEvent) -> bytes:
    fields = [("event", _encode(type(event).__name__))]
    for field in msgspec.structs.fields(event):
        value = getattr(event, field.encode_name)
        if value is not None and value != field.default:
            fields.append((field.name, _payload(value) if isinstance(value, bytes) else _encode(value)))
    return b"{" + b", ".join(_encode(name) + b": " + text for name, text in fields) + b"}"


def _payload(value: bytes) -> bytes:
    """JSON in one line, as it is, or anything else as base64."""
    try:
        msgspec.json.decode(value)
        is_plain = b"\n" not in value and _base64_of(value) is None
    except msgspec.DecodeError:
        is_plain = False
    return value if is_plain else _encode({"base64": base64.b64encode(value).decode()})


class _Base64(msgspec.Struct, forbid_unknown_fields=True):
    base64: str


def _event(fields: dict[str, msgspec.Raw]) -> HistoryEvent:
    kind = _KINDS[msgspec.json.decode(fields["event"], type=str)]
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        raw = fields.get(field.name)
        if raw is not None:
            values[field.name] = _value(bytes(raw), field.type)
        elif field.required:
            values[field.name] = None
    return cast("HistoryEvent", kind(**values))


def _value(raw: bytes, type_: Any) -> Any:
    if bytes not in get_args(type_):
        return msgspec.json.decode(raw, type=type_)
    text = _base64_of(raw)
    return raw if text is None else base64.b64decode(text)


def _base64_of(raw: bytes) -> str | None:
    try:
        return msgspec.json.decode(raw, type=_Base64).base64
    except msgspec.MsgspecError:
        return None
