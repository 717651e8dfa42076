"""Requests to a host, and its refusals as the errors that they were there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, cast
from urllib.parse import quote, urlsplit

import httpx

from durably import errors
from durably.errors import AccessDeniedError, DurablyError, HubSilentError, OperationError, UsageError

BASE = "/runtime/webhooks/durabletask"

TIMEOUT_S = 60.0
"""So long a host may take to answer."""

_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))


class Answer(NamedTuple):
    """What a host answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as plain data.

        Raises:
            OperationError: It is no JSON: something else than a host of durably answered.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise OperationError(
                f"What answers is no host of durably: expected JSON, got {self.body[:60]!r}. Check the URL"
            ) from None


class HostApi:
    """Asks one host. Follows no redirects, so the key goes nowhere else.

    Args:
        url: Where the host is, such as ``http://127.0.0.1:7071``; the path of a proxy before it may be included.
        key: A key of the host; None where none is asked for.

    Raises:
        UsageError: The URL is none.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(f"URL {url!r} names no host: expected http://127.0.0.1:7071 or https://…")
        if parts.username is not None:
            raise UsageError("The URL holds a user: expected none. Give the key with --key or DURABLY_KEY")
        self.url = url.rstrip("/")
        self._client = httpx.AsyncClient(
            headers={"x-functions-key": key} if key else {},
            timeout=TIMEOUT_S,
            trust_env=parts.hostname not in _LOCAL,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        await self._client.aclose()

    async def manage(self, method: str, *path: str, instance_id: str | None = None, **more: Any) -> Answer:
        """A request of the management API.

        Args:
            method: GET, POST, DELETE.
            path: Its segments; they are escaped.
            instance_id: Whom it is about, for errors.
            more: ``params``, ``content``, ``headers``.

        Raises:
            DurablyError: It was refused, or nobody answered.
        """
        place = "/".join(_escaped(segment) for segment in path)
        answer = await self.send(method, f"{self.url}{BASE}/{place}", **more)
        if answer.status >= 300:
            raise error_of(answer, instance_id)
        return answer

    async def send(self, method: str, url: str, **more: Any) -> Answer:
        """A request, whatever the answer says.

        Raises:
            HubSilentError: It was sent, and there was no answer: it may have been done or not.
            OperationError: Nobody answers there.
        """
        try:
            answer = await self._client.request(method, url, **more)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise OperationError(
                f"Nobody answers at {self.url} ({error}): expected a host that serves HTTP. Start one with durably run, or "
                "name another URL"
            ) from None
        except httpx.HTTPError as error:
            raise HubSilentError(
                f"The host at {self.url} has not answered ({type(error).__name__}): whether it did what it was asked for is "
                "not known. Look, then try again"
            ) from None
        except httpx.InvalidURL as error:
            raise UsageError(f"URL {self.url!r} is none: {error}") from None
        return Answer(answer.status_code, answer.headers, answer.content)


def _escaped(segment: str) -> str:
    """A segment of a path; dots alone would be a way up."""
    return quote(segment, safe="") if segment.strip(".") else segment.replace(".", "%2E")


# --- refusals --------------------------------------------------------------------------------------------------------


def error_of(answer: Answer, instance_id: str | None = None) -> DurablyError:
    """The error that an answer stands for: of the kind that it was in the host, with its text."""
    kind, text = _told(answer)
    if answer.status in {401, 403}:
        return AccessDeniedError(f"{text}. Give a key that opens it with --key or DURABLY_KEY")
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, DurablyError):
        return _as_told(found, text, instance_id)
    if answer.status in {404, 405} and not kind:
        return OperationError(f"What answers is no host of durably (status {answer.status}): check the URL")
    return UsageError(text) if 400 <= answer.status < 429 else OperationError(text)


def _told(answer: Answer) -> tuple[str, str]:
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return "", f"The host answered with status {answer.status}"
    fields = cast("dict[str, Any]", body)
    text = fields.get("Message") or fields.get("detail") or f"The host answered with status {answer.status}"
    return str(fields.get("ExceptionType") or ""), str(text)


def _as_told(kind: type[DurablyError], text: str, instance_id: str | None) -> DurablyError:
    """An error with the text of the host; those that are made of parts get the parts that are known here."""
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    if issubclass(
        kind, errors.InstanceNotFoundError | errors.InstanceStateError | errors.InstanceAlreadyExistsError
    ):
        error.__dict__.update(instance_id=instance_id or "", status="", name=None, operation="", expected="")
    return error
