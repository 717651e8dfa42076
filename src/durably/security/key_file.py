"""The file that keeps the keys of a host: digests, and the secrets of links. Mode 0600, replaced as a whole.

Whoever asks looks at the file's identity first, so a key that another process has renewed stops working at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import msgspec

from durably.errors import OperationError, UsageError
from durably.security.access_keys import DEFAULT, MANAGEMENT, AccessKey, KeyKind, KeyRing, digest_of, draw_key

STANDARD: Final[tuple[tuple[KeyKind, str], ...]] = (
    ("master", "_master"),
    ("host", DEFAULT),
    ("system", MANAGEMENT),
)
"""What every host has."""


def beside(hub_url: str) -> Path | None:
    """Where the keys of a hub are: beside its file, or nowhere."""
    return _beside(hub_url, "keys")


def audit_beside(hub_url: str) -> Path | None:
    """Where the audit log of a hub is: beside its file, or nowhere."""
    return _beside(hub_url, "audit")


def _beside(hub_url: str, what: str) -> Path | None:
    path = hub_url.removeprefix("sqlite:///")
    return None if path == hub_url else Path(f"{path}.{what}")


class KeyFile:
    """Keys in a file.

    Args:
        path: The file; it is made when it is first needed. None: in memory, for as long as this object lives.
        now: The time in microseconds since 1970 UTC.
    """

    def __init__(self, path: Path | None, now: Callable[[], int]) -> None:
        self.path = path
        self._now = now
        self._seen: tuple[int, int, int] | None = None
        self._ring = KeyRing()
        self._guard = threading.Lock()

    @property
    def ring(self) -> KeyRing:
        """What the file says now.

        Raises:
            OperationError: It cannot be read; nobody gets in then.
        """
        if self.path is None:
            return self._ring
        try:
            found = os.stat(self.path)  # noqa: PTH116 - for each request, and a third of the price
        except FileNotFoundError:
            self._seen, self._ring = None, KeyRing()
            return self._ring
        identity = (found.st_ino, found.st_mtime_ns, found.st_size)
        if identity != self._seen:
            self._ring = _read(self.path, found.st_mode)
            self._seen = identity
        return self._ring

    def prepare(self) -> dict[str, str]:
        """Make the standard keys and a secret for links, where they are missing.

        Returns:
            The new keys by ``kind/name``; they are shown nowhere else.
        """
        if not self.ring.missing(STANDARD) and self.ring.signing:
            return {}
        made: dict[str, str] = {}
        with self._changing() as ring:
            for kind, name in ring[0].missing(STANDARD):
                made[f"{kind}/{name}"] = text = draw_key()
                ring[0] = ring[0].with_key(self._key(kind, name, None, text))
            if not ring[0].signing:
                ring[0] = msgspec.structs.replace(ring[0], signing=(secrets.token_hex(32),))
        return made

    def renew(self, kind: KeyKind, name: str, function: str | None = None) -> str:
        """Make a key, in the place of the one of this name; that one opens nothing any more.

        Returns:
            The key.

        Raises:
            UsageError: The name is not usable.
        """
        if not name or not name.isprintable() or "/" in name:
            raise UsageError(f"The name of a key is {name!r}: expected text without '/'")
        if (function is None) == (kind == "function"):
            raise UsageError(
                "A function key is for one function: expected its name"
                if kind == "function"
                else f"A {kind} key is for no function in particular: expected none, and got '{function}'"
            )
        text = draw_key()
        with self._changing() as ring:
            ring[0] = ring[0].with_key(self._key(kind, name, function, text))
        return text

    def delete(self, kind: KeyKind, name: str, function: str | None = None) -> None:
        """Delete a key. Raises as `KeyRing.without`."""
        with self._changing() as ring:
            ring[0] = ring[0].without(kind, name, function)

    def renew_signing(self, *, keep: int = 0) -> None:
        """Sign links with a new secret; those signed before are void, but for the last `keep` secrets."""
        with self._changing() as ring:
            kept = ring[0].signing[-keep:] if keep else ()
            ring[0] = msgspec.structs.replace(ring[0], signing=(*kept, secrets.token_hex(32)))

    def _key(self, kind: KeyKind, name: str, function: str | None, text: str) -> AccessKey:
        return AccessKey(
            kind=kind, name=name, function=function, digest=digest_of(text), created_at=self._now()
        )

    @contextlib.contextmanager
    def _changing(self) -> Generator[list[KeyRing]]:
        """The ring, to be replaced: no other process changes it meanwhile, and a crash leaves the old or the new one."""
        with self._guard, _locked(self.path):
            held = [self.ring]
            yield held
            if self.path is None:
                self._ring = held[0]
            else:
                _replace(self.path, msgspec.json.format(msgspec.json.encode(held[0])))


def _read(path: Path, mode: int) -> KeyRing:
    if mode & 0o077:
        raise OperationError(
            f"The key file '{path}' can be read by others (mode {mode & 0o777:o}): expected 600. Close it with chmod 600, "
            "and renew its keys"
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=KeyRing)
    except (OSError, msgspec.DecodeError) as error:
        raise OperationError(f"The key file '{path}' cannot be read: {error}") from None


@contextlib.contextmanager
def _locked(path: Path | None) -> Generator[None]:
    if path is None:
        yield
        return
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
