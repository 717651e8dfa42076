"""What is local is decided by addresses, not by how names begin."""

from __future__ import annotations

import pytest

from durably.http_api.options import HttpOptions
from durably.security.loopback import is_loopback


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"])
def test_these_are_local(host: str) -> None:
    assert is_loopback(host)
    assert HttpOptions(bind=host).is_local


@pytest.mark.parametrize("host", ["127.example", "127.0.0.1.example", "0.0.0.0", "::", "10.0.0.1", "", "127"])
def test_these_are_not(host: str) -> None:
    assert not is_loopback(host)
