"""The built-in activity that makes one request of `call_http`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from durably.errors import HttpRefusedError, HttpStatusError, NonRetryableError
from durably.executors.http.policy import HttpPolicy
from durably.executors.http.tokens import TokenSources
from durably.program.http import HTTP_ACTIVITY, HttpReply, HttpRequest, response_of
from durably.program.registry import ActivityFunction

if TYPE_CHECKING:
    from durably.executors.http.exchange import Answer, Outgoing

    Send = Callable[[Outgoing, HttpPolicy], Awaitable[Answer]]


class HttpActivity:
    """Makes requests by a policy.

    Args:
        policy: What may be called.
        tokens: Where credentials come from.
        now: The time, in microseconds since 1970 UTC: for dates of servers that do not say what time it is there.
        send: Sends a request, and reads the answer; `durably.executors.http.exchange.exchange` by default.
    """

    def __init__(
        self, policy: HttpPolicy, tokens: TokenSources, now: Callable[[], int], send: Send | None = None
    ) -> None:
        self._policy = policy
        self._tokens = tokens
        self._clock = now
        self._send = send

    def registered(self) -> ActivityFunction:
        """The activity, as an executor takes it."""
        return ActivityFunction(self.perform, HTTP_ACTIVITY, "coroutine", None, None)

    async def perform(self, data: Any) -> Any:
        """Make the request of an `HttpRequest`, follow its redirects, and give an `HttpReply`; both as plain data.

        Raises:
            HttpRefusedError: The policy refuses a hop.
            HttpRequestError: There is no answer.
            HttpStatusError: The call wants this answer to be a failure.
            NonRetryableError: The host lacks the library or the token source.
        """
        try:
            from durably.executors.http.hops import poll_of, retry_after_s, shown
        except ModuleNotFoundError as error:
            raise NonRetryableError(
                f"Durable HTTP needs the library '{error.name}', which this host does not have: "
                "expected pip install 'durably[http]'; then rewind the instance"
            ) from None
        policy = self._policy
        request, answer = await self._follow(msgspec.convert(data, HttpRequest))
        if answer.status in request.retry_status_codes:
            left_alone = retry_after_s(answer.headers, self._now()) or 0.0
            raise HttpStatusError(
                f"{request.method} '{shown(request.uri)}' was answered with {answer.status}, a failure by retry_status_codes: "
                "expected another status",
                int(left_alone * 1_000_000),
            )
        following = poll_of(request, answer.status, answer.headers, policy.cross_origin_headers)
        if following is None:
            return msgspec.to_builtins(HttpReply(response_of(*answer)))
        after = retry_after_s(answer.headers, self._now())
        if after is None:
            after = policy.poll_interval_s if request.poll_interval_s is None else request.poll_interval_s
        return msgspec.to_builtins(HttpReply(None, following, after))

    async def _follow(self, request: HttpRequest) -> tuple[HttpRequest, Answer]:
        """The answer that is no redirect, and the request that got it."""
        from durably.executors.http.exchange import Outgoing, exchange
        from durably.executors.http.hops import parsed, redirected, shown

        policy = self._policy
        for _ in range(policy.max_redirects + 1):
            headers = request.headers
            if request.token_source is not None:
                headers = headers | await self._tokens.headers(request.token_source)
            sent = Outgoing(request.method, parsed(request.uri), headers, request.body)
            answer = await (self._send or exchange)(sent, policy)
            following = redirected(request, answer.status, answer.headers, policy.cross_origin_headers)
            if following is None:
                return request, answer
            request = following
        raise HttpRefusedError(
            f"'{shown(request.uri)}' is one redirect too many: expected {policy.max_redirects} at most; look for a circle, or "
            "set HttpPolicy(max_redirects=...)"
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock() / 1_000_000, UTC)
