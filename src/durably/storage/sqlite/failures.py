"""What an error of SQLite means for the caller: try again, never, or stop."""

from __future__ import annotations

import errno

import apsw

from durably.errors import DurablyError, StoreFailedError, StoreRefusedError, StoreUnavailableError

_UNAVAILABLE = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.FullError,
    apsw.NoMemError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    MemoryError,
)
_REFUSED = (
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    UnicodeEncodeError,  # a lone surrogate
    OverflowError,  # an integer of more than 64 bits, or a payload of more than 2 GB
    TypeError,  # a value that is no int, str, bytes or None
)
_DAMAGED = (apsw.CorruptError, apsw.NotADBError)
_EXACT = {code: name for code, name in apsw.mapping_extended_result_codes.items() if isinstance(code, int)}
_NO_INDEX = {apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMOPEN}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def as_store_error(error: Exception, path: str, connection: apsw.Connection | None = None) -> DurablyError:
    """Translate an error; a `DurablyError` stays what it is.

    What is not known to be harmless is a `StoreFailedError`: after an I/O error the page cache of the kernel may differ
    from the disk, and a second fsync that succeeds proves nothing.

    Args:
        error: What SQLite, or the binding of a value, raised.
        path: The file, for the message.
        connection: Where it was raised; asked for the error number of the operating system.
    """
    if isinstance(error, DurablyError):
        return error
    text = f"{type(error).__name__}: {error}"
    exact = _EXACT.get(getattr(error, "extendedresult", 0))
    if exact is not None:  # "disk I/O error" alone says little
        text += f" ({exact})"
    if isinstance(error, _UNAVAILABLE) or _is_full(error, connection):
        return StoreUnavailableError(f"Hub file '{path}' is not available now: {text}; nothing was changed")
    if isinstance(error, _REFUSED):
        return StoreRefusedError(f"Hub file '{path}' cannot hold this data: {text}")
    cure = (
        "it is damaged, restore it from a backup"
        if isinstance(error, _DAMAGED)
        else "the hub must be opened anew"
    )
    return StoreFailedError(f"Hub file '{path}' failed: {text}; {cure}")


def _is_full(error: Exception, connection: apsw.Connection | None) -> bool:
    """SQLite knows ENOSPC only; a quota or a limit on file size is a full disk too. Nothing was written for sure.

    The shared index, which could not be made, holds nothing that is not in the log, and it is made when the hub is opened.
    """
    if not isinstance(error, apsw.IOError):
        return False
    exact = getattr(error, "extendedresult", 0)
    return exact in _NO_INDEX or (
        exact == apsw.SQLITE_IOERR_WRITE and connection is not None and connection.system_errno in _NO_SPACE
    )
