"""Pydantic models and dataclasses, alone and within other types."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Generic, TypeVar

import pytest

from durably.codec.convert import JsonConverter
from durably.errors import PayloadError

pydantic = pytest.importorskip("pydantic")
import pydantic_core  # noqa: E402
from pydantic import BaseModel, ConfigDict, Field, RootModel  # noqa: E402
from pydantic.dataclasses import dataclass as pydantic_dataclass  # noqa: E402

json = JsonConverter()
T = TypeVar("T")
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
by_name = pytest.mark.skipif(
    tuple(map(int, pydantic.VERSION.split(".")[:2])) < (2, 11),
    reason="reading by name and alias came with pydantic 2.11",
)


class Address(BaseModel):
    street: str
    since: dt.date | None = None


class Customer(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str = Field(min_length=1)
    address: Address
    tags: set[str] = set()
    limit: Decimal = Decimal("1.10")
    joined: dt.datetime = NOON


class Aliased(BaseModel):
    user_id: int = Field(alias="userId")
    full_name: str = Field("", validation_alias="fullName", serialization_alias="name")


class Company(BaseModel):
    name: str
    vat: str


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    a: int


class Ids(RootModel[list[int]]):
    pass


class Page(BaseModel, Generic[T]):
    items: list[T]


class Measured(BaseModel):
    value: float
    note: str | None = None


@dataclass
class Deal:
    customer: Customer
    others: list[Customer | Company] = field(default_factory=list)
    by_name: dict[str, Company] = field(default_factory=dict)
    backup: Address | None = None


@pydantic_dataclass
class Point:
    x: int = Field(gt=0)
    y: list[int] = Field(default_factory=list)
    data: bytes = b"\xff"
    at: Address | None = None


@pydantic_dataclass(config=ConfigDict(strict=True), frozen=True, slots=True)
class Fixed:
    when: dt.datetime
    points: list[Point] = Field(default_factory=list)
    other: Address | Company | None = None


@pydantic_dataclass
class AliasedPoint:
    x: int = Field(alias="posX")


@dataclass
class Map:
    points: dict[str, Point]


CUSTOMER = Customer(name="ada", address=Address(street="s", since=dt.date(2026, 1, 1)), tags={"x"})


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (CUSTOMER, Customer),
        (Address(street=""), Address),
        ([CUSTOMER], list[Customer]),
        (Company(name="x", vat="y"), Address | Company | None),
        (Deal(CUSTOMER, [CUSTOMER, Company(name="x", vat="y")], {"x": Company(name="x", vat="y")}), Deal),
        (Open(a=1, b=[2]), Open),
        (Ids([1, 2]), Ids),
        (Page[Address](items=[Address(street="s")]), Page[Address]),
        (Point(1), Point),
        (Point(1, [2], b"\x00", Address(street="s")), Point),
        (Fixed(NOON, [Point(1)], Address(street="s")), Fixed),
        (Map({"a": Point(1)}), Map),
        ((Point(2), None), tuple[Point, Point | None]),
        (Point(2), Point | Customer),
    ],
)
def test_models_and_dataclasses_come_back(value: Any, type_: Any):
    decoded = json.decode(json.encode(value), type_)
    assert decoded == value
    assert type(decoded) is type(value)


@by_name
def test_fields_are_written_by_name_and_read_by_name_and_alias():
    value = Aliased.model_validate({"userId": 1, "fullName": "ada"})
    assert json.decode(json.encode(value), Any) == {"user_id": 1, "full_name": "ada"}
    assert json.decode(json.encode(value), Aliased) == value
    assert json.decode(b'{"userId": 1, "fullName": "ada"}', Aliased) == value
    assert json.decode(b'[{"userId": 1, "full_name": "ada"}]', list[Aliased | Company]) == [value]


def test_aliased_fields_of_dataclasses_come_back():
    assert json.decode(b'{"posX": 3}', AliasedPoint).x == 3
    assert json.decode(json.encode(AliasedPoint(posX=3)), AliasedPoint).x == 3  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("type_", [Point, Point | None])
def test_constraints_of_pydantic_dataclasses_are_checked(type_: Any):
    with pytest.raises(PayloadError, match=r": Input should be greater than 0 - at `\$.x`$"):
        json.decode(b'{"x": 0}', type_)


def test_the_message_names_the_place_within_a_model():
    with pytest.raises(PayloadError) as caught:
        json.decode(b'{"name": "", "address": {"street": 3}}', Customer)
    assert str(caught.value) == (
        "Payload does not fit type 'Customer': String should have at least 1 character in `.name`; "
        "Input should be a valid string in `.address.street` - at `$`"
    )
    with pytest.raises(PayloadError, match=r": Input should be a valid string - at `\$\[1\].vat`$"):
        json.decode(b'[{"name": "a", "vat": "b"}, {"name": "a", "vat": 1}]', list[Company])


def test_nan_within_a_model_is_refused_and_does_not_become_null():
    with pytest.raises(PayloadError, match=r"Cannot serialize nan at \$.a.value"):
        json.encode({"a": Measured(value=float("nan"))})
    assert json.decode(json.encode(Measured(value=1.5)), Measured) == Measured(value=1.5)


def test_what_pydantic_cannot_write_is_refused():
    class Blob(BaseModel):
        data: bytes

    with pytest.raises(PayloadError, match=r"'Blob' at .*UnicodeDecodeError"):
        json.encode([Blob(data=b"\xff")])


class Even:
    """Only pydantic knows how to read it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return pydantic_core.core_schema.int_schema(multiple_of=2)


@pydantic_dataclass
class Evens:
    number: Even


def test_types_that_only_pydantic_knows_are_left_to_it():
    assert json.decode(b'{"number": 4}', Evens).number == 4
    with pytest.raises(PayloadError, match="multiple of 2"):
        json.decode(b'{"number": 3}', Evens)


@pydantic_dataclass
class Basket:
    owner: str
    items: list[str] = field(init=False, default_factory=list)


def test_late_fields_of_pydantic_dataclasses_keep_their_state():
    basket = Basket("ada")
    basket.items.append("book")
    assert json.decode(json.encode(basket), Basket) == basket
    assert json.decode(b'{"owner": "ada"}', Basket) == Basket("ada")


def test_pydantic_is_never_imported_by_the_codec():
    program = (
        "import sys; from durably.codec.convert import JsonConverter; from dataclasses import make_dataclass\n"
        "D = make_dataclass('D', [('a', int)]); c = JsonConverter(); assert c.decode(c.encode(D(1)), D | None) == D(1)\n"
        "assert not any(name.startswith('pydantic') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
