"""Messages: what cannot be written or read, where it is, and what to do."""

from __future__ import annotations

import asyncio
import enum
import math
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from durably.codec.convert import JsonConverter
from durably.errors import PayloadError

if TYPE_CHECKING:
    from nowhere import Nothing  # pyright: ignore[reportMissingImports]

json = JsonConverter()


class Socket:
    pass


@dataclass
class Order:
    sku: str
    items: list[Any]


class Pack(msgspec.Struct):
    content: Any


class Wrapper:
    def __init__(self, content: Any) -> None:
        self.content = content

    def to_json(self) -> Any:
        return {"content": self.content}


class Broken:
    def to_json(self) -> Any:
        raise KeyError("sku")

    @classmethod
    def from_json(cls, data: Any) -> Broken:
        raise KeyError("sku")


class Hopeless(enum.Enum):
    NAN = math.nan


def refusal(value: Any) -> str:
    with pytest.raises(PayloadError) as caught:
        json.encode(value)
    return str(caught.value)


def misfit(data: bytes, type_: Any) -> str:
    with pytest.raises(PayloadError) as caught:
        json.decode(data, type_)
    return str(caught.value)


def test_the_type_and_the_place_of_what_cannot_be_written_are_named():
    assert refusal({"items": [1, 2, 3, Socket()]}) == (
        "Cannot serialize value of type 'Socket' at $.items[3]: expected data that JSON can hold, a dataclass, "
        "msgspec.Struct, enum, datetime, Decimal, UUID, pydantic model, or a class with to_json and from_json; "
        "convert it first"
    )


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Socket(), "$"),
        ([Order("a", [(1, Socket())])], "$[0].items[0][1]"),
        (Pack([Socket()]), "$.content[0]"),
        ({1: Socket()}, "$[1]"),
        (Wrapper([Socket()]), "$.content[0]"),
        ({"a": {"b": Pack(Wrapper(Socket()))}}, "$.a.b.content.content"),
    ],
)
def test_the_place_is_found_through_records_and_hooks(value: Any, place: str):
    assert f"'Socket' at {place}: " in refusal(value)


@pytest.mark.parametrize("value", [object(), print, Socket, socket, (n for n in [1]), 1j, ..., lambda: 1])
def test_things_that_are_no_data_are_refused(value: Any):
    assert f"value of type '{type(value).__name__}' at $[0]" in refusal([value])


def test_exceptions_are_not_values():
    class Known(Exception):
        def to_json(self) -> str:
            return "x"

    assert "'ValueError' at $.a: expected data, and exceptions are not" in refusal({"a": ValueError("x")})
    assert "'Known'" in refusal(Known())


def test_a_forgotten_await_is_pointed_out():
    coroutine = asyncio.sleep(0)
    assert "await it first" in refusal({"a": coroutine})
    coroutine.close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "around", [lambda x: x, lambda x: [None, x], lambda x: {"a": {"b": x}}, Pack, Wrapper]
)
def test_nan_and_infinity_are_refused_and_never_become_null(value: float, around: Any):
    assert f"Cannot serialize {value} at $" in refusal(around(value))


def test_the_place_of_nan_is_named():
    assert "nan at $.a[1].content: expected a finite float" in refusal(
        {"a": [None, Pack(math.nan)], "big": 2**70}
    )
    assert "nan at $" in refusal(Hopeless.NAN)


@pytest.mark.parametrize(
    "value", [None, {"a": None, "b": 1.5}, {"null": 2**70, "a": None}, "null", [None] * 3, b"\xcb\x7f\xf8"]
)
def test_nulls_that_mean_none_are_written(value: Any):
    assert json.decode(json.encode(value), Any) is not ...


def test_text_that_looks_like_a_packed_nan_is_written():
    value = [None, {"key": "\u02ff\u07ff", "blob": b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"}, 4.0]
    assert json.decode(json.encode(value), Any)[2] == 4.0


@pytest.mark.parametrize(
    ("value", "place"), [("\ud800", "$"), (["ok", "a\udfffb"], "$[1]"), ({"a": {"\ud800": 1}}, "$.a")]
)
def test_lone_surrogates_are_refused(value: Any, place: str):
    assert f"Cannot serialize text with a lone surrogate at {place} " in refusal(value)


@pytest.mark.parametrize("key", [(1, 2), None, True, frozenset([1]), Socket()])
def test_keys_that_json_cannot_hold_are_refused(key: Any):
    assert f"Cannot serialize dict key of type '{type(key).__name__}' at $.a: expected str, int" in refusal(
        {"a": {key: 1}}
    )


def test_ints_of_thousands_of_digits_are_refused():
    assert "value of type 'int' at $[0]: ValueError" in refusal([10**5000])
    assert "out of range" in misfit(b"1" * 5000, Any)


def test_what_a_hook_of_the_user_raises_is_told():
    assert refusal([Broken()]) == (
        "Cannot serialize value of type 'Broken' at $[0]: KeyError: 'sku'; expected a value that can be written; "
        "convert it first"
    )
    assert misfit(b'{"a": 1}', Broken) == "Payload does not fit type 'Broken': KeyError: 'sku' - at `$`"
    assert "KeyError: 'sku'" in misfit(b'[{"a": 1}]', list[Broken])


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_very_deep_nesting_is_refused_both_ways():
    assert "nests too deeply" in refusal(nested(100_000))
    text = b"[" * 100_000 + b"]" * 100_000
    for type_ in (Any, list[Any], list[list[Any] | int | Order]):
        assert "nests too deeply" in misfit(text, type_)


def test_a_value_that_contains_itself_is_refused():
    ring: list[Any] = []
    ring.append(ring)
    assert "contains itself" in refusal(ring)


@pytest.mark.parametrize(
    ("data", "type_", "message"),
    [
        (b"{}", Order, "Payload does not fit type 'Order': Object missing required field `sku` - at `$`"),
        (b"[3]", list[str], "Payload does not fit type 'list[str]': Expected `str`, got `int` - at `$[0]`"),
        (b"3", None, "Payload does not fit type 'None': Expected `null`, got `int` - at `$`"),
        (b"null", int, "Payload does not fit type 'int': Expected `int`, got `null` - at `$`"),
        (b'"1"', int, "Payload does not fit type 'int': Expected `int`, got `str` - at `$`"),
    ],
)
def test_what_does_not_fit_names_type_reason_and_place(data: bytes, type_: Any, message: str):
    assert misfit(data, type_) == message


@pytest.mark.parametrize("data", [b"", b"{", b"hello", b"{]", b"NaN", b"\xff"])
@pytest.mark.parametrize("type_", [Any, dict[str, int], Order | Pack])
def test_malformed_text_is_not_json(data: bytes, type_: Any):
    assert misfit(data, type_).startswith("Payload is not JSON: ")


def test_text_that_is_not_utf8_is_refused():
    assert "UTF-8" in misfit(b'"\xff"', Any)


def test_a_type_nobody_can_read_is_refused_when_it_is_met():
    assert "Type 'Socket' cannot be read from JSON: expected data" in misfit(b"1", Socket)
    assert "Type 'Socket' cannot be read" in misfit(b"[{}]", list[Socket | Order | None])
    assert json.decode(b"null", Socket | None) is None


def test_a_type_given_as_text_is_refused():
    assert "Type 'Order' is only a name" in misfit(b"1", "Order")


@dataclass
class Unresolved:
    content: Nothing


def test_an_annotation_that_cannot_be_resolved_is_named():
    assert misfit(b"{}", Unresolved).startswith(
        "Annotations of type 'Unresolved' cannot be read: name 'Nothing' is not defined"
    )


def test_the_cause_of_a_refusal_is_kept():
    with pytest.raises(PayloadError) as caught:
        json.encode([Broken()])
    assert isinstance(caught.value.__cause__, KeyError)
