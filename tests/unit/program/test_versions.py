"""Which of two versions is older, and which code runs an instance."""

from __future__ import annotations

import itertools

import pytest

from durably.program.versions import Versioning, version_key

IN_ORDER = [
    None,
    "beta",
    "0.9",
    "1.0-alpha",
    "1.0-alpha.2",
    "1.0-beta",
    "1.0",
    "1.0.1",
    "1.2",
    "1.9",
    "1.10",
    "2",
    "2.0",
    "10.0",
]


@pytest.mark.parametrize(("older", "newer"), list(itertools.pairwise(IN_ORDER)))
def test_versions_have_an_order(older: str | None, newer: str) -> None:
    assert version_key(older) < version_key(newer)
    assert version_key(older) == version_key(older)


@pytest.mark.parametrize(
    ("older", "newer"), [("v1.9", "v1.10"), ("1.0rc2", "1.0rc10"), ("2026-9-1", "2026-11-01")]
)
def test_digits_compare_as_numbers_wherever_they_stand(older: str, newer: str) -> None:
    assert version_key(older) < version_key(newer)


def test_no_version_is_the_empty_one() -> None:
    assert version_key("") == version_key(None)


def chosen(rules: Versioning, version: str | None, *registered: str | None) -> str | None:
    return rules.choose({one: str(one) for one in registered}, version)


def test_code_that_is_added_takes_no_instance_away_unless_it_fits_better() -> None:
    rules = Versioning()
    assert chosen(rules, "1.5", "2.0") == "2.0"
    assert chosen(rules, "1.5", "2.0", "3.0", "1.0") == "2.0"
    assert chosen(rules, "1.5", "2.0", "1.5") == "1.5"
    assert chosen(rules, None, "2.0", "1.0") == "1.0"


def test_code_without_version_is_of_the_version_of_its_host() -> None:
    assert chosen(Versioning("1.0"), "1.0", None) == "None"
    assert chosen(Versioning("1.0"), "2.0", None) is None
    assert chosen(Versioning("1.0"), "2.0", None, "3.0") == "3.0"
    assert chosen(Versioning("1.0", match="strict"), None, None) is None
    assert chosen(Versioning(), "2.0", None, "3.0") == "None"


def test_a_new_instance_gets_a_version_that_it_can_keep() -> None:
    assert Versioning().for_new({}) is None
    assert Versioning().for_new({None: 1, "2.0": 1}) is None
    assert Versioning().for_new({"1.9": 1, "1.10": 1}) == "1.10"
    assert Versioning("3.0").for_new({None: 1, "2.0": 1}) == "3.0"
    assert Versioning("3.0").for_new({"2.0": 1}) == "2.0"
    assert Versioning("3.0", "1.0").for_new({None: 1, "2.0": 1}) == "1.0"
