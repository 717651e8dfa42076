"""Round trips by annotation, for every kind of type that a user may declare."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import pathlib
import re
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)

import msgspec
import pytest

from durably.codec import convert, plan
from durably.codec.convert import Converter, JsonConverter
from durably.errors import PayloadError

json: Converter = JsonConverter()
T = TypeVar("T")
N = TypeVar("N", int, str)
UTC = dt.UTC


def round_trip(value: Any, type_: Any) -> Any:
    data = json.encode(value)
    assert isinstance(data, bytes)
    decoded = json.decode(data, type_)
    assert decoded == value
    assert type(decoded) is type(value)
    assert json.encode(decoded) == data
    return decoded


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Unit(enum.StrEnum):
    METER = "m"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Odd(enum.Enum):
    HALF = 0.5
    PAIR = (1, 2)
    NOTHING = None
    TRUTH = True


@dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: str = "EUR"


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    price: Money
    quantity: int = 1
    tags: list[str] = field(default_factory=list)


@dataclass
class Order:
    id: uuid.UUID
    lines: list[Line]
    placed: dt.datetime
    _: KW_ONLY
    note: str | None = None
    by_sku: dict[str, Line] = field(default_factory=dict)
    box: tuple[int, int, float] = (0, 0, 0.0)
    levels: tuple[Level, ...] = ()
    color: Color | None = None


@dataclass
class Node:
    name: str
    children: list[Node] = field(default_factory=list)


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Crate(Box[list[T]], Generic[T]):
    label: T


@dataclass
class Numbered(Generic[N]):
    number: N


class Pair(NamedTuple):
    left: int
    right: Line | None = None


class Options(TypedDict, total=False):
    name: Required[str]
    when: dt.date


class Filter(TypedDict):
    name: str
    when: NotRequired[dt.date]


class Circle(msgspec.Struct, tag=True, frozen=True):
    radius: float


class Square(msgspec.Struct, tag="sq"):
    side: float


class Compact(msgspec.Struct, array_like=True, rename="camel", omit_defaults=True):
    first_name: str
    born_on: dt.date | None = None


class Temperature:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Temperature) and other.degrees == self.degrees

    def __hash__(self) -> int:
        return hash(self.degrees)

    def to_json(self) -> Any:
        return {"degrees": self.degrees}

    @classmethod
    def from_json(cls, data: Any) -> Temperature:
        return cls(data["degrees"])


class AzureStyle:
    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AzureStyle) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    @staticmethod
    def to_json(value: AzureStyle) -> str:
        return value.text

    @staticmethod
    def from_json(data: str) -> AzureStyle:
        return AzureStyle(data)


class Sku(str):
    __slots__ = ()


class Count(int):
    pass


class Ratio(float):
    pass


class Bag(list[Any]):
    pass


class Moment(dt.datetime):
    pass


class Day(dt.date):
    pass


class DriverUuid(uuid.UUID):
    pass


UserId = NewType("UserId", int)
LINE = Line("A", Money(Decimal("1.10")), 2, ["x"])


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (0, int),
        ("", str),
        ([], list[int]),
        ({}, dict[str, int]),
        (False, bool),
        (0.0, float),
        (None, None),
        (None, type(None)),
        (None, int | None),
        (0, int | None),
        ((), tuple[int, ...]),
        ((), tuple[()]),
        (set(), set[int]),
        (b"", bytes),
        (dt.timedelta(), dt.timedelta),
        (Decimal(0), Decimal),
        (Right(0), Right),
    ],
)
def test_falsy_values_survive(value: Any, type_: Any):
    round_trip(value, type_)


@pytest.mark.parametrize("value", [None, 0, "", [], {}, False, 0.0, [None], {"a": None}, {"": ""}])
def test_falsy_values_survive_without_a_type(value: Any):
    round_trip(value, Any)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), dt.datetime),
        (dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))), dt.datetime),
        (dt.datetime(2026, 1, 2, 3, 4, 5), dt.datetime),  # noqa: DTZ001 - naive ones stay naive
        (dt.date(2026, 1, 2), dt.date),
        (dt.time(3, 4, 5, 6), dt.time),
        (dt.time(3, 4, tzinfo=UTC), dt.time),
        (dt.timedelta(days=-3, microseconds=7), dt.timedelta),
        (dt.timedelta.max, dt.timedelta),
        (Decimal("1.10"), Decimal),
        (Decimal("1E+400"), Decimal),
        (Decimal("Infinity"), Decimal),
        (uuid.UUID(int=7), uuid.UUID),
        (b"\x00\xff", bytes),
        (bytearray(b"\x00\xff"), bytearray),
        (Color.RED, Color),
        (Level.HIGH, Level),
        (Unit.METER, Unit),
        (Right.READ | Right.WRITE, Right),
        (Odd.HALF, Odd),
        (Odd.PAIR, Odd),
        (Odd.NOTHING, Odd),
        (Odd.TRUTH, Odd),
        ("a", Literal["a", 1]),
        (Color.BLUE, Literal[Color.BLUE]),
        (True, Literal[True]),
        (2**63, int),
        (2**64, int),
        (-(2**70), int),
        (10**400, int),
        ("\x00\u2028\U0001f600", str),
        (1e308, float),
        (5e-324, float),
        (-0.0, float),
    ],
)
def test_scalars_come_back(value: Any, type_: Any):
    round_trip(value, type_)


@pytest.mark.parametrize("value", [2**64, -(2**64), [2**200], {"a": 2**63, "b": None}])
def test_ints_beyond_64_bits_come_back_without_a_type(value: Any):
    round_trip(value, Any)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        ([1, 2], list[int]),
        ([dt.date(2026, 1, 1)], Sequence[dt.date]),
        ((1, "a", None), tuple[int, str, float | None]),
        ((Level.LOW, Level.HIGH), tuple[Level, ...]),
        ({1, 2}, set[int]),
        (frozenset({Color.RED}), frozenset[Color]),
        ({"a": {"b": [1]}}, dict[str, dict[str, list[int]]]),
        ({1: "a"}, dict[int, str]),
        ({Level.LOW: 1}, dict[Level, int]),
        ({uuid.UUID(int=7): 1}, dict[uuid.UUID, int]),
        ({dt.date(2026, 1, 1): 1}, dict[dt.date, int]),
        ({1.5: 1}, dict[float, int]),
        ({1: LINE}, Mapping[int, Line]),
        (collections.deque([1, 2]), collections.deque[int]),
        (collections.deque([1, 2]), collections.deque),
        (collections.OrderedDict(a=1), collections.OrderedDict[str, int]),
        (collections.Counter(a=2), collections.Counter[str]),
        (collections.Counter(a=2), collections.Counter),
        (collections.defaultdict(None, a=1), collections.defaultdict[str, int]),
        ([1, 2], Iterable[int]),
        ([LINE, None], list[Line | None]),
        ([1, "a", None, {"b": []}], list[Any]),
    ],
)
def test_containers_come_back(value: Any, type_: Any):
    round_trip(value, type_)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (LINE, Line),
        (
            Order(
                uuid.UUID(int=1),
                [LINE],
                dt.datetime(2026, 1, 1, tzinfo=UTC),
                note="",
                by_sku={"A": LINE},
                box=(1, 2, 0.5),
                levels=(Level.LOW,),
                color=Color.BLUE,
            ),
            Order,
        ),
        (Order(uuid.UUID(int=1), [], dt.datetime(2026, 1, 1, tzinfo=UTC)), Order),
        (Node("a", [Node("b"), Node("c", [Node("d")])]), Node),
        (Box(3), Box[int]),
        (Box(dt.date(2026, 1, 1)), Box[dt.date]),
        (Box([LINE]), Box[list[Line]]),
        (Crate([dt.date(2026, 1, 1)], dt.date(2026, 1, 2)), Crate[dt.date]),
        (Numbered(1), Numbered[int]),
        (Pair(1, LINE), Pair),
        (Pair(1), Pair),
        (Circle(1.5), Circle),
        (Square(2.0), Circle | Square),
        (Compact("Ada", dt.date(1815, 12, 10)), Compact),
        (Compact("Ada"), Compact),
    ],
)
def test_records_come_back(value: Any, type_: Any):
    round_trip(value, type_)


def test_typed_dicts_come_back():
    round_trip({"name": "a", "when": dt.date(2026, 1, 1)}, Options)
    round_trip({"name": "a"}, Filter)
    with pytest.raises(PayloadError, match="required field `name`"):
        json.decode(b"{}", Options)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (UserId(3), UserId),
        ([UserId(3)], list[UserId]),
        (3, Annotated[int, "a comment"]),
        (LINE, Annotated[Line, ["has no hash"]]),
        (3, Annotated[int, msgspec.Meta(ge=0)]),
    ],
)
def test_new_types_and_annotated_are_transparent(value: Any, type_: Any):
    round_trip(value, type_)


def test_constraints_of_annotated_are_checked():
    with pytest.raises(PayloadError, match=">= 0"):
        json.decode(b"-3", Annotated[int, msgspec.Meta(ge=0)])


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (Temperature(1.5), Temperature),
        ([Temperature(1.5)], list[Temperature]),
        (Box(Temperature(1.5)), Box[Temperature]),
        (None, Temperature | None),
        (AzureStyle("x"), AzureStyle),
        ({Sku("a"): Sku("b")}, dict[Sku, Sku]),
        (Count(3), Count),
        (Ratio(0.5), Ratio),
        (Bag([1]), Bag),
        (pathlib.PurePosixPath("/a/b"), pathlib.PurePosixPath),
        (pathlib.Path("a"), pathlib.Path),
    ],
)
def test_classes_with_their_own_json_paths_and_subclasses_come_back(value: Any, type_: Any):
    assert json.decode(json.encode(value), type_) == value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Moment(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00Z"),
        (Day(2026, 1, 2), "2026-01-02"),
        (DriverUuid(int=7), str(uuid.UUID(int=7))),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (range(3), [0, 1, 2]),
        ({"a": 1}.keys(), ["a"]),
        (Sku("a"), "a"),
        (Ratio(0.5), 0.5),
    ],
)
def test_relatives_of_known_types_are_written_like_them(value: Any, plain: Any):
    assert json.decode(json.encode(value), Any) == plain


@dataclass
class Cart:
    owner: str
    items: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.items = []


def test_fields_that_post_init_begins_keep_their_later_state():
    cart = Cart("ada")
    cart.items.append("book")
    assert round_trip([cart], list[Cart])[0].items == ["book"]
    assert json.decode(b'{"owner": "bob"}', Cart) == Cart("bob")


@dataclass
class Scaled:
    base: int
    factor: InitVar[int] = 2
    scaled: int = field(init=False, default=0)

    def __post_init__(self, factor: int) -> None:
        self.scaled = self.base * factor


def test_init_vars_take_their_defaults():
    assert json.decode(b'{"base": 3}', Scaled).scaled == 6
    round_trip(Scaled(3, 5), Scaled)


def test_post_init_validates_what_is_read():
    @dataclass
    class Positive:
        number: int

        def __post_init__(self) -> None:
            if self.number < 0:
                raise ValueError("must not be negative")

    with pytest.raises(PayloadError, match=r"'list\[Positive\]': must not be negative - at `\$\[0\]`"):
        json.decode(b'[{"number": -1}]', list[Positive])


def test_frozen_slotted_and_defaulted_fields_work_where_forms_read_them():
    @dataclass(frozen=True, slots=True)
    class Event:
        what: Line | Money
        many: list[Line | Money] = field(default_factory=list)
        when: dt.datetime | str = "never"

    sys.modules[__name__].__dict__["Event"] = Event
    round_trip(Event(LINE), Event)
    round_trip(Event(LINE, [LINE, Money(Decimal(1))], dt.datetime(2026, 1, 1, tzinfo=UTC)), Event)


class Shape(msgspec.Struct, array_like=True, tag="shape", frozen=True):
    inner: Line | Money
    size: int = 3


class Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    the_inner: Line | Money


class Listing(NamedTuple):
    first: Line | Money
    rest: tuple[Line | Money, ...] = ()


class Bin(TypedDict):
    inner: Line | Money
    depth: NotRequired[int]


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (Shape(LINE), Shape),
        (Shape(Money(Decimal(1)), 4), Shape),
        (Strict(LINE), Strict),
        (Listing(LINE), Listing),
        (Listing(LINE, (Money(Decimal(1)),)), Listing),
        ({"inner": LINE, "depth": 1}, Bin),
        (Box(LINE), Box[Line | Money]),
        (Crate([LINE], Money(Decimal(1))), Crate[Line | Money]),
        ({1: [LINE]}, dict[int, list[Line | Money]]),
        ({Sku("a"): LINE}, dict[Sku, Line | Money]),
        ((LINE, Money(Decimal(1))), tuple[Line | Money, Money | Line]),
        (collections.deque([LINE]), collections.deque[Line | Money]),
        ([Temperature(1.0), LINE], list[Temperature | Line]),
    ],
)
def test_records_and_containers_of_what_msgspec_refuses_come_back(value: Any, type_: Any):
    assert json.decode(json.encode(value), type_) == value


class Parts(TypedDict, total=False):
    first: Required[Line | Money]
    second: Line | Money


def test_required_keys_are_known_where_annotations_are_text():
    round_trip({"first": LINE}, Parts)
    round_trip({"first": LINE, "second": LINE}, Parts)
    with pytest.raises(PayloadError, match="missing required field `first`"):
        json.decode(b"{}", Parts)


def test_names_of_types_in_messages_are_short():
    type_ = dict[str, tuple[Annotated[Box[Line], "x"], ...] | Literal["a"] | None]
    with pytest.raises(
        PayloadError, match=re.escape("'dict[str, tuple[Box[Line], ...] | Literal['a'] | None]'")
    ):
        json.decode(b"3", type_)


@pytest.mark.parametrize(
    ("data", "type_", "message"),
    [
        (b"[3, 4]", tuple[int, Line | Money], r"no member fits .* - at `\$\[1\]`"),
        (b"3", tuple[int, Line | Money], "Expected `array`, got `int`"),
        (b'["other", {}]', Shape, r"Invalid value 'other' - at `\$.type`"),
        (b'{"theInner": {"amount": "1"}, "more": 1}', Strict, "unknown field `more`"),
        (b'{"the_inner": {"amount": "1"}}', Strict, "missing required field `theInner`"),
        (b"[1, 2, 3, 4]", Listing, "no member fits"),
        (b'[{"amount": "1"}, [], 3]', Listing, "unknown field `2`"),
        (b'{"inner": 3}', Bin, r"no member fits .* - at `\$.inner`"),
        (b"3", Listing, "Expected `array`, got `int`"),
        (b"[]", dict[str, Line | Money], "Expected `object`, got `array`"),
        (b'{"a": 1}', dict[int, Line | Money], "Expected `int`"),
        (b'{"1": 1}', dict[int, Line | Money], r"- at `\$\[1\]`"),
        (b"[1]", tuple[Line | Money, int], "length 2, got 1"),
        (b'[{"content": 1}]', set[Box[Line | int]], "TypeError: unhashable type: 'Box'"),
    ],
)
def test_misfits_are_refused_where_forms_read(data: bytes, type_: Any, message: str):
    with pytest.raises(PayloadError, match=message):
        json.decode(data, type_)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is of Python 3.12")
def test_type_aliases_may_be_generic_and_recursive():
    names: dict[str, Any] = {"dt": dt}
    code = "type Tree = dict[str, Tree] | list[Tree] | dt.date | int\ntype Many[X] = list[X]\ntype Line2 = Many[dt.date]"
    exec(code, names)
    round_trip({"a": [1, {"b": dt.date(2026, 1, 1)}]}, names["Tree"])
    round_trip([dt.date(2026, 1, 1)], names["Line2"])
    round_trip([dt.date(2026, 1, 1), 3], names["Many"][dt.date | int])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is of Python 3.12")
def test_generic_classes_in_the_syntax_of_python_3_12_come_back():
    code = """
from __future__ import annotations
@dataclass
class Parcel[X]:
    content: X
    more: Parcel[X] | Line | None = None
"""
    exec(code, globals())
    parcel = globals()["Parcel"]
    round_trip(parcel(Money(Decimal(1)), parcel(LINE, LINE)), parcel[Line | Money])


def test_a_class_within_a_function_may_mean_itself():
    @dataclass
    class Tree:
        children: list[Tree]

    round_trip(Tree([Tree([])]), Tree)


def test_unfilled_type_variables_take_their_bound_constraints_or_anything():
    assert json.decode(b'{"content": [1]}', Box) == Box([1])
    assert json.decode(b'{"number": "a"}', Numbered) == Numbered("a")
    with pytest.raises(PayloadError):
        json.decode(b'{"number": []}', Numbered)


def test_unknown_fields_are_ignored_so_that_old_readers_take_new_payloads():
    assert json.decode(b'{"amount": "1", "new": true}', Money) == Money(Decimal(1))


def test_without_a_type_plain_data_comes_back():
    value = {"when": dt.date(2026, 1, 1), 1: (1, 2)}
    assert json.decode(json.encode(value), Any) == {"when": "2026-01-01", "1": [1, 2]}
    assert json.decode(json.encode(LINE), object)["sku"] == "A"


def test_encoding_is_compact_utf8_in_the_order_of_the_value():
    assert json.encode({"b": 1, "a": "é"}) == '{"b":1,"a":"é"}'.encode()


def test_equal_types_that_declare_another_order_are_read_differently():
    first, second = list[int] | set[int], set[int] | list[int]
    assert first == second
    assert json.decode(b"[1]", first) == [1]
    assert json.decode(b"[1]", second) == {1}
    assert json.decode(b"[1]", list[int] | set[int]) == [1]
    assert json.decode(b"[[1]]", list[first]) == [[1]]
    assert json.decode(b"[[1]]", list[second]) == [{1}]


def test_the_memory_of_types_is_bounded():
    for number in range(convert.READERS_CACHED_MAX + 10):
        cls = dataclasses.make_dataclass(f"D{number}", [("a", int)])
        assert json.decode(b'{"a": 1}', cls) == cls(1)
    assert len(convert._readers) <= convert.READERS_CACHED_MAX
    assert len(convert._equal_readers) <= convert.READERS_CACHED_MAX
    assert len(plan._hooked) <= plan.FORMS_CACHED_MAX


def test_a_type_made_anew_for_each_call_is_learned_once():
    before = len(convert._equal_readers)
    for _ in range(20):
        json.decode(b"[[1]]", list[list[Level]])
    assert len(convert._equal_readers) == before + 1


def test_a_payload_that_is_too_large_is_refused_by_its_size():
    small = JsonConverter(max_bytes=10)
    assert small.encode("x" * 8) == b'"xxxxxxxx"'
    with pytest.raises(PayloadError, match=r"11 bytes as JSON: expected 10 at most"):
        small.encode("x" * 9)
    with pytest.raises(PayloadError, match=r"expected 16,777,216 at most"):
        JsonConverter().encode("x" * (64 << 20))
