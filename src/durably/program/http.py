"""Durable HTTP as data: a request and its reply on their way, the response, and where a token comes from."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from durably.program.registry import BUILT_IN

HTTP_ACTIVITY: Final = f"{BUILT_IN}HttpActivity"
"""The built-in activity that makes one request; the name is that of Durable Functions. It is in histories."""

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_HEADER_VALUE: Final = re.compile(r"([\x21-\x7e\x80-\xff]+([\t ]+[\x21-\x7e\x80-\xff]+)*)?")

_TEXTS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
}
"""Charsets that are read as text. A few: Python's codecs by name include some that are slow on hostile input."""


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where the token of a request comes from. It is asked for right before the request, and is never in a history.

    Attributes:
        name: Of a function that was registered with ``app.token_source(name)``.
        resource: Passed to it: what the token is for.
    """

    name: str
    resource: str | None = None


@dataclass(frozen=True, slots=True)
class DurableHttpResponse:
    """The answer to `OrchestrationContext.call_http`, whatever its status. It is plain data: return it, or pass it on.

    Attributes:
        status_code: Of the last answer, after redirects and polls.
        headers: By name in lower case; several of one name are joined with ``", "``.
        content: The body: text, or base64 when it is no text (see `is_base64`).
        is_base64: The body is not UTF-8, ASCII or Latin-1 text.
    """

    status_code: int
    headers: dict[str, str]
    content: str = ""
    is_base64: bool = False

    @property
    def body(self) -> bytes:
        """The body as it came, decompressed."""
        if self.is_base64:
            return base64.b64decode(self.content)
        return self.content.encode(charset_of(self.headers) or "utf-8")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: It is not JSON.
        """
        return msgspec.json.decode(self.body.removeprefix(b"\xef\xbb\xbf"))


class HttpRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The input of the built-in activity. Stored: fields may be added, with defaults, and nothing else.

    Attributes:
        method: In capitals.
        uri: Absolute.
        headers: By name in lower case.
        content: The body: text, or base64.
        is_base64: Which of the two.
        token_source: Whose token goes along.
        polls: A 202 with a location is to be polled.
        poll_interval_s: Between polls when the server does not say; None leaves it to the host.
        retry_status_codes: Answers that are failures.
    """

    method: str
    uri: str
    headers: dict[str, str] = {}
    content: str = ""
    is_base64: bool = False
    token_source: TokenSource | None = None
    polls: bool = True
    poll_interval_s: float | None = None
    retry_status_codes: tuple[int, ...] = ()

    @property
    def body(self) -> bytes:
        """What is sent."""
        return base64.b64decode(self.content) if self.is_base64 else self.content.encode()


class HttpReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of the built-in activity: the response, or what to ask next.

    What to ask is decided by the activity alone, and recorded, so that a newer rule changes no replay.

    Attributes:
        response: The response, or None when it has to be polled for.
        next: The request of the next poll.
        after_s: Seconds until then.
    """

    response: DurableHttpResponse | None = None
    next: HttpRequest | None = None
    after_s: float = 0.0


def charset_of(headers: dict[str, str]) -> str | None:
    """Python's name of the charset in which a body is text, or None when it cannot be: one we do not read."""
    for part in headers.get("content-type", "").split(";")[1:]:
        name, _, value = part.partition("=")
        if name.strip().lower() == "charset":
            return _TEXTS.get(value.strip().strip('"').lower() or "utf-8")
    return "utf-8"


def response_of(status: int, headers: dict[str, str], body: bytes) -> DurableHttpResponse:
    """The response as plain data; `DurableHttpResponse.body` gives the same bytes back."""
    charset = charset_of(headers)
    if charset is not None:
        try:
            return DurableHttpResponse(status, headers, body.decode(charset))
        except UnicodeDecodeError:
            pass
    return DurableHttpResponse(status, headers, base64.b64encode(body).decode(), is_base64=True)


def header_problem(name: str, value: object) -> str | None:
    """What is wrong with a header, its name in lower case; None when it can be sent. Says no value: it may be a secret."""
    if not _HEADER_NAME.fullmatch(name):
        return f"HTTP header {name!r} has no name that can be sent: expected letters, digits and '-'"
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        return f"HTTP header '{name}' has a value that cannot be sent: expected Latin-1 text in one line, no space around it"
    return None
