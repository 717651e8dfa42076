"""Forms with named fields: dataclasses, `msgspec.Struct`, `TypedDict`, `NamedTuple`, pydantic dataclasses."""

from __future__ import annotations

import dataclasses
import sys
from abc import abstractmethod
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import msgspec

from durably.codec.annotations import class_hints
from durably.codec.foreign import misfit_of, validation_flags
from durably.codec.form import UNFIT, Form, Misfit, Trial, cut, expected, is_array, is_compound, is_object


class Field(NamedTuple):
    """A field of a record.

    Attributes:
        name: In Python.
        key: In JSON.
        form: How it is read.
        required: It has no default.
        alias: Another key that is read too, or None.
    """

    name: str
    key: str
    form: Form
    required: bool
    alias: str | None = None


class FieldType(NamedTuple):
    """What is known of a field before its type is looked into."""

    name: str
    key: str
    annotation: Any
    required: bool
    alias: str | None = None


class Record(Form):
    """An object with named fields."""

    is_positional: bool = False
    accepts_unknown: bool = True
    tag: tuple[str, str | int] | None = None

    def __init__(self, annotation: Any, cls: type) -> None:
        super().__init__(annotation)
        self.cls: Any = cls
        self._fields: Sequence[Field] = ()
        self._known: frozenset[str | None] = frozenset()

    def set_fields(self, fields: Sequence[Field]) -> None:
        """Complete the construction. A step of its own, because a field may be of the type of the record."""
        self._fields = fields
        self._known = frozenset(key for field in fields for key in (field.key, field.alias))
        if self.tag is not None:
            self._known |= {self.tag[0]}

    @abstractmethod
    def field_types(self, args: tuple[Any, ...]) -> list[FieldType]:
        """The fields in order, for the class with these type arguments."""

    @abstractmethod
    def make(self, values: dict[str, Any]) -> Any:
        """Build the value. Fields that the data does not have are missing: their defaults apply."""

    @property
    def parts(self) -> Sequence[Form]:
        return [field.form for field in self._fields]

    def walk(self, data: Any, trial: Trial) -> Any:
        raw = self._named(data)
        if raw is None:
            raise expected("array" if self.is_positional else "object", data)
        if self.tag is not None and raw.get(self.tag[0], self.tag[1]) != self.tag[1]:
            raise Misfit(f"Invalid value {cut(repr(raw[self.tag[0]]))}", f".{self.tag[0]}")
        values: dict[str, Any] = {}
        for field in self._fields:
            key = field.alias if field.alias in raw else field.key
            if key in raw:
                try:
                    values[field.name] = field.form.read(raw[key], trial)
                except Misfit as misfit:
                    raise misfit.below(f".{key}") from None
            elif field.required:
                raise Misfit(f"Object missing required field `{field.key}`")
        if not self.accepts_unknown and (unknown := self._unknown(raw)):
            raise Misfit(f"Object contains unknown field `{min(unknown)}`")
        try:
            return self.make(values)
        except RecursionError:
            raise
        except Exception as error:  # of the user's `__post_init__`: whatever it raises, the data is refused
            raise misfit_of(error) from error

    def surplus(self, data: Any, trial: Trial) -> int:
        raw = self._named(data)
        # Alone, a struct may leave its tag out; in a union, that is what the tag is for.
        if raw is None or (self.tag is not None and raw.get(self.tag[0]) != self.tag[1]):
            return UNFIT
        surplus = len(self._unknown(raw))
        for field in self._fields:
            key = field.alias if field.alias in raw else field.key
            if key in raw:
                if is_compound(raw[key]):
                    surplus += field.form.surplus(raw[key], trial)
            elif field.required:
                return UNFIT
        return surplus

    def _named(self, data: Any) -> dict[str, Any] | None:
        """The data by key, or None if it is of another kind."""
        if not self.is_positional:
            return data if is_object(data) else None
        if not is_array(data):
            return None
        keys = [field.key for field in self._fields]
        if self.tag is not None:
            keys.insert(0, self.tag[0])
        named = dict(zip(keys, data, strict=False))
        # The rest gets numbers as keys, which no field has: it counts as unknown.
        return named | {str(index): item for index, item in enumerate(data[len(keys) :], len(keys))}

    def _unknown(self, raw: dict[str, Any]) -> AbstractSet[str]:
        return raw.keys() - self._known


class StructRecord(Record):
    """A `msgspec.Struct` with a field that msgspec cannot read."""

    def __init__(self, annotation: Any, cls: type[msgspec.Struct]) -> None:
        super().__init__(annotation, cls)
        config = cls.__struct_config__
        self.is_positional = config.array_like
        self.accepts_unknown = not config.forbid_unknown_fields
        if config.tag is not None and config.tag_field is not None:
            self.tag = (config.tag_field, config.tag)

    def field_types(self, args: tuple[Any, ...]) -> list[FieldType]:
        hints = class_hints(self.cls, args)
        return [
            FieldType(field.name, field.encode_name, hints[field.name], field.required)
            for field in msgspec.structs.fields(self.cls)
        ]

    def make(self, values: dict[str, Any]) -> Any:
        return self.cls(**values)


class TypedDictRecord(Record):
    """A `TypedDict`. Unknown keys are dropped, as msgspec does."""

    def field_types(self, args: tuple[Any, ...]) -> list[FieldType]:
        return [
            FieldType(name, name, hint, self._is_required(name, hint))
            for name, hint in class_hints(self.cls, args).items()
        ]

    def _is_required(self, name: str, hint: Any) -> bool:
        # `__required_keys__` is wrong where annotations are strings (`from __future__ import annotations`): look first.
        while (qualifier := getattr(getattr(hint, "__origin__", None), "_name", None)) is not None:
            if qualifier in {"Required", "NotRequired"}:
                return qualifier == "Required"
            if qualifier != "ReadOnly":
                break
            hint = hint.__args__[0]
        return name in self.cls.__required_keys__

    def make(self, values: dict[str, Any]) -> Any:
        return values


class NamedTupleRecord(Record):
    """A `NamedTuple`, an array in JSON."""

    is_positional = True
    accepts_unknown = False

    def field_types(self, args: tuple[Any, ...]) -> list[FieldType]:
        hints = class_hints(self.cls, args)
        return [
            FieldType(name, name, hints.get(name, Any), name not in self.cls._field_defaults)
            for name in self.cls._fields
        ]

    def make(self, values: dict[str, Any]) -> Any:
        return self.cls(**values)


class DataclassRecord(Record):
    """A dataclass, built as msgspec builds it: fields are set, then ``__post_init__`` runs; ``__init__`` does not.

    Fields with ``init=False`` are set again afterwards: they are state that ``__post_init__`` begins and methods move on.
    msgspec would leave them as begun, hence `misread`.
    """

    def __init__(self, annotation: Any, cls: type) -> None:
        super().__init__(annotation, cls)
        self._declared = dataclasses.fields(self.cls)
        self._late = [field.name for field in self._declared if not field.init]
        self.misread = bool(self._late)
        self._init_vars: list[str] = []

    def field_types(self, args: tuple[Any, ...]) -> list[FieldType]:
        hints = class_hints(self.cls, args)
        self._init_vars = [name for name, hint in hints.items() if isinstance(hint, dataclasses.InitVar)]
        return [
            FieldType(field.name, field.name, hints[field.name], field.init and not _has_default(field))
            for field in self._declared
        ]

    def make(self, values: dict[str, Any]) -> Any:
        made = self.cls.__new__(self.cls)
        for field in self._declared:
            if field.name in values:
                value = values[field.name]
            elif field.default_factory is not dataclasses.MISSING:
                value = field.default_factory()
            elif field.default is not dataclasses.MISSING:
                value = field.default
            else:
                continue  # init=False without a default: `__post_init__` sets it
            object.__setattr__(made, field.name, value)  # frozen ones, too
        if hasattr(made, "__post_init__"):
            # An InitVar is not kept by the dataclass, hence not in the data: only its default can be given.
            made.__post_init__(*(getattr(self.cls, name) for name in self._init_vars))
        for name in self._late:
            if name in values:
                object.__setattr__(made, name, values[name])
        return made


class PydanticDataclassRecord(Record):
    """A pydantic dataclass. Fields are read like those of any dataclass, since msgspec wrote them; pydantic validates.

    msgspec would take it for a plain dataclass: no validation, and `FieldInfo` objects as defaults.
    """

    misread = True

    def __init__(self, annotation: Any, cls: type) -> None:
        super().__init__(annotation, cls)
        self._declared = dataclasses.fields(self.cls)
        self._late = [field.name for field in self._declared if not field.init]

    def field_types(self, args: tuple[Any, ...]) -> list[FieldType]:
        hints = class_hints(self.cls, args)
        infos = self.cls.__pydantic_fields__
        return [
            FieldType(
                field.name,
                field.name,
                hints[field.name],
                field.init and infos[field.name].is_required(),
                _pydantic_alias(infos[field.name]),
            )
            for field in self._declared
        ]

    def make(self, values: dict[str, Any]) -> Any:
        late = {name: values.pop(name) for name in self._late if name in values}
        flags = validation_flags(self.cls)
        if not flags:  # pydantic below 2.11 knows aliased fields by alias only
            aliases = {field.name: field.alias or field.name for field in self._fields}
            values = {aliases[name]: value for name, value in values.items()}
        arguments = sys.modules["pydantic_core"].ArgsKwargs((), values)
        made = self.cls.__new__(self.cls)
        self.cls.__pydantic_validator__.validate_python(arguments, self_instance=made, **flags)
        for name, value in late.items():
            object.__setattr__(made, name, value)
        return made


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _pydantic_alias(info: Any) -> str | None:
    return info.validation_alias if isinstance(info.validation_alias, str) else info.alias
