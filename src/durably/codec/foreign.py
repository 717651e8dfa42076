"""Classes that msgspec does not know, in both directions: pydantic models, ``to_json``/``from_json``, paths, subclasses."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from inspect import signature
from typing import Any, Final, cast

import msgspec

from durably.codec.annotations import type_name
from durably.codec.form import MISFITS_SHOWN_MAX, UNFIT, Form, Misfit, Trial

KNOWN_TYPES: Final = (
    "data that JSON can hold, a dataclass, msgspec.Struct, enum, datetime, Decimal, UUID, pydantic model, or a class with "
    "to_json and from_json"
)
"""What messages say is expected."""

_BUILTINS: Final[tuple[Any, ...]] = (str, int, float, bytes, bytearray, dict, list, tuple, set, frozenset)

_raw_json: Final = msgspec.json.Encoder().encode


class UnknownTypeError(TypeError):
    """Nobody knows how to write this value. Internal: `refusals` says it better."""


# --- writing -----------------------------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """Turn a value that msgspec does not know into one that it does. The ``enc_hook`` of the encoder.

    Raises:
        UnknownTypeError: There is no way. Exceptions are no values, even with a ``to_json``: they travel as failures.
    """
    cls = value.__class__
    if isinstance(value, BaseException):
        raise UnknownTypeError(cls.__name__)
    if is_model(cls):
        # By field name, not alias: an alias for writing need not be the alias for reading.
        return value.model_dump(mode="json", round_trip=True, by_alias=not validation_flags(cls))
    if callable(getattr(cls, "to_json", None)):
        return cls.to_json(value)  # an instance method, or the static one of azure-functions-durable
    if hasattr(cls, "__fspath__"):
        return value.__fspath__()
    plain = _as_base_class(value)
    if plain is None:
        raise UnknownTypeError(cls.__name__)
    return plain


def _as_base_class(value: Any) -> Any:
    """Subclasses of what msgspec knows, and other collections; None if it is neither."""
    match value:
        case str():
            return str.__str__(value)
        case int() if type(value) not in {bool, int}:
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case bytes() | bytearray():
            return bytes(value)
        case dt.datetime():  # freezegun, pendulum and pandas have subclasses
            time = value.time().replace(tzinfo=value.tzinfo, fold=value.fold)
            return dt.datetime.combine(dt.date(value.year, value.month, value.day), time)
        case dt.date():
            return dt.date(value.year, value.month, value.day)
        case Mapping():
            return dict(cast("Mapping[Any, Any]", value))
        # msgspec knows tuples and frozensets; one that comes here is the key of a dict.
        case Sequence() | AbstractSet() if not isinstance(value, tuple | frozenset):
            return list(cast("Sequence[Any]", value))
        case _:
            # By name: this room may not import uuid. asyncpg's UUID is such a subclass.
            is_uuid = any(
                base.__name__ == "UUID" and base.__module__ == "uuid" for base in type(value).__mro__
            )
            return str(value) if is_uuid else None


# --- reading -----------------------------------------------------------------------------------------------------


def is_model(cls: type) -> bool:
    """True for pydantic models. By their methods: pydantic is never imported here."""
    return hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump")


@lru_cache(maxsize=512)  # a program has fewer models; signatures are slow to read
def validation_flags(cls: Any) -> dict[str, bool]:
    """Make pydantic accept fields by name and by alias; empty below 2.11, which could not."""
    validate = cls.model_validate_json if is_model(cls) else cls.__pydantic_validator__.validate_python
    knows = "by_name" in signature(validate).parameters
    return {"by_name": True, "by_alias": True} if knows else {}


class Model(Form):
    """A pydantic model. It validates JSON text, so that a strict model takes a datetime from text."""

    custom = True

    def __init__(self, annotation: Any, cls: type) -> None:
        super().__init__(annotation)
        self._cls: Any = cls

    def walk(self, data: Any, trial: Trial) -> Any:
        return self.read_text(_raw_json(data))

    def read_text(self, text: bytes) -> Any:
        """Read JSON text, which saves parsing it twice."""
        try:
            return self._cls.model_validate_json(text, **validation_flags(self._cls))
        except ValueError as error:
            raise misfit_of(error) from error

    def surplus(self, data: Any, trial: Trial) -> int:
        fields = self._cls.model_fields
        if not isinstance(data, dict):
            return 0 if "root" in fields else UNFIT
        if "root" in fields or self._cls.model_config.get("extra") == "allow":
            return 0
        known = set(fields)
        known.update(info.alias for info in fields.values())
        known.update(
            info.validation_alias for info in fields.values() if isinstance(info.validation_alias, str)
        )
        return len(cast("dict[str, Any]", data).keys() - known)


def misfit_of(error: Exception) -> Misfit:
    """`Misfit.of`, which also knows the errors of pydantic: one line each, without the links."""
    errors: Callable[..., list[dict[str, Any]]] | None = getattr(error, "errors", None)
    if errors is None or not hasattr(error, "error_count"):
        return Misfit.of(error)
    found = errors(include_url=False, include_context=False, include_input=False)
    if len(found) == 1:
        return Misfit(found[0]["msg"], _path(found[0]["loc"]))
    return Misfit(
        "; ".join(f"{entry['msg']} in `{_path(entry['loc'])}`" for entry in found[:MISFITS_SHOWN_MAX])
    )


def _path(place: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)


class Custom(Form):
    """A class with ``from_json``: it gets what its ``to_json`` returned."""

    custom = True

    def __init__(self, annotation: Any, cls: type) -> None:
        super().__init__(annotation)
        self._cls: Any = cls

    def walk(self, data: Any, trial: Trial) -> Any:
        try:
            return self._cls.from_json(data)
        except RecursionError:
            raise
        except Exception as error:  # the user's code: whatever it raises, the data is refused
            raise Misfit.of(error) from error


class Subclass(Form):
    """A subclass of a builtin, ``class Sku(str)``: read as the builtin, then made of it. A path: made of its text."""

    custom = True

    def __init__(self, annotation: Any, cls: type, base: type) -> None:
        super().__init__(annotation)
        self._cls = cls
        self._base = base

    def walk(self, data: Any, trial: Trial) -> Any:
        try:
            return self._cls(msgspec.convert(data, self._base))
        except (ValueError, TypeError, msgspec.ValidationError) as error:
            raise Misfit.of(error) from error


class Unreadable(Form):
    """A class that nobody knows how to read. Refused when it is met, not when it is declared: it may be optional."""

    custom = True

    def walk(self, data: Any, trial: Trial) -> Any:
        raise Misfit(
            f"Type '{type_name(self.annotation)}' cannot be read from JSON: expected {KNOWN_TYPES}; "
            "declare one of these, or leave the type away to get plain data"
        )


def foreign_form(annotation: Any, cls: Any) -> Form:
    """The form of a class that msgspec does not know."""
    if is_model(cls):
        return Model(annotation, cls)
    if callable(getattr(cls, "from_json", None)):
        return Custom(annotation, cls)
    bases: tuple[Any, ...] = getattr(cls, "__mro__", ())
    base = next((base for base in bases if base in _BUILTINS), str if hasattr(cls, "__fspath__") else None)
    return Unreadable(annotation) if base is None else Subclass(annotation, cls, base)
