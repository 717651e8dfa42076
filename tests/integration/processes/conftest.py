"""A named pipe for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.processes.bench import Pipe


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "pipe")
    yield pipe
    pipe.close()
