"""Errors of the way to a PostgreSQL server, and what they mean."""

import ssl

import asyncpg
import pytest

from durably.errors import (
    DurablyError,
    StoreFailedError,
    StoreRefusedError,
    StoreUnavailableError,
)
from durably.storage.postgres.failures import as_store_error, is_lost


def of_state(state: str) -> asyncpg.PostgresError:
    return asyncpg.PostgresError.new({"C": state, "M": "said"})


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (ssl.SSLCertVerificationError("self-signed"), StoreUnavailableError),
        (ConnectionResetError(), StoreUnavailableError),
        (asyncpg.TargetServerAttributeNotMatched("standby"), StoreUnavailableError),
        (asyncpg.ProtocolError("what is this"), StoreUnavailableError),
        (of_state("25006"), StoreUnavailableError),
        (of_state("53100"), StoreUnavailableError),
        (of_state("58030"), StoreUnavailableError),
        (of_state("XX001"), StoreFailedError),
        (of_state("42P01"), StoreFailedError),
        (asyncpg.DataError("too large"), StoreRefusedError),
        (UnicodeEncodeError("utf-8", "x", 0, 1, "no"), StoreRefusedError),
    ],
)
def test_what_an_error_means(error: Exception, meaning: type[DurablyError]) -> None:
    assert type(as_store_error(error, "postgresql://h/db")) is meaning


@pytest.mark.parametrize(
    ("state", "lost"), [("57014", False), ("57P01", True), ("25006", True), ("40001", False)]
)
def test_when_a_connection_is_of_no_use(state: str, lost: bool) -> None:
    assert is_lost(of_state(state)) is lost
