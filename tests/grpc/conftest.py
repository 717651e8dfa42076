"""One host for all tests of the folder: each works with ids of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.grpc.scene import Scene, serving


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with serving(tmp_path_factory.mktemp("grpc")) as scene:
        yield scene
