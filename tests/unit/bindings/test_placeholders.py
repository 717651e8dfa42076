"""``{name}`` in the paths of blobs: what fills it, and what does not."""

from typing import Any

import pytest

from durably import PayloadError, RegistrationError
from durably.bindings.placeholders import Occasion, check_placeholders, placed

NOON = 1_772_452_800_000_000


def occasion(names: Any = None, origin: str = "orders:m1:5") -> Occasion:
    return Occasion(origin, NOON, lambda: names or {})


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("fixed.json", {}, "fixed.json"),
        ("{id}.json", {"id": "m1"}, "m1.json"),
        ("{ID}/{Number}.json", {"id": "m1", "number": 7}, "m1/7.json"),
        ("{customer.name}", {"customer": {"name": "ada"}}, "ada"),
        ("{Customer.NAME}", {"customer": {"name": "ada"}}, "ada"),
        ("{paid}-{price}", {"paid": True, "price": 1.5}, "true-1.5"),
        ("{name}", {"name": "{id}", "id": "m1"}, "{id}"),  # a value is no template
        ("{DateTime}", {}, "2026-03-02T12-00-00Z"),
    ],
)
def test_names_are_filled(text: str, names: dict[str, Any], expected: str) -> None:
    check_placeholders(text, "Queue function 'take'", None)
    assert placed(text, "Queue function 'take'", occasion(names)) == expected


def test_a_random_name_is_that_of_the_occasion() -> None:
    first = placed("{rand-guid}.json", "x", occasion())
    assert len(first) == 36 + 5
    assert first[14] == "4"
    assert placed("{rand-guid}.json", "x", occasion()) == first  # a later try writes over it
    assert placed("{rand-guid}.json", "x", occasion(origin="orders:m2:5")) != first
    assert placed("other/{rand-guid}", "x", occasion()) != f"other/{first[:36]}"


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        ("{name}", {"id": "m1", "item": 1}, r"'take' has \{name\}, which is not there.*id, item"),
        ("{name}", {"name": None}, "not there"),
        ("{name}", {"name": ["a"]}, "no text or number"),
        ("{a.b.c}", {"a": {"b": "text"}}, "not there"),
    ],
)
def test_what_nothing_fills_is_an_error(text: str, names: dict[str, Any], said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        placed(text, "Queue function 'take'", occasion(names))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{nmae}.json",
            r"\{nmae\}, which nothing would fill: expected \{rand-guid\}, \{DateTime\}, \{name\}",
        ),
        ("{}.json", r"\{\}, which nothing"),
        ("{name.json", "braces"),
        ("name}.json", "braces"),
        ("{{name}}", "braces"),
    ],
)
def test_what_nothing_could_ever_fill_is_found_out_before(text: str, said: str) -> None:
    check_placeholders("{NAME}-{rand-guid}-{DateTime}", "HTTP function 'save'", ["name"])
    with pytest.raises(RegistrationError, match=said):
        check_placeholders(text, "HTTP function 'save'", ["name"])
