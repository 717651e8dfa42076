"""Which member of a union the data means."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar

import msgspec
import pytest

from durably.codec.convert import JsonConverter
from durably.codec.records import Record
from durably.errors import PayloadError

json = JsonConverter()
T = TypeVar("T")
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


@dataclass
class Card:
    number: str
    holder: str = ""


@dataclass
class Transfer:
    iban: str
    holder: str = ""


@dataclass
class Cash:
    pass


@dataclass
class Sparse:
    a: int = 0


@dataclass
class Wide:
    a: int = 0
    b: int = 0


class Packet(msgspec.Struct):
    number: int


class Tagged(msgspec.Struct, tag=True):
    number: int


class Other(msgspec.Struct, tag=True):
    number: int


class Kind(enum.Enum):
    FAST = "fast"


class Step(enum.IntEnum):
    ONE = 1


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Add:
    left: Expression
    right: Expression


@dataclass
class Multiply:
    left: Expression
    right: Expression
    rounded: bool = False


@dataclass
class Number:
    value: int


Expression = Add | Multiply | Number


def round_trip(value: Any, type_: Any) -> None:
    decoded = json.decode(json.encode(value), type_)
    assert decoded == value
    assert type(decoded) is type(value)


@pytest.mark.parametrize(
    "type_", [Card | Transfer, Transfer | Card, Card | Transfer | None, Box[Card] | Card | Transfer]
)
def test_dataclasses_are_told_apart_by_their_required_fields(type_: Any):
    round_trip(Card("1"), type_)
    round_trip(Transfer("DE1", "ada"), type_)


@pytest.mark.parametrize("type_", [Sparse | Wide, Wide | Sparse])
def test_the_member_with_the_fewest_unknown_keys_is_meant(type_: Any):
    assert json.decode(b'{"b": 1}', type_) == Wide(b=1)
    assert json.decode(b'{"a": 1, "b": 1}', type_) == Wide(1, 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'[{"b": 1}]', [Wide(b=1)]),
        (b'[{"a": 1}]', [Sparse(1)]),
        (b"[]", []),
    ],
)
def test_unknown_keys_count_at_every_depth(data: bytes, expected: Any):
    assert json.decode(data, list[Sparse] | list[Wide]) == expected
    assert json.decode(b'{"x": %b}' % data, dict[str, list[Sparse]] | dict[str, list[Wide]]) == {
        "x": expected
    }
    assert json.decode(b'{"content": %b}' % data, Box[list[Sparse] | None] | Box[list[Wide]]) == Box(expected)
    assert json.decode(b"[1, %b]" % data, tuple[int, list[Sparse]] | tuple[int, list[Wide]]) == (1, expected)


def test_with_as_many_unknown_keys_the_order_of_declaration_decides():
    assert json.decode(b'{"a": 1}', Sparse | Wide) == Sparse(1)
    assert json.decode(b'{"a": 1}', Wide | Sparse) == Wide(1)
    assert json.decode(b"{}", Cash | Sparse) == Cash()


def test_a_member_whose_types_do_not_fit_is_passed_over():
    assert json.decode(b'{"number": 1}', Card | Packet) == Packet(1)
    assert json.decode(b'{"number": "1"}', Packet | Card) == Card("1")


def test_tagged_and_untagged_members_may_be_mixed():
    for value in (Tagged(1), Other(1), Packet(1), Card("1")):
        round_trip(value, Tagged | Other | Packet | Card)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (NOON, str | dt.datetime),
        ("hello", str | dt.datetime),
        (NOON, dt.datetime | str | None),
        (dt.date(2026, 1, 1), dt.datetime | dt.date),
        (NOON, dt.date | dt.datetime),
        (dt.timedelta(1), dt.timedelta | dt.date | str),
        (uuid.UUID(int=1), str | uuid.UUID),
        (Decimal("1.5"), str | Decimal),
        ("x", Decimal | str),
        (Kind.FAST, str | Kind),
        ("slow", Kind | str),
        (Step.ONE, int | Step),
        (7, int | Step),
        (1.5, int | float),
        (1, int | str),
        (True, bool | int | str),
        (b"ab", bytes | dt.datetime),
        (NOON, bytes | dt.datetime),
        ([1], list[int] | list[str]),
        (["a"], list[int] | list[str]),
        ({"a": 1}, dict[str, int] | Card),
        (Card("1"), dict[str, Any] | Card),
        ({"number": "1", "more": 2}, dict[str, Any] | Card),
        ((1, "a"), tuple[int, str] | list[int]),
        ([NOON, "x", None], list[dt.datetime | str | None]),
        (1, Any | int),
    ],
)
def test_what_has_a_recognizable_form_goes_before_what_takes_anything(value: Any, type_: Any):
    round_trip(value, type_)


def test_bytes_and_text_are_refused_because_no_reader_can_tell_them_apart():
    with pytest.raises(PayloadError, match="base64"):
        json.decode(b'"test"', bytes | str)
    assert json.decode(b"null", bytes | str | None) is None


def test_where_nothing_fits_the_message_gives_the_reason_of_each_member():
    with pytest.raises(PayloadError) as caught:
        json.decode(b'{"payment": [{"number": 7}]}', dict[str, list[Card | Transfer]])
    assert str(caught.value) == (
        "Payload does not fit type 'dict[str, list[Card | Transfer]]': Expected `Card | Transfer`, but no member fits "
        "(Card: Expected `str`, got `int` - at `$.number`; Transfer: Object missing required field `iban`) "
        "- at `$.payment[0]`"
    )


def test_recursive_unions_come_back():
    round_trip(Add(Number(1), Multiply(Number(2), Add(Number(3), Number(4)), rounded=True)), Expression)


@pytest.mark.parametrize("leaf", [b'{"value": 1}', b'{"value": "wrong"}'])
def test_deep_ambiguous_data_takes_no_exponential_time(leaf: bytes, monkeypatch: pytest.MonkeyPatch):
    steps = 0

    def counting(step: Any) -> Any:
        def counted(*args: Any) -> Any:
            nonlocal steps
            steps += 1
            assert steps < 2_000  # 2^40 if each level tried its members anew
            return step(*args)

        return counted

    monkeypatch.setattr(Record, "walk", counting(Record.walk))
    monkeypatch.setattr(Record, "surplus", counting(Record.surplus))
    data = leaf
    for _ in range(40):
        data = b'{"left": %b, "right": {"value": 1}}' % data
    if b"wrong" in leaf:
        with pytest.raises(PayloadError) as caught:
            json.decode(data, Expression)
        assert len(str(caught.value)) < 2_000
    else:
        assert isinstance(json.decode(data, Expression), Add)


def test_a_constructor_that_fails_passes_the_data_on_to_the_next_member():
    @dataclass
    class Picky:
        number: str

        def __post_init__(self) -> None:
            raise KeyError(self.number)

    assert json.decode(b'{"number": "1"}', Picky | Card) == Card("1")
    assert json.decode(b'{"number": "1"}', Picky | Tagged | Card) == Card("1")
