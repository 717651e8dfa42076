"""Canned answers in the place of HTTP services. Redirects, polls and retries are those of the real activity."""

from __future__ import annotations

import json as json_library
from collections.abc import Callable, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from durably.core.messages import ActivityDone
from durably.engine.executor import ActivityCall
from durably.errors import NonRetryableError, UsageError
from durably.executors.http.activity import HttpActivity
from durably.executors.http.policy import HttpPolicy
from durably.executors.http.tokens import TokenSources
from durably.program.durations import microseconds
from durably.program.failures import describe
from durably.program.http import TokenSource
from durably.testing.stubs import NOTHING

if TYPE_CHECKING:
    from durably.executors.http.exchange import Answer, Outgoing


class MockedRequest(msgspec.Struct, frozen=True):
    """A request that a test can look at, as it would have been sent.

    Attributes:
        method: In capitals.
        url: With the query.
        headers: By name in lower case. The token of a source is not asked for: it is ``"token of NAME"``.
        body: What would have been sent.
    """

    method: str
    url: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` when it is none."""
        return json_library.loads(self.body)


Predicate = Callable[[MockedRequest], bool]


class HttpMock:
    """What answers in the place of a service.

    Attributes:
        calls: The requests that it answered, in order.
        times: How many it answers, or None for all.
        delay_us: Virtual time that passes for each.
    """

    def __init__(
        self,
        url: str | Predicate,
        *,
        method: str | None = None,
        status: int = 200,
        json: Any = NOTHING,
        content: str | bytes = "",
        headers: Mapping[str, str] | None = None,
        raises: Exception | type[Exception] | None = None,
        times: int | None = None,
        delay: timedelta | float = 0,
    ) -> None:
        if json is not NOTHING and content:
            raise UsageError("The mock of an HTTP service has json and content: expected one of them")
        if not 100 <= status <= 599:
            raise UsageError(f"status of the mock of an HTTP service is {status!r}: expected 100 to 599")
        if times is not None and times < 1:
            raise UsageError(
                f"times of the mock of an HTTP service is {times!r}: expected 1 or more, or None for all"
            )
        self.calls: list[MockedRequest] = []
        self.times = times
        self.delay_us = microseconds(delay, "delay")
        self._url = url
        self._method = None if method is None else method.upper()
        self._raises = raises
        self._status = status
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._body = content.encode() if isinstance(content, str) else content
        if json is not NOTHING:
            self._body = json_library.dumps(json).encode()
            self._headers.setdefault("content-type", "application/json")

    def __repr__(self) -> str:
        return f"<mock of {self._url}: {len(self.calls)} calls>"

    def answers(self, request: MockedRequest) -> bool:
        """True when it is its turn for a request."""
        if self.times is not None and len(self.calls) >= self.times:
            return False
        if self._method is not None and request.method != self._method:
            return False
        if not isinstance(self._url, str):
            return self._url(request)
        url = request.url if "?" in self._url else request.url.split("?", 1)[0]
        return fnmatchcase(url, self._url.replace("[", "[[]").replace("?", "[?]"))

    def answer(self, request: MockedRequest) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body. Raises what it was told to."""
        self.calls.append(request)
        if self._raises is not None:
            raise self._raises
        return self._status, self._headers, self._body


class HttpMocks:
    """All mocks of HTTP services; the first that is not used up and matches answers. Whatever none matches fails."""

    def __init__(self) -> None:
        self._mocks: list[HttpMock] = []

    def add(self, mock: HttpMock) -> HttpMock:
        """Put it behind the others."""
        self._mocks.append(mock)
        return mock

    async def perform(
        self, call: ActivityCall, policy: HttpPolicy, now: Callable[[], int]
    ) -> tuple[ActivityDone, int]:
        """Answer a request of `call_http`, and say how much virtual time that takes, in microseconds."""
        delays: list[int] = []

        async def send(sent: Outgoing, policy: HttpPolicy) -> Answer:
            from durably.executors.http.exchange import Answer

            del policy
            request = MockedRequest(sent.method, str(sent.url), dict(sent.headers), sent.body)
            mock = next((one for one in self._mocks if one.answers(request)), None)
            if mock is None:
                raise NonRetryableError(
                    f"{request.method} '{request.url}' is not mocked, and a test reaches no service: expected "
                    f"mock_http('{request.url}', …) before the call"
                )
            delays.append(mock.delay_us)
            return Answer(*mock.answer(request))

        activity = HttpActivity(policy, _NamedTokens(), now, send)
        try:
            reply = await activity.perform(msgspec.json.decode(call.input or b"null"))
            result = msgspec.json.encode(reply)
            done = ActivityDone(call.execution_id, call.seq, call.attempt, result)
        except Exception as error:  # noqa: BLE001 - as the executor does
            done = ActivityDone(call.execution_id, call.seq, call.attempt, None, describe(error))
        return done, sum(delays)


class _NamedTokens(TokenSources):
    async def headers(self, source: TokenSource) -> dict[str, str]:
        return {"authorization": f"Bearer token of {source.name}"}
