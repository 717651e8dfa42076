"""Closes what a test leaves running."""

from collections.abc import Iterator

import pytest

from tests.unit.program.harness import close_all


@pytest.fixture(autouse=True)
def _close_plays() -> Iterator[None]:
    yield
    close_all()
