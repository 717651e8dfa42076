"""Registered entities: classes whose annotated attributes are the state, and functions of an `EntityContext`."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from durably.codec.convert import Converter
from durably.core.entities import EntityId
from durably.core.events import Payload
from durably.errors import InvalidIdError, RegistrationError, UnknownFunctionError, UsageError
from durably.program.entity_context import EntityContext
from durably.program.signatures import Signature, activity_plan, function_input

DELETE: Final = "delete"
"""The operation that every entity has, unless it has one of its own by that name."""

RESERVED: Final = "durably."
"""How the names of the runtime's own entities begin."""

Migration = Callable[[Any, int], Any]


class BuiltInEntity(NamedTuple):
    """An entity of the runtime itself, which each host has.

    Attributes:
        name: Begins with `RESERVED`.
        code: Makes the code of one of them: an `EntityCode` of the engine, which knows the layers above this one not.
    """

    name: str
    code: Callable[[EntityId], Any]


class EntityFunction:
    """A registered entity.

    Attributes:
        name: In lower case.
        fn: The class or function.
        read_only: Operations that change nothing.
        state_version: Of the form of the state.
        migrate: Turns plain JSON data of an older version into that of this one, or None.
        idle_ttl_us: Deleted when no operation came for so long, or None.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        *,
        read_only: Iterable[str],
        state_version: int,
        migrate: Migration | None,
        idle_ttl_us: int | None,
    ) -> None:
        try:
            self.name = EntityId(name, "").name
        except InvalidIdError as error:
            raise RegistrationError(f"Cannot register an entity: {error}") from None
        if self.name.startswith(RESERVED):
            raise RegistrationError(
                f"Cannot register entity '{self.name}': names that begin with '{RESERVED}' are those of the runtime"
            )
        if type(state_version) is not int or state_version < 0:
            raise RegistrationError(
                f"Entity '{self.name}' has state_version={state_version!r}: expected 0 or more"
            )
        self.fn = fn
        self.read_only = frozenset((read_only,) if isinstance(read_only, str) else read_only)
        self.state_version = state_version
        self.migrate = migrate
        self.idle_ttl_us = idle_ttl_us
        self.form = ClassForm(fn, self.name) if inspect.isclass(fn) else None
        if self.form is not None:
            unknown = sorted(self.read_only - set(self.form.operations))
            if unknown:
                raise RegistrationError(
                    f"Entity '{self.name}' has read_only={unknown[0]!r}, which is none of its operations: expected some of "
                    f"{', '.join(sorted(self.form.operations)) or '(none)'}"
                )
            return
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise RegistrationError(
                f"Entity '{self.name}' is a generator function: expected def or async def of an EntityContext"
            )
        self._signature = Signature(fn, self.name)
        self._input_name = function_input(self._signature, f"Entity '{self.name}'", "EntityContext")

    def call(self, context: EntityContext, converter: Converter) -> Any:
        """Call the function: what it returns, or the coroutine that gives it."""
        if self._input_name is None:
            return self.fn(context)
        return self.fn(context, context.get_input(self._input_type))

    @functools.cached_property
    def _input_type(self) -> Any:
        return Any if self._input_name is None else self._signature.type_of(self._input_name)

    def current(self, state: Payload, version: int, converter: Converter) -> Payload:
        """The state in the form of this version.

        Raises:
            UsageError: It was written by a newer version, or there is no migration.
        """
        if state is None or version == self.state_version:
            return state
        if version > self.state_version:
            raise UsageError(
                f"The state of entity '{self.name}' has version {version}, and this code knows up to {self.state_version}: "
                "deploy the newer version again"
            )
        if self.migrate is None:
            raise UsageError(
                f"The state of entity '{self.name}' has version {version}, and this code expects {self.state_version}: register "
                "it with migrate=…, a function of the plain state and its version that returns the new state"
            )
        return converter.encode(self.migrate(converter.decode(state, Any), version))


class _Operation:
    """A method that is an operation: how it takes its input and its context."""

    def __init__(self, fn: Callable[..., Any], where: str) -> None:
        signature = Signature(fn, where)
        signature.parameters = signature.parameters[1:]  # self
        self.name = fn.__name__
        self.input_name, self.context_name, self._context_first, self._context_keyword = activity_plan(
            signature, where, EntityContext
        )
        self._signature = signature
        self._has_default = any(
            one.name == self.input_name and one.default is not one.empty for one in signature.parameters
        )

    def call(self, target: Any, payload: Payload, context: EntityContext, converter: Converter) -> Any:
        arguments: list[Any] = []
        if self.input_name is not None and not (payload is None and self._has_default):
            arguments.append(None if payload is None else converter.decode(payload, self._input_type))
        keywords: dict[str, Any] = {}
        if self.context_name is not None:
            if self._context_keyword or (self.input_name is not None and not arguments):
                keywords[self.context_name] = context
            elif self._context_first:
                arguments.insert(0, context)
            else:
                arguments.append(context)
        return getattr(target, self.name)(*arguments, **keywords)

    @functools.cached_property
    def _input_type(self) -> Any:
        return Any if self.input_name is None else self._signature.type_of(self.input_name)


class ClassForm:
    """What a class says: its fields with their types and defaults, and its operations.

    Attributes:
        operations: Public methods by name.
    """

    def __init__(self, cls: type[Any], name: str) -> None:
        self._cls = cls
        self._name = name
        self._is_record = issubclass(cls, msgspec.Struct) or _is_dataclass(cls)
        self._struct: type[msgspec.Struct] | None = None
        self.operations: dict[str, _Operation] = {}
        for key, member in inspect.getmembers(cls, inspect.isfunction):
            if not key.startswith("_"):
                self.operations[key] = _Operation(member, f"{name}.{key}")

    @property
    def _fields(self) -> type[msgspec.Struct]:
        """A struct with the fields of the class; made at first use: annotations may name what is defined further down."""
        if self._struct is None:
            fields: list[tuple[str, Any, Any]] = []
            for key, type_ in _annotations(self._cls).items():
                if typing.get_origin(type_) is typing.ClassVar or key.startswith("_"):
                    continue
                if not hasattr(self._cls, key):
                    raise RegistrationError(
                        f"Entity '{self._name}' has the attribute '{key}' without a default: expected '{key}: … = …', which is "
                        "what an entity begins with"
                    )
                default = getattr(self._cls, key)
                fields.append(
                    (key, type_, msgspec.field(default_factory=lambda value=default: copy.deepcopy(value)))
                )
            self._struct = msgspec.defstruct(f"State of {self._name}", fields, kw_only=True)
        return self._struct

    def load(self, state: Payload, converter: Converter) -> Any:
        """An object with a state; a new one begins with the defaults.

        Raises:
            PayloadError: The state does not fit the fields.
        """
        if self._is_record:
            return self._cls() if state is None else converter.decode(state, self._cls)
        fields = self._fields
        held: Any = fields() if state is None else converter.decode(state, fields)
        target = self._cls()
        for key in fields.__struct_fields__:
            setattr(target, key, getattr(held, key))
        return target

    def dump(self, target: Any, converter: Converter) -> bytes:
        """The state of an object.

        Raises:
            PayloadError: A field cannot become JSON.
            UsageError: The object has an attribute that is no part of the state, and would be lost.
        """
        if self._is_record:
            return converter.encode(target)
        fields = self._fields.__struct_fields__
        held: dict[str, Any] = target.__dict__
        stray = [key for key in held if key not in fields and not key.startswith("_")]
        if stray:
            raise UsageError(
                f"Entity '{self._name}' set the attribute '{stray[0]}', which it does not declare, so that it would be lost: "
                f"expected an annotated attribute ('{stray[0]}: … = …' in the class), or a name with '_' for what may be lost"
            )
        return converter.encode({key: getattr(target, key) for key in fields})

    def operation(self, name: str) -> _Operation | None:
        """The operation of a name; None for the built-in deletion.

        Raises:
            UnknownFunctionError: There is none.
        """
        found = self.operations.get(name)
        if found is None and name != DELETE:
            known = ", ".join(sorted({*self.operations, DELETE}))
            raise UnknownFunctionError(
                f"Entity '{self._name}' has no operation '{name}': expected one of {known}"
            )
        return found


def _is_dataclass(cls: type[Any]) -> bool:
    return dataclasses.is_dataclass(cls)


def _annotations(cls: type[Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:  # noqa: BLE001 - evaluating text can raise anything; then fields are plain JSON data
        names: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            names.update(dict.fromkeys(inspect.get_annotations(base), Any))
        return names
