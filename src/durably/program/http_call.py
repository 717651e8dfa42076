"""The call of an HTTP service by an orchestrator: checks the request, and is the future that polls for the response."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, cast

import msgspec

from durably.codec.convert import JsonConverter
from durably.errors import UsageError
from durably.program.combinators import error_of
from durably.program.futures import LoopFuture
from durably.program.http import HttpReply, HttpRequest, TokenSource, header_problem
from durably.program.loop import ProgramLoop
from durably.program.tasks import DurableTask

_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}")

_OF_THE_CONNECTION: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
"""Follow from the URI and the content; given separately, they could contradict."""


class HttpCall(LoopFuture):
    """The future of a `DurableHttpResponse`: one request after the other, a durable timer between two.

    Nothing of it runs while it waits: what is open is an activity or a timer of the history.
    """

    __slots__ = ("_child", "_perform", "_wait")

    def __init__(
        self,
        loop: ProgramLoop,
        request: HttpRequest,
        perform: Callable[[Any], DurableTask],
        wait: Callable[[float], DurableTask],
    ) -> None:
        super().__init__(loop=loop)
        loop.number = self.number = loop.number + 1
        self._perform = perform
        self._wait = wait
        self._child: DurableTask
        self._ask(request)

    def cancel(self, msg: Any | None = None) -> bool:
        """Give up: the request that is running is cut off, the next poll is not made. What was sent was sent."""
        if self.done():
            return False
        self._child.cancel(msg)
        return super().cancel(msg)

    def _ask(self, request: HttpRequest) -> None:
        self._child = self._perform(msgspec.to_builtins(request))
        self._child.add_done_callback(self._replied)

    def _replied(self, child: asyncio.Future[Any]) -> None:
        if self.done():
            return
        error = error_of(child)
        if error is not None:
            self._fail(error)
            return
        try:
            reply = msgspec.convert(child.result(), HttpReply)
            if reply.next is None:
                self.set_result(reply.response)
            else:
                self._poll_later(reply.next, reply.after_s)
        except Exception as problem:  # noqa: BLE001 - too many actions, or a reply of an unknown form
            self._fail(problem)

    def _poll_later(self, request: HttpRequest, after_s: float) -> None:
        def poll(timer: object) -> None:
            if self.done():
                return
            try:
                self._ask(request)
            except Exception as problem:  # noqa: BLE001 - too many actions
                self._fail(problem)

        self._child = self._wait(after_s)
        self._child.add_done_callback(poll)

    def _fail(self, error: BaseException) -> None:
        self.set_exception(error)
        self._log_traceback = False  # as in `DurableTask.settle_error`: the history has the failure


def http_request(
    method: str,
    uri: str,
    content: Any,
    headers: Mapping[str, str] | None,
    token_source: TokenSource | str | None,
    *,
    polls: bool,
    poll_interval_us: int | None,
    retry_status_codes: Collection[int],
) -> HttpRequest:
    """The request as it is stored.

    Raises:
        UsageError: A value cannot be sent.
        PayloadError: The content cannot become JSON.
    """
    names = _checked_headers(headers)
    text, is_base64 = _checked_content(content, names)
    return HttpRequest(
        method=_checked_method(method),
        uri=_checked_uri(uri),
        headers=names,
        content=text,
        is_base64=is_base64,
        token_source=_checked_source(token_source),
        polls=polls,
        poll_interval_s=None if poll_interval_us is None else poll_interval_us / 1_000_000,
        retry_status_codes=_checked_statuses(retry_status_codes),
    )


def _checked_method(method: Any) -> str:
    name = method.upper() if isinstance(method, str) else ""
    if not _METHOD.fullmatch(name) or name == "CONNECT":
        raise UsageError(f"HTTP method is {method!r}: expected a name such as 'GET' or 'POST'")
    return name


def _checked_uri(uri: Any) -> str:
    if not isinstance(uri, str) or not uri.lower().startswith(("http://", "https://")):
        raise UsageError(
            f"HTTP uri is {uri!r}: expected an absolute one that begins with https:// or http://"
        )
    return uri


def _checked_headers(headers: Any) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise UsageError(f"HTTP headers are {type(headers).__name__}: expected a mapping of names to values")
    found: dict[str, str] = {}
    for given, value in cast("Mapping[Any, Any]", headers).items():
        name = str(given).lower()
        if name in _OF_THE_CONNECTION:
            raise UsageError(f"HTTP header '{given}' follows from the URI and the content: leave it away")
        problem = header_problem(name, value)
        if problem is not None:
            raise UsageError(problem)
        found[name] = value
    return found


def _checked_content(content: Any, headers: dict[str, str]) -> tuple[str, bool]:
    """Text as it is, bytes as base64, all else as JSON, whose content type is known."""
    if content is None:
        return "", False
    if isinstance(content, str):
        return content, False
    if isinstance(content, bytes | bytearray):
        return base64.b64encode(content).decode(), True
    headers.setdefault("content-type", "application/json")
    return JsonConverter().encode(content).decode(), False


def _checked_source(source: Any) -> TokenSource | None:
    if source is None or isinstance(source, TokenSource):
        return source
    if isinstance(source, str):
        return TokenSource(source)
    raise UsageError(f"token_source is {source!r}: expected a TokenSource, or the name of one")


def _checked_statuses(codes: Any) -> tuple[int, ...]:
    found: tuple[Any, ...] = tuple(cast("Any", codes)) if isinstance(codes, Collection) else (codes,)
    for code in found:
        if type(code) is not int or not 100 <= code <= 599:
            raise UsageError(f"retry_status_codes has {code!r}: expected HTTP status codes such as 503")
    return found
