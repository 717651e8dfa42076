from __future__ import annotations

import apsw
import pytest

from durably.errors import (
    DurablyError,
    LeaseLostError,
    StoreFailedError,
    StoreRefusedError,
    StoreUnavailableError,
    UsageError,
)
from durably.storage.sqlite import connection
from durably.storage.sqlite.failures import as_store_error


def _io_error(extended: int) -> apsw.IOError:
    error = apsw.IOError("x")
    error.extendedresult = extended
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (apsw.BusyError("x"), StoreUnavailableError),
        (apsw.FullError("x"), StoreUnavailableError),
        (apsw.NoMemError("x"), StoreUnavailableError),
        (MemoryError(), StoreUnavailableError),
        (apsw.ReadOnlyError("x"), StoreUnavailableError),
        (apsw.CantOpenError("x"), StoreUnavailableError),
        (apsw.TooBigError("x"), StoreRefusedError),
        (apsw.ConstraintError("x"), StoreRefusedError),
        (apsw.MismatchError("x"), StoreRefusedError),
        (OverflowError("x"), StoreRefusedError),
        (apsw.IOError("x"), StoreFailedError),
        (_io_error(apsw.SQLITE_IOERR_SHMSIZE), StoreUnavailableError),
        (_io_error(apsw.SQLITE_IOERR_FSYNC), StoreFailedError),
        (apsw.CorruptError("x"), StoreFailedError),
        (apsw.NotADBError("x"), StoreFailedError),
        (apsw.SQLError("x"), StoreFailedError),
        (ZeroDivisionError("a bug"), StoreFailedError),
        (LeaseLostError("x"), LeaseLostError),
    ],
)
def test_each_error_has_its_meaning(error: Exception, kind: type[DurablyError]) -> None:
    translated = as_store_error(error, "/var/lib/app/hub.db")
    assert type(translated) is kind
    if translated is not error:
        assert "/var/lib/app/hub.db" in str(translated)
        assert type(error).__name__ in str(translated)


def test_a_sqlite_that_can_lose_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.check_sqlite()
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(UsageError, match=r"3\.51\.2"):
        connection.check_sqlite()
