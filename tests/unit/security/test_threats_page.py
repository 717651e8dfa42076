"""The page of threats names tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "security.md"

THREATS = ("S01", "S02", "S03", "S04", "S05", "S06", "S08", "S09", "S15", "S16", "S17", "S19", "S20", "S21")


def test_each_threat_has_tests_and_each_test_is_there() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")][2:]
    named: set[str] = set()
    for row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert tests, row
        assert "tests/" not in re.sub(r"`tests/[\w/]+\.py::test_\w+`", "", row), row
        for file, test in tests:
            assert re.search(rf"def {test}\(", (ROOT / file).read_text()), f"{file}::{test}"
        named |= set(re.findall(r"S\d\d", row.split("|")[1]))
    assert named == set(THREATS)
