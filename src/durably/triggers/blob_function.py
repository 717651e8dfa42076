"""Functions that take the blobs of a container."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from copy import copy
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from durably.bindings.blobs.store import BlobEntry, BlobStore, read
from durably.bindings.connections import check_connection
from durably.bindings.function import Parameter, Source, UserFunction, is_client
from durably.bindings.outlets import Outlets
from durably.bindings.placeholders import Occasion
from durably.client import Client
from durably.config.names import filled
from durably.core.blobs import BlobItem
from durably.core.timeline import instant
from durably.errors import BrokerError, PayloadError, RegistrationError
from durably.program.durations import microseconds
from durably.triggers.blob_pattern import BlobPattern
from durably.triggers.functions import TriggerFunctions
from durably.triggers.options import BlobOptions

CONTENT_BYTES_MAX: Final = 256 * 1024 * 1024
"""A blob that is larger is not given to a function as one value."""

_NAME: Final = re.compile(r"[^/\\#?:\x00-\x20\x7f-\x9f\ud800-\udfff]{1,100}")


class UnreadableBlobError(BrokerError):
    """The blob itself could not be read: that is no fault of the function it was handed to."""


@contextmanager
def _told_apart() -> Generator[None]:
    try:
        yield
    except BrokerError as error:
        raise UnreadableBlobError(str(error)) from error


class Blob:
    """A version of a blob, as a function gets it. Reading it reads this version, or fails when it is not there any more.

    Attributes:
        container: The container.
        name: The blob.
        version: Another one whenever the blob is written.
        size: In bytes.
        modified: When it was written (aware, UTC).
        parts: The named parts of its name.
        try_count: How often the function had it, this time included; also when a process died meanwhile.
    """

    def __init__(self, item: BlobItem, parts: Mapping[str, str], try_count: int, store: BlobStore) -> None:
        self.container = item.container
        self.name = item.name
        self.version = item.version
        self.size = item.size
        self.modified: datetime = instant(item.modified_at)
        self.parts = dict(parts)
        self.try_count = try_count
        self._store = store

    async def read(self, limit: int | None = None) -> bytes:
        """The content, or the first `limit` bytes of it.

        Raises:
            BlobNotFoundError: It was deleted or overwritten meanwhile. A function need not care: this version is given up
                then, and a newer one is handled by itself.
            BrokerError: The store cannot be reached, or refuses. A function need not care either: the blob is handed out
                again later, and this was no try.
        """
        with _told_apart():
            return await read(self._store, self.container, self.name, version=self.version, limit=limit)

    async def stream(self) -> AsyncIterator[bytes]:
        """The content, piece by piece. Raises as `read`."""
        with _told_apart():
            async for piece in self._store.stream(self.container, self.name, version=self.version):
                yield piece

    def __repr__(self) -> str:
        return f"Blob({self.container}/{self.name}, version={self.version})"


class Handing(NamedTuple):
    """A version of a blob on its way to a function."""

    blob: Blob
    client: Client


async def _content(handing: Handing, parameter: Parameter) -> bytes | str:
    blob = handing.blob
    if blob.size > CONTENT_BYTES_MAX:
        raise PayloadError(
            f"Blob '{blob.container}/{blob.name}' has {blob.size:,} bytes: expected {CONTENT_BYTES_MAX:,} at most for a parameter of "
            "bytes or str; take a Blob, and stream it"
        )
    content = await blob.read()
    return content if parameter.kind is bytes else content.decode()


def _part(handing: Handing, parameter: Parameter) -> Any:
    text = handing.blob.parts[parameter.name]
    if parameter.kind in {str, Any}:
        return text
    try:
        return msgspec.convert(text, parameter.kind, strict=False)
    except msgspec.ValidationError as error:
        raise PayloadError(f"The part {{{parameter.name}}} of the name is {text!r}: {error}") from None


def _user_function(fn: Callable[..., Any], name: str | None, parts: Collection[str]) -> UserFunction[Handing]:
    return UserFunction(
        fn,
        name,
        what="Blob function",
        act="bind {} to blobs",
        sources=(
            Source[Handing](is_client, lambda handing, _: handing.client),
            Source[Handing](lambda one: one.kind is Blob, lambda handing, _: handing.blob),
            Source[Handing](lambda one: one.name in parts, _part),
            Source[Handing](lambda one: one.kind in {bytes, str}, _content, once=True),
        ),
        expected="Blob, Client, one bytes or str for the content, and parts of the path by their names",
    )


class BlobFunction:
    """A function that takes the blobs of a container.

    Attributes:
        name: Its name.
        connection: The setting that says where the container is; None: the default.
        interval_s: Seconds between two looks at the container; None: that is the store's.
        pattern: Which blobs it takes. This one, and those below, are there as far as it says so itself, and all of them in
            what `resolved` makes.
        max_tries: A blob that failed so often is told of in the poison queue.
        retry_delay_us: How long a blob that failed waits.
        max_concurrent: As many blobs may be in the function at once.
    """

    pattern: BlobPattern
    max_tries: int
    retry_delay_us: int
    max_concurrent: int

    def __init__(
        self,
        fn: Callable[..., Any],
        path: str,
        *,
        name: str | None,
        connection: str | None,
        max_tries: int | None,
        retry_delay: timedelta | float | None,
        interval: timedelta | float | None,
        max_concurrent: int | None,
    ) -> None:
        self._function = _user_function(fn, name, ())
        self.name = self._function.name
        if not _NAME.fullmatch(self.name):
            raise RegistrationError(
                f"{self._function.title} cannot have this name: expected up to 100 characters without '/', '\\', '#', '?', ':' and "
                "spaces"
            )
        for what, value in (("max_tries", max_tries), ("max_concurrent", max_concurrent)):
            if value is not None and (type(value) is not int or value < 1):
                raise RegistrationError(
                    f"Blob function '{self.name}' has {what}={value!r}: expected 1 or more"
                )
        self.connection = None if connection is None else check_connection(connection)
        self.interval_s = (
            None if interval is None else microseconds(interval, "interval", least=1) / 1_000_000
        )
        self._given = {"max_tries": max_tries, "max_concurrent": max_concurrent}
        self._retry_delay_us = (
            None if retry_delay is None else microseconds(retry_delay, "retry_delay", least=0)
        )
        self._path = path
        if type(path) is not str or path.count("%") < 2:
            self.pattern = BlobPattern(path, self._function.title)  # a mistake shows where it is made

    def resolved(self, defaults: BlobOptions, settings: Mapping[str, str] | None) -> BlobFunction:
        """The function as a host calls it: settings filled into its path, and what it does not say itself.

        Args:
            defaults: Of the host.
            settings: For ``%NAME%`` in the path; the environment by default.

        Raises:
            RegistrationError: A setting is not there, or makes no path.
        """
        found = copy(self)
        title = self._function.title
        found.pattern = BlobPattern(filled(self._path, title, settings), title)
        found.max_tries = self._given["max_tries"] or defaults.max_tries
        found.max_concurrent = self._given["max_concurrent"] or defaults.max_concurrent
        default_us = int(defaults.retry_delay_s * 1_000_000)
        found.retry_delay_us = default_us if self._retry_delay_us is None else self._retry_delay_us
        found._function = _user_function(self._function.fn, self.name, found.pattern.parts)
        return found

    def check(self, outlets: Outlets) -> None:
        """See `UserFunction.check`."""
        self._function.check(outlets, (*self.pattern.parts, "name", "container", "blobTrigger"))

    async def call(
        self, item: BlobItem, try_count: int, client: Client, store: BlobStore, outlets: Outlets
    ) -> None:
        """Hand a blob to the function; what it returns is dropped."""
        blob = Blob(item, self.pattern.match(item.name) or {}, try_count, store)
        names = {
            "name": item.name,
            "container": item.container,
            "blobTrigger": f"{item.container}/{item.name}",
        }
        occasion = Occasion(f"blob:{self.name}:{item.id}", item.modified_at, lambda: names | blob.parts)
        await self._function.call(Handing(blob, client), outlets, occasion)


def item_of(function: str, container: str, entry: BlobEntry) -> BlobItem:
    """What is recorded of a blob that was found."""
    return BlobItem(function, container, entry.name, entry.version, entry.size, entry.modified_at)


class BlobFunctions(TriggerFunctions[BlobFunction]):
    """Registered blob functions, by name: receipts are by function, so several may look at one container."""

    def key_of(self, function: BlobFunction) -> str:
        return function.name

    def refuse(self, function: BlobFunction, taken: BlobFunction) -> RegistrationError:
        return RegistrationError(
            f"Blob function '{function.name}' is registered twice: expected one function for a name, by which it is known which "
            "blobs it has had; pass another function_name='…'"
        )

    def resolved(self, defaults: BlobOptions, settings: Mapping[str, str] | None) -> BlobFunctions:
        """All of them as a host calls them. Raises as `BlobFunction.resolved`."""
        found = BlobFunctions()
        for function in self:
            found.add(function.resolved(defaults, settings))
        return found
