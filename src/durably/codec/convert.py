"""The seam between values and payloads: `Converter`, and `JsonConverter`, the default.

What each type becomes is the table of msgspec (https://jcristharif.com/msgspec/supported-types.html): times are RFC 3339
text, `timedelta` is ISO 8601 text, bytes are base64 text, enums are their value, sets and tuples are arrays. A payload does
not name its type. The reader's annotation decides, so an untyped reader gets plain data: text for a datetime, a list for a
tuple, text keys for int keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from durably.codec.annotations import is_same_declaration, type_name
from durably.codec.foreign import to_plain
from durably.codec.form import Misfit, identity
from durably.codec.plan import reader
from durably.codec.refusals import has_non_finite, refusal
from durably.errors import PayloadError


class Converter(Protocol):
    """Turns values into payloads and back. Plug in your own for another format.

    Called from the event loop, from threads of activities, and within a replay. Therefore an implementation must be

    - deterministic: the same value gives the same bytes, today and in a year, since histories outlive deployments;
    - synchronous and quick: no I/O, no clock, no randomness; compression and encryption come after it, large payloads
      are moved out by the engine;
    - safe to be called by several threads at once.

    Payloads must be text in UTF-8: other SDKs read the same histories.
    """

    def encode(self, value: object) -> bytes:
        """Turn a value into a payload.

        Args:
            value: An input, a result, an event, a custom status; also None and other falsy values.

        Raises:
            PayloadError: The value cannot be written. The message names the type and the place.
        """
        ...

    def decode(self, data: bytes, type_: Any) -> Any:
        """Turn a payload into a value.

        Args:
            data: What `encode` returned, or what a client sent.
            type_: The declared type: any annotation that has been resolved. ``Any`` gives plain data.

        Raises:
            PayloadError: The payload is malformed or does not fit the type.
        """
        ...


PAYLOAD_BYTES_MAX: Final = 16 * 1024 * 1024
"""Larger than any message that people mean to send, smaller than what brings a small host down."""

READERS_CACHED_MAX = 1024
"""Types remembered. A program declares a few hundred; the limit is for one that makes types as it goes."""

_encode: Final = msgspec.json.Encoder(enc_hook=to_plain).encode
_decode_plain: Final = msgspec.json.Decoder().decode

_Known = tuple[Any, Callable[[bytes], Any]]

# By identity, since A | B and B | A are equal and have one hash, but declare another order, and some annotations have no
# hash at all. Holding the type keeps its id its own.
_readers: Final[dict[int, _Known]] = {}

# By equality, for `returns=list[Order]` within an orchestrator: a new object each time.
_equal_readers: Final[dict[Any, _Known]] = {}


class JsonConverter:
    """JSON by msgspec, typed by annotations. The default converter.

    Beyond what msgspec reads: unions of dataclasses, structs and models (see `durably.codec.unions.Union` for the rule),
    ``str | datetime``, enums and literals of any values, pydantic models and dataclasses where pydantic is installed (2.9 or
    newer, aliases apart from 2.11), classes with ``to_json`` and ``from_json``, paths, `deque`, recursive aliases.

    Dataclasses and structs go by their fields, also if they have a ``to_json``. Refused, because JSON would lose them: NaN
    and infinities, lone surrogates, keys that are not text, numbers or times. Sets are written in the order in which they
    iterate, which differs between processes.

    Args:
        max_bytes: Of one payload as JSON. Each is held in memory several times over while it is on its way, and a history
            holds all of them.
    """

    __slots__ = ("max_bytes",)

    def __init__(self, *, max_bytes: int = PAYLOAD_BYTES_MAX) -> None:
        self.max_bytes = max_bytes

    def encode(self, value: object) -> bytes:
        """See `Converter.encode`. A payload of more than `max_bytes` is refused."""
        try:
            data = _encode(value)
        except Exception as error:  # also what `to_json` of the user raises
            raise refusal(value, _write) from error
        if len(data) > self.max_bytes:
            raise PayloadError(
                f"Payload has {len(data):,} bytes as JSON: expected {self.max_bytes:,} at most; keep large data in a file or "
                "a database and pass where it is, or set another limit: App(converter=JsonConverter(max_bytes=...))"
            )
        # msgspec writes NaN as null: without a null, there is none. `in` costs twice as much: it asks for an int first.
        if data.find(b"null") >= 0 and value is not None and has_non_finite(value):
            raise refusal(value, _write)
        return data

    def decode(self, data: bytes, type_: Any) -> Any:
        """See `Converter.decode`."""
        try:
            if type_ is Any:
                return _decode_plain(data)
            known = _readers.get(identity(type_)) or _learn(type_)
            return known[1](data)
        except PayloadError:
            raise
        except Exception as error:  # also what `from_json`, validators and `__post_init__` of the user raise
            raise _misfit(error, type_) from error


def _learn(type_: Any) -> _Known:
    try:
        known = _equal_readers.get(type_)
    except TypeError:  # without a hash: an Annotated with a list in it
        known = (type_, reader(type_))
    if known is None:
        if len(_equal_readers) >= READERS_CACHED_MAX:
            _equal_readers.clear()
        known = _equal_readers[type_] = (type_, reader(type_))
    known = (type_, known[1] if is_same_declaration(known[0], type_) else reader(type_))
    if len(_readers) >= READERS_CACHED_MAX:
        _readers.clear()
    _readers[identity(type_)] = known
    return known


def _write(value: object) -> None:
    """Try to write a part of a value, by the same rules as the whole."""
    if b"null" in _encode(value) and value is not None and has_non_finite(value):
        raise ValueError("JSON has no NaN and no infinity")


def _misfit(error: Exception, type_: Any) -> PayloadError:
    if isinstance(error, RecursionError):
        return PayloadError(
            "Payload nests too deeply: expected a tree of moderate depth; flatten it, or refer to parts by id"
        )
    if isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError):
        return PayloadError(f"Payload is not JSON: {error}; expected JSON text in UTF-8; send text in quotes")
    if isinstance(error, UnicodeDecodeError):
        return PayloadError(f"Payload is not text in UTF-8: {error}; expected JSON text in UTF-8; encode it")
    misfit = Misfit.of(error)
    return PayloadError(
        f"Payload does not fit type '{type_name(type_)}': {misfit.reason} - at `${misfit.path}`"
    )
