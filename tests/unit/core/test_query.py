"""Filters, their reference meaning, and tokens of pages."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from durably.core.commit import InstanceRow
from durably.core.query import FIRST, PAGE_SIZE_MAX, InstanceQuery, Place, place_of, token_of
from durably.errors import UsageError


@pytest.mark.parametrize("place", [Place(0, 0), Place(-5, 1), Place(2**63 - 1, 7), FIRST])
def test_a_token_stands_for_its_place(place: Place) -> None:
    token = token_of(place)
    assert place_of(token) == place
    assert token.isascii()


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "not a token",
        "é",
        "====",
        base64.urlsafe_b64encode(b"p2:5").decode(),
        base64.urlsafe_b64encode(b"p1:5:5").decode(),
        base64.b64encode(b"p2:x:1").decode(),
    ],
)
def test_a_token_of_somebody_else_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="Continuation token"):
        place_of(token)


@pytest.mark.parametrize(
    ("size", "fits"), [(1, True), (PAGE_SIZE_MAX, True), (0, False), (-1, False), (1_001, False)]
)
def test_pages_have_limits(size: int, *, fits: bool) -> None:
    if fits:
        assert InstanceQuery(page_size=size).page_size == size
    else:
        with pytest.raises(UsageError, match="page_size"):
            InstanceQuery(page_size=size)


ROW = InstanceRow(
    "order-7", 1, 0, "e", "flow", None, "Running", 100, 100, None, None, None, None, None, None, False, "boss",
    b'{"team":"a","tier":"1"}', None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({}, True),
        ({"name": "flow"}, True),
        ({"name": "Flow"}, False),
        ({"statuses": ("Running", "Pending")}, True),
        ({"statuses": ("Failed",)}, False),
        ({"statuses": ()}, False),
        ({"created_from": 100}, True),
        ({"created_from": 101}, False),
        ({"created_to": 100}, True),
        ({"created_to": 99}, False),
        ({"created_from": 0, "created_to": 200}, True),
        ({"updated_from": 100}, True),
        ({"updated_from": 101}, False),
        ({"updated_to": 100}, True),
        ({"updated_to": 99}, False),
        ({"stuck": False}, True),
        ({"stuck": True}, False),
        ({"parent_instance_id": "boss"}, True),
        ({"parent_instance_id": "Boss"}, False),
        ({"instance_id_prefix": "order-"}, True),
        ({"instance_id_prefix": "Order-"}, False),
        ({"instance_id_prefix": ""}, True),
        ({"tags": {"team": "a"}}, True),
        ({"tags": {"team": "a", "tier": "1"}}, True),
        ({"tags": {"team": "a", "tier": "2"}}, False),
        ({"tags": {"other": "a"}}, False),
        ({"tags": {}}, True),
        ({"name": "flow", "tags": {"team": "b"}}, False),
    ],
)
def test_an_instance_matches_when_all_filters_do(query: dict[str, Any], *, matches: bool) -> None:
    assert InstanceQuery(**query).matches(ROW) is matches


def test_an_instance_without_tags_matches_no_tag() -> None:
    assert not InstanceQuery(tags={"team": "a"}).matches(ROW._replace(tags=None))
