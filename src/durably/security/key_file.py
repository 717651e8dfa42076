"""The file that keeps the keys of a host: digests, and the secrets of links. Mode 0600, replaced as a whole.

Whoever asks looks at the file's identity first, so a key that another process has renewed stops working at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec

from durably.errors import OperationError, UsageError
from durably.security.access_keys import (
    AZURE_KINDS,
    AccessKey,
    KeyKind,
    KeyRing,
    digest_of,
    draw_key,
    no_such_key,
)
from durably.security.roles import ROLES

_NAME_CHARS_MAX = 100


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
        self._reading = (
            threading.Lock()
        )  # threads ask, too: what was read and what it was read from stay together

    @property
    def ring(self) -> KeyRing:
        """What the file says now. Any thread may ask.

        Raises:
            OperationError: It cannot be read; nobody gets in then.
        """
        if self.path is None:
            return self._ring
        with self._reading:
            try:
                found = os.stat(self.path)  # noqa: PTH116 - for each request, and a third of the price
            except FileNotFoundError:
                self._seen, self._ring = None, KeyRing()
                return self._ring
            except OSError as error:
                raise _unusable(self.path, "read", error) from None
            identity = (found.st_ino, found.st_mtime_ns, found.st_size)
            if identity != self._seen:
                self._ring = _read(self.path, found.st_mode)
                self._seen = identity
            return self._ring

    def prepare(self, *, shut: bool = False) -> None:
        """Make a secret for links, where there is none. That is no key: keys are made by people.

        Args:
            shut: Where there is no file, there should have been one: keys are asked for from now on.

        Raises:
            OperationError: The file cannot be read or written. So do all others that change it.
        """
        if self.ring.signing:
            return
        with self._changing() as ring:
            if not ring[0].signing:
                closed = ring[0].closed or shut
                ring[0] = msgspec.structs.replace(ring[0], signing=(secrets.token_hex(32),), closed=closed)

    def create(self, name: str, role: str) -> str:
        """Make a key with a role.

        Returns:
            The key; it is shown nowhere else.

        Raises:
            UsageError: The name is not usable or taken, or there is no such role.
        """
        _check_name(name)
        if name in AZURE_KINDS:
            raise UsageError(
                f"'{name}' is a kind of keys ('durably keys renew {name}'): expected another name"
            )
        if role not in ROLES:
            raise UsageError(f"The role of key '{name}' is {role!r}: expected one of {', '.join(ROLES)}")
        text = draw_key()
        with self._changing() as ring:
            there = ring[0].with_role(name)
            if there is not None:
                raise UsageError(
                    f"There is a key '{name}' (role {there.role}): expected another name. 'durably keys renew {name}' replaces "
                    "its secret, and to give it another role, delete it first"
                )
            ring[0] = ring[0].with_key(self._key("role", name, None, text, role))
        return text

    def renew(self, kind: KeyKind, name: str, function: str | None = None) -> str:
        """Make a key, in the place of the one of this name; that one opens nothing any more.

        A key with a role keeps it, and has to be there.

        Returns:
            The key.

        Raises:
            UsageError: The name is not usable, or there is no key to take a role from.
        """
        _check_name(name)
        if (function is None) == (kind == "function"):
            raise UsageError(
                "A function key is for one function: expected its name"
                if kind == "function"
                else f"A {kind} key is for no function in particular: expected none, and got '{function}'"
            )
        text = draw_key()
        with self._changing() as ring:
            there = ring[0].with_role(name) if kind == "role" else None
            if kind == "role" and there is None:
                raise no_such_key(kind, name)
            ring[0] = ring[0].with_key(self._key(kind, name, function, text, there and there.role))
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

    def _key(self, kind: KeyKind, name: str, function: str | None, text: str, role: str | None) -> AccessKey:
        digest, now = digest_of(text), self._now()
        return AccessKey(kind=kind, name=name, function=function, role=role, digest=digest, created_at=now)

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


class Glance:
    """Looks at the keys once for all that is asked in one step of the event loop: those who ask then ask at the same time.

    A thread has no such step, and looks each time.

    Args:
        keys: What is looked at.
    """

    def __init__(self, keys: KeyFile) -> None:
        self._keys = keys
        self._seen: tuple[asyncio.AbstractEventLoop, KeyRing] | None = None

    def __call__(self) -> KeyRing:
        """The keys of now. Raises as `KeyFile.ring`."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._keys.ring
        seen = self._seen
        if seen is not None and seen[0] is loop:  # what another loop has seen, that one forgets
            return seen[1]
        ring = self._keys.ring
        loop.call_soon(self._look_away)
        self._seen = loop, ring
        return ring

    def _look_away(self) -> None:
        self._seen = None


def _check_name(name: str) -> None:
    if not name.strip() or not name.isprintable() or "/" in name or len(name) > _NAME_CHARS_MAX:
        raise UsageError(
            f"The name of a key is {name[: _NAME_CHARS_MAX + 1]!r}: expected text without '/', {_NAME_CHARS_MAX} characters at most"
        )


def _read(path: Path, mode: int) -> KeyRing:
    if mode & 0o077:
        raise OperationError(
            f"The key file '{path}' can be read by others (mode {mode & 0o777:o}): expected 600. Close it with chmod 600, "
            "and renew its keys"
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=KeyRing)
    except msgspec.DecodeError as error:
        raise OperationError(f"The key file '{path}' cannot be read: {error}") from None
    except OSError as error:
        raise _unusable(path, "read", error) from None


def _unusable(path: Path, how: str, error: OSError) -> OperationError:
    return OperationError(
        f"The key file '{path}' cannot be {how} ({error.strerror or error}): expected one of the user who runs this (id "
        f"{os.geteuid()}), in a folder where that one may write. Look at who owns both (chown), or name another file in "
        "DURABLY_HTTP_KEY_FILE"
    )


@contextlib.contextmanager
def _locked(path: Path | None) -> Generator[None]:
    if path is None:
        yield
        return
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = _opened(lock, path)
    except OSError as error:
        raise _unusable(lock, "written", error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _opened(lock: Path, path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError):
        return _made(lock, flags, path)
    return os.open(lock, flags)


def _made(new: Path, flags: int, path: Path) -> int:
    """A file that was not there, of the one who owns `path`: what root changes is still there for the user of the host."""
    descriptor = os.open(new, flags | os.O_CREAT | os.O_EXCL, 0o600)
    with contextlib.suppress(OSError):  # there is none yet, or we may not give files away
        there = path.stat()
        os.fchown(descriptor, there.st_uid, there.st_gid)
    return descriptor


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(_made(draft, os.O_WRONLY | os.O_CLOEXEC, path), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _settle(path.parent)
    except OSError as error:
        raise _unusable(path, "written", error) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """A key that was made is there after a power loss, and one that was deleted is not: the new name is on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
