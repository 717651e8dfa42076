"""Builds the forms of a declared type: looks at each annotation, decides its kind, and goes into its parts."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections import abc
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, ForwardRef, Literal, cast, get_args, get_origin

import msgspec

from durably.codec.annotations import alias_value, is_alias, is_union, strip
from durably.codec.containers import Entries, Fixed, Items
from durably.codec.foreign import Unreadable, foreign_form, to_plain
from durably.codec.form import Alias, Choice, Form, Scalar
from durably.codec.records import (
    DataclassRecord,
    Field,
    NamedTupleRecord,
    PydanticDataclassRecord,
    Record,
    StructRecord,
    TypedDictRecord,
)
from durably.codec.unions import Union
from durably.errors import PayloadError

_TAKES_ANYTHING: Final = frozenset({str, int, float, dict, abc.Mapping, abc.MutableMapping})
_BYTES: Final = frozenset({bytes, bytearray, memoryview})

# By origin: the factory, and whether msgspec needs our hook for it.
_ITEMS: Final[dict[Any, tuple[Callable[[list[Any]], Any], bool]]] = {
    list: (list, False),
    set: (set, False),
    frozenset: (frozenset, False),
    abc.Sequence: (list, False),
    abc.MutableSequence: (list, False),
    abc.Collection: (list, False),
    abc.Set: (set, False),
    abc.MutableSet: (set, False),
    abc.Iterable: (list, True),
    collections.deque: (collections.deque, True),
}
_ENTRIES: Final[dict[Any, tuple[Callable[[dict[Any, Any]], Any], bool]]] = {
    dict: (dict, False),
    abc.Mapping: (dict, False),
    abc.MutableMapping: (dict, False),
    collections.OrderedDict: (collections.OrderedDict, True),
    collections.defaultdict: (partial(collections.defaultdict, None), True),  # its factory is not data
    collections.Counter: (collections.Counter, True),
}

_write: Final = msgspec.json.Encoder(enc_hook=to_plain).encode


class Builder:
    """Builds the forms of one declared type. Remembers those that have a name, since only they can be recursive."""

    def __init__(self) -> None:
        self._named: dict[tuple[Any, str], Form] = {}

    def build(self, annotation: Any) -> Form:
        """Build the form of a type and of all within it.

        Raises:
            PayloadError: The annotation, or one within a class, is a name that cannot be resolved.
        """
        annotation = strip(annotation)
        is_annotated = get_origin(annotation) is Annotated  # msgspec wants the constraints, we want the type
        bare = strip(get_args(annotation)[0]) if is_annotated else annotation
        if isinstance(bare, str | ForwardRef):
            raise PayloadError(
                f"Type {bare!r} is only a name: expected a type; resolve it first, for example with typing.get_type_hints"
            )
        if bare is Any or bare is object:
            return Scalar(Any, rank=2)
        if is_alias(bare):
            return self._alias(bare)
        if is_union(bare):
            return Union(annotation, [self.build(member) for member in get_args(bare)])
        if isinstance(bare, dataclasses.InitVar):
            return self.build(cast("Any", bare).type)
        origin, args = get_origin(bare), get_args(bare)
        if origin is Literal:
            return _scalar_or_choice(annotation, args)
        if origin is tuple:
            return self._tuple(annotation, args)
        return self._class(annotation, origin or bare, args)

    def _alias(self, annotation: Any) -> Form:
        key = (get_origin(annotation) or annotation, repr(annotation))
        if key not in self._named:
            form = self._named[key] = Alias(annotation)
            form.target = self.build(alias_value(annotation))
            form.rank = form.target.rank
        return self._named[key]

    def _tuple(self, annotation: Any, args: tuple[Any, ...]) -> Form:
        if len(args) == 2 and args[1] is ...:
            return Items(annotation, self.build(args[0]), tuple, custom=False)
        return Fixed(annotation, [self.build(arg) for arg in args])

    def _class(self, annotation: Any, cls: Any, args: tuple[Any, ...]) -> Form:
        record = _record_class(cls)
        if record is not None:
            return self._record(record, annotation, cls, args)
        if isinstance(cls, enum.EnumMeta):
            return _scalar_or_choice(annotation, list(cls))
        # Bare `list` and `dict` are left to msgspec: nothing in them needs a form.
        if cls in _ITEMS and (args or _ITEMS[cls][1]):
            make, custom = _ITEMS[cls]
            return Items(annotation, self.build(args[0] if args else Any), make, custom=custom)
        if cls in _ENTRIES and (args or _ENTRIES[cls][1]):
            return self._entries(annotation, cls, args)
        if _is_custom(annotation):
            return foreign_form(annotation, cls)
        return Scalar(annotation, rank=2 if cls in _TAKES_ANYTHING else 1 if cls in _BYTES else 0)

    def _entries(self, annotation: Any, cls: Any, args: tuple[Any, ...]) -> Form:
        make, custom = _ENTRIES[cls]
        key, value = (args[0], int) if cls is collections.Counter and args else args or (Any, Any)
        form = self.build(key)
        read_keys: Callable[[Any], dict[Any, Any]] | None = None
        if not form.custom and _is_taken(dict[key, Any]):
            read_keys = partial(msgspec.convert, type=dict[key, Any], str_keys=True)
        return Entries(annotation, form, self.build(value), make, read_keys, custom=custom)

    def _record(self, record: type[Record], annotation: Any, cls: type, args: tuple[Any, ...]) -> Form:
        # By its text, too: Box[A | B] equals Box[B | A] and has the same hash, but declares another order.
        key = (cls, repr(annotation))
        if key in self._named:
            return self._named[key]
        form = self._named[key] = record(annotation, cls)
        fields: list[Field] = []
        for found in form.field_types(args):
            field_form = self.build(found.annotation)
            if record is PydanticDataclassRecord and isinstance(field_form, Unreadable):
                field_form = Scalar(Any, rank=2)  # EmailStr and the like: pydantic knows them
            fields.append(Field(found.name, found.key, field_form, found.required, found.alias))
        form.set_fields(fields)
        return form


def _record_class(cls: Any) -> type[Record] | None:
    if not isinstance(cls, type):
        return None
    if hasattr(cls, "__dataclass_fields__"):
        return PydanticDataclassRecord if hasattr(cls, "__pydantic_validator__") else DataclassRecord
    if hasattr(cls, "__required_keys__") and issubclass(cls, dict):
        return TypedDictRecord
    if hasattr(cls, "_field_defaults") and issubclass(cls, tuple):
        return NamedTupleRecord
    return StructRecord if issubclass(cls, msgspec.Struct) else None


def _scalar_or_choice(annotation: Any, choices: Any) -> Form:
    return Scalar(annotation, rank=0) if _is_taken(annotation) else Choice(annotation, choices, _write)


def _is_taken(annotation: Any) -> bool:
    try:
        msgspec.json.Decoder(annotation)
    except TypeError:
        return False
    return True


def _is_custom(annotation: Any) -> bool:
    """Whether msgspec would ask our hook to read the type."""
    try:
        return isinstance(msgspec.inspect.type_info(annotation), msgspec.inspect.CustomType)
    except Exception:  # noqa: BLE001 - what it refuses, for whatever reason, it cannot read
        return True
