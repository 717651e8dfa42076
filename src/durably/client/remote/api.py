"""Requests to a host."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncGenerator
from functools import partial
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import httpx

from durably.client.remote.answer import Answer
from durably.client.remote.refused import PROBLEM, error_of
from durably.errors import HubSilentError, OperationError, UsageError

BASE: Final = "/runtime/webhooks/durabletask"
V1: Final = "/api/v1"

TIMEOUT_S: Final = 60.0
"""So long a host may take to answer."""

PATIENCE_S: Final = 20.0
"""A host that has answered before may be away for so long, or busy: it is restarted, perhaps."""

_PAUSE_S, _PAUSE_MAX_S = 0.05, 1.0

_AWAY: Final = frozenset((502, 503, 504))
"""What a proxy says while the host behind it is restarted, and a host while it cannot reach its hub."""

_LOCAL: Final = frozenset(("localhost", "127.0.0.1", "::1"))


class HostApi:
    """Asks one host. Follows no redirects, so the credential goes nowhere else.

    A request that changes something is sent once: without an answer nobody knows whether it was heard. Sent again is what
    was not sent (the host could not be reached, no connection was free), was turned away (429), or changes nothing (also
    when the answer is 502, 503 or 504); for `PATIENCE_S`, and only to a host that has answered before.

    Args:
        url: Where the host is, such as ``http://127.0.0.1:7071``; the path of a proxy before it may be included.
        key: A key of the host; None where none is asked for.
        ca: A PEM file with the authorities that may vouch for the host; None: those of ``SSL_CERT_FILE``, or the usual ones.
        token: A bearer token in the place of a key.

    Raises:
        UsageError: The URL is none, or the file cannot be read.
    """

    def __init__(
        self, url: str, key: str | None = None, ca: str | None = None, *, token: str | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(f"URL {url!r} names no host: expected http://127.0.0.1:7071 or https://…")
        if parts.username is not None:
            raise UsageError("The URL holds a user: expected none. Give the key with --key or DURABLY_KEY")
        self.url = url.rstrip("/")
        headers = {"x-functions-key": key} if key else {}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self._known = False
        self._streaming: httpx.AsyncClient | None = None
        self._new = partial(
            httpx.AsyncClient,
            headers=headers,
            timeout=TIMEOUT_S,
            trust_env=parts.hostname not in _LOCAL,
            verify=_trusted(ca) if parts.scheme == "https" else True,
        )
        try:
            self._client = self._new()
        except UnicodeEncodeError:
            raise UsageError(
                "The key or token holds a character that no header may have: expected ASCII"
            ) from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        await self._client.aclose()
        if self._streaming is not None:
            await self._streaming.aclose()

    async def manage(
        self, method: str, *path: str, about: dict[str, str] | None = None, **more: Any
    ) -> Answer:
        """A request of the management API of Durable Functions. See `ask`."""
        return await self._granted(method, self.managed(*path), about, more)

    async def ask(self, method: str, *path: str, about: dict[str, str] | None = None, **more: Any) -> Answer:
        """A request of ``/api/v1``.

        Args:
            method: GET, POST, DELETE.
            path: Its segments; they are escaped.
            about: What it is about, for errors.
            more: ``params``, ``json``, ``content``, ``headers``.

        Raises:
            DurablyError: It was refused, or nobody answered.
        """
        return await self._granted(method, self._at(V1, path), about, more)

    async def ask_or_none(self, absent: str, method: str, *path: str) -> Answer | None:
        """The same; None for a problem of a kind that says that there is none."""
        answer = await self.send(method, self._at(V1, path), patient=True)
        if answer.status == 404 and f"{PROBLEM}{absent}".encode() in answer.body:
            return None
        if answer.status >= 300:
            raise error_of(answer)
        return answer

    async def _granted(self, method: str, url: str, about: dict[str, str] | None, more: Any) -> Answer:
        answer = await self.send(method, url, patient=True, **more)
        if answer.status >= 300:
            raise error_of(answer, **(about or {}))
        return answer

    async def send(self, method: str, url: str, *, patient: bool = False, **more: Any) -> Answer:
        """A request, whatever the answer says.

        Args:
            method: GET, POST, DELETE.
            url: Where.
            patient: Send it again where that is safe; see above.
            more: As in `ask`.

        Raises:
            HubSilentError: It was sent, and there was no answer: it may have been done or not.
            OperationError: Nobody answers there.
        """
        tries = _Tries()
        while True:
            try:
                answer = await self._client.request(method, url, **more)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                await self._after(error, tries if patient else None, changes=method != "GET")
                continue
            if not (patient and self._may_repeat(method, answer) and await tries.again(_retry_after(answer))):
                return Answer(answer.status_code, answer.headers, answer.content)

    async def stream(
        self, method: str, *path: str, about: dict[str, str] | None = None, **more: Any
    ) -> AsyncGenerator[str]:
        """The lines of an answer of ``/api/v1`` that goes on for as long as the host wants. Status 204 has none.

        Raises:
            HubSilentError: It was cut off. Nothing is sent again but what was turned away.
            DurablyError: See `ask`.
        """
        tries, answered = _Tries(), False
        url = self._at(V1, path)
        while True:
            try:
                async with self._streams.stream(method, url, **more) as answer:
                    answered = True
                    may_repeat = self._may_repeat(method, answer)
                    if answer.status_code >= 300:
                        refusal = Answer(answer.status_code, answer.headers, await answer.aread())
                        if may_repeat and await tries.again(_retry_after(answer)):
                            answered = False
                            continue
                        raise error_of(refusal, **(about or {}))
                    async for line in answer.aiter_lines():
                        yield line
                    return
            except httpx.HTTPError as error:
                if answered:
                    raise self._trouble(error) from None
                await self._after(error, tries, changes=method != "GET")

    @property
    def _streams(self) -> httpx.AsyncClient:
        """For what holds its connection for long: with as many as are asked for, so that nothing else waits for one."""
        if self._streaming is None:
            self._streaming = self._new(
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20)
            )
        return self._streaming

    def _may_repeat(self, method: str, answer: httpx.Response) -> bool:
        """Whether a request with this answer may be sent once more."""
        away = answer.status_code in _AWAY
        known, self._known = self._known, self._known or not away
        return answer.status_code == 429 or (away and known and method == "GET")

    async def _after(self, error: Exception, tries: _Tries | None, *, changes: bool) -> None:
        """Wait, if it may be sent once more."""
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        may_repeat = self._known and isinstance(error, httpx.TransportError) and (unsent or not changes)
        if tries is None or not (may_repeat and await tries.again()):
            raise self._trouble(error) from None

    def _trouble(self, error: Exception) -> Exception:
        if isinstance(error, httpx.InvalidURL):
            return UsageError(f"URL {self.url!r} is none: {error}")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return OperationError(
                f"The certificate of {self.url} is not trusted ({error}): expected one for this name, by an authority that is "
                "known. Name the file of another authority with --ca or SSL_CERT_FILE"
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
            return OperationError(
                f"Nobody answers at {self.url} ({error}): expected a host that serves HTTP. Start one with durably run, or "
                "name another URL"
            )
        if isinstance(error, httpx.PoolTimeout):
            return OperationError(
                f"No connection to {self.url} was free for {TIMEOUT_S:g} s, so this was not sent: ask for less at once"
            )
        return HubSilentError(
            f"The host at {self.url} has not answered ({type(error).__name__}): whether it did what it was asked for is "
            "not known. Look, then try again"
        )

    def managed(self, *path: str) -> str:
        """The URL of something of the management API."""
        return self._at(BASE, path)

    def _at(self, base: str, path: tuple[str, ...]) -> str:
        return f"{self.url}{base}/{'/'.join(_escaped(segment) for segment in path)}"


class _Tries:
    """How often, and for how long, something was tried."""

    def __init__(self) -> None:
        self._over = time.monotonic() + PATIENCE_S
        self._pause_s = _PAUSE_S

    async def again(self, wait_s: float | None = None) -> bool:
        """Wait, at least as long as the host asks for; False when nobody has the patience."""
        pause = max(self._pause_s, wait_s or 0.0)
        if time.monotonic() + pause > self._over:
            return False
        self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)
        await asyncio.sleep(pause)
        return True


def _retry_after(answer: httpx.Response) -> float:
    """What the host asks for, in seconds; a second when it is a date, or nothing."""
    given = answer.headers.get("retry-after", "")
    return float(given) if given.isascii() and given.isdecimal() and len(given) < 8 else 1.0


def _trusted(ca: str | None) -> ssl.SSLContext | bool:
    """Whom to believe. The variable counts on this machine, too, where that of a proxy does not."""
    file = ca or os.environ.get("SSL_CERT_FILE")
    if not file:
        return True
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:  # an SSLError is one
        name = "--ca" if ca else "SSL_CERT_FILE"
        raise UsageError(
            f"{name} names '{file}', which cannot be used ({error.strerror or error}): expected certificates as PEM"
        ) from None


def _escaped(segment: str) -> str:
    """A segment of a path; dots alone would be a way up."""
    return quote(segment, safe="") if segment.strip(".") else segment.replace(".", "%2E")
