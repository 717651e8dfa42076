"""Properties over generated values: what goes in comes out."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.codec.convert import JsonConverter
from durably.errors import PayloadError

json = JsonConverter()


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Pair(NamedTuple):
    left: int
    right: dt.date | None


class Tag(msgspec.Struct, frozen=True):
    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Leaf:
    text: str
    number: int = 0


@dataclass
class Branch:
    kind: Color
    below: list[Leaf | Branch | Tag] = field(default_factory=list)
    pairs: dict[int, Pair] = field(default_factory=dict)


@dataclass
class Zoo:
    id: uuid.UUID
    amount: Decimal
    when: dt.datetime | dt.date | None
    lasts: dt.timedelta
    blob: bytes
    label: str | None
    flags: frozenset[Color]
    points: tuple[float, ...]
    root: Branch | Leaf
    tag: Tag | int


text = st.text()
ints = st.integers(-(2**80), 2**80)
floats = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | ints | floats | text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5),
    max_leaves=20,
)
minutes = st.integers(-23 * 60, 23 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
leaves = st.builds(Leaf, text, ints)
tags = st.builds(Tag, text, floats)
pairs = st.builds(Pair, ints, st.none() | st.dates())
branches = st.recursive(
    st.builds(Branch, st.sampled_from(Color)),
    lambda inner: st.builds(
        Branch,
        st.sampled_from(Color),
        st.lists(leaves | inner | tags, max_size=3),
        st.dictionaries(st.integers(), pairs, max_size=2),
    ),
    max_leaves=6,
)
zoos = st.builds(
    Zoo,
    id=st.uuids(),
    amount=st.decimals(allow_nan=False),
    when=st.none() | st.dates() | st.datetimes() | st.datetimes(timezones=minutes),
    lasts=st.timedeltas(),
    blob=st.binary(),
    label=st.none() | text,
    flags=st.frozensets(st.sampled_from(Color)),
    points=st.lists(floats).map(tuple),
    root=branches | leaves,
    tag=tags | ints,
)


@given(plain)
def test_plain_data_comes_back_without_a_type(value: Any):
    assert json.decode(json.encode(value), Any) == value


@given(zoos)
def test_a_zoo_of_dataclasses_comes_back(zoo: Zoo):
    data = json.encode(zoo)
    decoded = json.decode(data, Zoo)
    assert decoded == zoo
    assert type(decoded.when) is type(zoo.when)
    assert decoded.when is None or getattr(decoded.when, "tzinfo", 0) == getattr(zoo.when, "tzinfo", 0)


@given(plain, plain)
def test_what_is_equal_with_the_same_types_has_the_same_text(one: Any, other: Any):
    assert (json.encode(one) == json.encode(other)) == (repr(one) == repr(other))


@given(st.lists(st.floats() | st.none() | text, max_size=6))
def test_a_float_comes_back_or_is_refused(values: list[Any]):
    try:
        data = json.encode({"values": values})
    except PayloadError:
        assert any(isinstance(value, float) and value - value != 0 for value in values)
    else:
        assert json.decode(data, dict[str, list[float | str | None]]) == {"values": values}


@settings(max_examples=300)
@given(
    st.binary() | plain.map(json.encode),
    st.sampled_from([Any, Zoo, Branch | Leaf, list[Leaf | Tag], dict[int, Pair], str | dt.datetime]),
)
def test_any_bytes_are_read_or_refused(data: bytes, type_: Any):
    try:
        json.decode(data, type_)
    except PayloadError as error:
        assert str(error)  # noqa: PT017 - any bytes may also fit


@given(st.text(st.characters() | st.characters(categories=["Cs"]), max_size=5))
def test_text_comes_back_unless_it_has_lone_surrogates(value: str):
    try:
        data = json.encode([value, {value: value}])
    except PayloadError as error:
        assert "surrogate" in str(error)  # noqa: PT017 - other text is not refused
        assert any("\ud800" <= character <= "\udfff" for character in value)
    else:
        assert json.decode(data, Any) == [value, {value: value}]
