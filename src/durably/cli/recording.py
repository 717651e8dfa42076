"""What the command line changes of who may do what, in the audit log of the host."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from durably.cli.settings import settings_here

if TYPE_CHECKING:
    from durably.security.audit_chain import AuditRecord

_OFF = frozenset(("0", "false", "no", "off"))


@contextmanager
def recorded(hub: str, action: str, target: dict[str, str]) -> Generator[None]:
    """Carry out what is inside, and leave one record of it, also when it fails.

    Args:
        hub: The URL of the hub.
        action: What is done.
        target: What it is about.

    Raises:
        OperationError: The log cannot be written: nothing was done.
    """
    from durably.errors import DurablyError
    from durably.storage.open import hub_name

    settings = settings_here()
    path = _path(hub, settings)
    if path is None:
        yield
        return
    name = settings.get("DURABLY_HTTP_HUB_NAME") or hub_name(hub)
    bytes_max = settings.get("DURABLY_HTTP_AUDIT_MAX_BYTES", "")
    _try(path)
    try:
        yield
    except DurablyError as error:
        _write(path, bytes_max, _record(name, action, target, 400, type(error).__name__))
        raise
    _write(path, bytes_max, _record(name, action, target, 200, None))


def _path(hub: str, settings: Mapping[str, str]) -> Path | None:
    from durably.security.key_file import audit_beside

    if settings.get("DURABLY_HTTP_AUDIT", "").strip().lower() in _OFF:
        return None
    given = settings.get("DURABLY_HTTP_AUDIT_FILE")
    return Path(given) if given else audit_beside(hub)


def _try(path: Path) -> None:
    from durably.errors import OperationError

    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise OperationError(
            f"The audit log '{path}' cannot be written ({error.strerror or error}): nothing was changed. Look at the disk "
            "and at who owns the file"
        ) from None


def _write(path: Path, bytes_max: str, record: AuditRecord) -> None:
    import asyncio

    from durably.security.audit_log import BYTES_MAX, AuditLog

    async def write() -> None:
        log = AuditLog(path, int(bytes_max) if bytes_max.isdecimal() else BYTES_MAX)
        try:
            await log.append(record)
        finally:
            await log.close()

    asyncio.run(write())


def _record(hub: str, action: str, target: dict[str, str], status: int, error: str | None) -> AuditRecord:
    from durably.clock import SystemClock, SystemRandom
    from durably.core.timeline import instant
    from durably.security.audit_chain import AuditRecord, shortened

    return AuditRecord(
        at=instant(SystemClock().now()).isoformat(timespec="microseconds"),
        who=f"user {_user()}",
        via="cli",
        hub=hub,
        action=action,
        target={name: shortened(value) for name, value in target.items()},
        status=status,
        error=error,
        request=SystemRandom().token(),
    )


def _user() -> str:
    """Of the operating system, not of an environment that anybody may set."""
    import pwd

    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
