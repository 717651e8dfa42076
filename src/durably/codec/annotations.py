"""Declared types: what an annotation means once its names, qualifiers and type variables are resolved."""

from __future__ import annotations

import inspect
import types
from typing import (
    Annotated,
    Any,
    Literal,
    LiteralString,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from durably.errors import PayloadError

_QUALIFIERS = frozenset({"Required", "NotRequired", "ReadOnly", "Final", "ClassVar"})
"""Compared by name: `typing_extensions` has twins of these that are other objects than those of `typing`."""


def type_name(annotation: Any) -> str:
    """The name of a declared type as messages write it: short, without modules."""
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is ...:
        return "..."
    origin = get_origin(annotation)
    if origin is Literal:
        return f"Literal[{', '.join(repr(choice) for choice in get_args(annotation))}]"
    if is_union(annotation):
        return " | ".join(type_name(member) for member in get_args(annotation))
    if origin is Annotated:
        return type_name(get_args(annotation)[0])
    if origin is not None:
        return f"{type_name(origin)}[{', '.join(type_name(part) for part in get_args(annotation))}]"
    return str(getattr(annotation, "__name__", annotation))


def is_union(annotation: Any) -> bool:
    """True for ``A | B`` and ``Union[A, B]``, which are different things below Python 3.14."""
    return get_origin(annotation) in {Union, types.UnionType}


def is_alias(annotation: Any) -> bool:
    """True for a ``type X = …`` alias, subscripted or not."""
    target = get_origin(annotation) or annotation
    return (
        not isinstance(target, type) and hasattr(target, "__value__") and hasattr(target, "__type_params__")
    )


def alias_value(annotation: Any) -> Any:
    """What a ``type X[T] = …`` alias stands for, with its parameters filled in."""
    target = get_origin(annotation) or annotation
    return substitute(target.__value__, dict(zip(target.__type_params__, get_args(annotation), strict=False)))


def is_same_declaration(one: Any, other: Any) -> bool:
    """Whether two equal annotations also list the members of unions in the same order."""
    if one is other:
        return True
    parts, others = get_args(one), get_args(other)
    if not parts:
        return type(one) is type(other) and one == other and not isinstance(one, type)
    return (
        get_origin(one) == get_origin(other)
        and len(parts) == len(others)
        and all(
            is_same_declaration(part, counterpart) for part, counterpart in zip(parts, others, strict=True)
        )
    )


def strip(annotation: Any) -> Any:
    """Take off what does not change the data: qualifiers such as ``Required``, and names made by ``NewType``."""
    while True:
        origin = get_origin(annotation)
        if getattr(origin, "_name", None) in _QUALIFIERS:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif isinstance(annotation, TypeVar):
            annotation = _widest(annotation)
        elif annotation is LiteralString:
            annotation = str
        else:
            return annotation


def _widest(variable: TypeVar) -> Any:
    """What a type variable that nobody has filled in may be: its default, its bound, or one of its constraints."""
    if getattr(variable, "has_default", bool)():  # Python 3.13; `bool()` is False
        return cast("Any", variable).__default__
    if variable.__constraints__:
        return Union[variable.__constraints__]  # noqa: UP007 - the members are in a tuple
    return Any if variable.__bound__ is None else variable.__bound__


def substitute(annotation: Any, bindings: dict[Any, Any]) -> Any:
    """Fill in type variables; those without a binding stay."""
    if isinstance(annotation, TypeVar):
        return bindings.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if not parameters or isinstance(annotation, type):
        return annotation
    return annotation[tuple(bindings.get(parameter, parameter) for parameter in parameters)]


def class_hints(cls: type, args: tuple[Any, ...]) -> dict[str, Any]:
    """The annotations of a class and its bases, resolved, with the parameters of generic classes filled in.

    Args:
        cls: The class.
        args: What stands in the brackets of ``cls[...]``, or empty.

    Raises:
        PayloadError: A name in an annotation cannot be found.
    """
    try:
        hints = _resolved(cls)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:  # annotations are code
        raise PayloadError(
            f"Annotations of type '{cls.__name__}' cannot be read: {error}; "
            "define or import the name at module level, not in a function or under TYPE_CHECKING"
        ) from error
    bindings = _bindings(cls, args)
    return {name: substitute(hint, bindings.get(_owner(cls, name), {})) for name, hint in hints.items()}


def _resolved(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError:
        # A class within a function that means itself; and the parameters of `class Box[T]`, before Python 3.13.
        names: dict[str, Any] = {base.__name__: base for base in cls.__mro__}
        for base in cls.__mro__:
            names |= {variable.__name__: variable for variable in getattr(base, "__type_params__", ())}
        return get_type_hints(cls, localns=names, include_extras=True)


def _owner(cls: type, name: str) -> type:
    """The class whose body wrote the annotation: only its type variables are meant by it."""
    return next((base for base in cls.__mro__ if name in inspect.get_annotations(base)), cls)


def _bindings(cls: type, args: tuple[Any, ...]) -> dict[type, dict[Any, Any]]:
    """For a class and each of its bases: what their type variables stand for."""
    own = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
    bindings: dict[type, dict[Any, Any]] = {cls: own}
    for base in _original_bases(cls):
        origin: Any = get_origin(base) or base
        if isinstance(origin, type) and origin is not object:
            filled = tuple(substitute(part, own) for part in get_args(base))
            bindings.update(_bindings(origin, filled))
    return bindings


def _original_bases(cls: type) -> tuple[Any, ...]:
    """`types.get_original_bases` of Python 3.12."""
    return cls.__dict__.get("__orig_bases__", cls.__bases__)
