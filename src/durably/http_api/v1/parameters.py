"""Queries of requests, read by the types of structs: what a description says is what is taken."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, inspect
from starlette.requests import Request

from durably.core.query import PAGE_SIZE_MAX
from durably.http_api.refusals import Refusal

T = TypeVar("T", bound=msgspec.Struct)

PASSED: Final = frozenset(("code", "sig", "taskhub", "connection"))
"""Parameters that may be anywhere, in lower case: credentials, and what links of Durable Functions carry."""

_WHOLE = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,19})?([eE][+-]?[0-9]{1,2})?")

Limit = Annotated[int, Meta(ge=1, le=PAGE_SIZE_MAX, description="How many at most")]
Cursor = Annotated[str, Meta(description="`nextCursor` of the page before")]


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operation without parameters."""


class _Field(NamedTuple):
    kind: type[inspect.Type]
    several: bool


@cache
def _fields(type_: type[msgspec.Struct]) -> dict[str, _Field]:
    """The parameters of a struct, by their names in the query."""
    info = inspect.type_info(type_)
    assert isinstance(info, inspect.StructType)  # noqa: S101 - for the type checker
    found: dict[str, _Field] = {}
    for one in info.fields:
        meant = _bare(one.type)
        several = isinstance(meant, inspect.VarTupleType)
        found[one.encode_name] = _Field(
            type(_bare(meant.item_type) if isinstance(meant, inspect.VarTupleType) else meant), several
        )
    return found


def _bare(type_: inspect.Type) -> inspect.Type:
    """Without what says nothing about the form: descriptions, and that it may be missing."""
    if isinstance(type_, inspect.Metadata):
        return _bare(type_.type)
    if isinstance(type_, inspect.UnionType):
        return _bare(next(one for one in type_.types if not isinstance(one, inspect.NoneType)))
    return type_


def read_parameters(request: Request, type_: type[T]) -> T:
    """The query of a request as a struct.

    Raises:
        Refusal: 400, a parameter is unknown, given twice, or does not fit.
    """
    fields = _fields(type_)
    given: dict[str, Any] = {}
    for name, text in request.query_params.multi_items():
        field = fields.get(name)
        if field is None:
            if name.lower() in PASSED:
                continue
            known = f"some of {', '.join(fields)}" if fields else "none"
            raise Refusal(400, f"There is no parameter {name[:100]!r}: expected {known}", "UnknownParameter")
        value = _value(name, text, field.kind)
        if field.several:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise Refusal(400, f"Parameter {name} is given twice: expected one", "InvalidParameter")
        else:
            given[name] = value
    try:
        return msgspec.convert(given, type_)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"A parameter does not fit: {error}", "InvalidParameter") from None


def _value(name: str, text: str, kind: type[inspect.Type]) -> Any:
    value, expected = text, "text"
    if kind is inspect.IntType:
        value, expected = int(text) if _WHOLE.fullmatch(text) else None, "a whole number"
    elif kind is inspect.FloatType:
        value, expected = float(text) if _NUMBER.fullmatch(text) else None, "a number"
    elif kind is inspect.BoolType:
        value, expected = {"true": True, "false": False}.get(text), "true or false"
    if value is None:
        raise Refusal(400, f"Parameter {name} is {text[:100]!r}: expected {expected}", "InvalidParameter")
    return value
