"""Reads requests: bodies within limits, JSON that is JSON, parameters of the query by type."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from starlette.requests import ClientDisconnect, Request

from durably.core.events import Payload
from durably.core.status import RuntimeStatus
from durably.http_api.refusals import Refusal

_decode = msgspec.json.Decoder().decode

SECONDS_MAX = 3_600.0
"""A request that waits for an instance waits no longer; whoever wants more asks again."""


def header(request: Request, name: bytes) -> str | None:
    """The first header of a name (in lower case), or None. Starlette's own takes five times as long."""
    for key, value in request.scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None


def query_of(request: Request) -> dict[str, str]:
    """The query; of several parameters of one name the last one."""
    return dict(request.query_params.multi_items()) if request.scope["query_string"] else {}


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The body; never more of it in memory than is allowed.

    Raises:
        Refusal: 413, it is longer; 415, it is compressed. What is not decompressed cannot be a bomb.
    """
    encoding = header(request, b"content-encoding") or "identity"
    if encoding.strip().lower() != "identity":
        raise Refusal(
            415,
            f"The body is encoded as {encoding[:100]!r}: expected it as it is, without Content-Encoding",
            "UnsupportedEncoding",
            {"Accept-Encoding": "identity"},
        )
    announced = header(request, b"content-length") or ""
    if announced.isdecimal() and int(announced) > bytes_max:
        raise too_large(bytes_max)
    chunks: list[bytes] = []
    length = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        length += len(chunk)
        if length > bytes_max:
            raise too_large(bytes_max)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def too_large(bytes_max: int) -> Refusal:
    """The refusal of a body that is longer."""
    text = f"The body is too long: expected {bytes_max:,} bytes at most"
    return Refusal(
        413, text, "PayloadTooLarge", {"Connection": "close"}
    )  # else all of it would be taken in and dropped


def json_payload(body: bytes, *, twice: bool = False) -> Payload:
    """A body as a payload; None for an empty one.

    Args:
        body: JSON.
        twice: When it is a string that holds JSON, that is meant: the official client of Durable Functions encodes what
            it has encoded already.

    Raises:
        Refusal: 400, it is no JSON.
    """
    if not body.strip():
        return None
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(
            400, f"The body is no JSON ({error}): expected one JSON value in UTF-8", "InvalidJson"
        ) from None
    if twice and isinstance(value, str):
        try:
            _decode(value)
        except (msgspec.DecodeError, RecursionError):
            return body
        return value.encode()
    return body


def is_json(request: Request) -> bool:
    """True when the body is said to be JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


class Parameters:
    """The query of a request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._query = query_of(request)

    def text(self, name: str) -> str | None:
        """A parameter, or None; of several the last one. An empty one counts as none."""
        return self._query.get(name) or None

    def any_case(self, name: str) -> str | None:
        """A parameter whose name is compared without case."""
        wanted = name.lower()
        return next(
            (
                value
                for key, value in self._request.query_params.multi_items()
                if key.lower() == wanted and value
            ),
            None,
        )

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false.

        Raises:
            Refusal: 400, it is neither.
        """
        given = self.text(name)
        if given is None:
            return default
        value = {"true": True, "1": True, "false": False, "0": False}.get(given.lower())
        if value is None:
            raise Refusal(400, f"Parameter {name} is {given!r}: expected true or false")
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number; one beyond `most` counts as `most`.

        Raises:
            Refusal: 400, it is none, or less than `least`.
        """
        given = self.text(name)
        if given is None:
            return default
        if not (given.isascii() and given.isdecimal() and len(given) < 20) or int(given) < least:
            raise Refusal(400, f"Parameter {name} is {given!r}: expected a whole number, {least} or more")
        return min(int(given), most)

    def seconds(self, name: str) -> float | None:
        """A length of time, at most `SECONDS_MAX`, or None.

        Raises:
            Refusal: 400, it is none.
        """
        given = self.text(name)
        if given is None:
            return None
        try:
            value = float(given)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise Refusal(400, f"Parameter {name} is {given!r}: expected seconds, such as 10 or 0.5")
        return min(value, SECONDS_MAX)

    def moment(self, name: str) -> datetime | None:
        """An instant (without an offset: UTC), or None.

        Raises:
            Refusal: 400, it is none.
        """
        given = self.text(name)
        if given is None:
            return None
        try:
            value = datetime.fromisoformat(
                given.replace(" ", "+")
            )  # of an offset in a query that nobody escaped
        except ValueError:
            raise Refusal(
                400, f"Parameter {name} is {given!r}: expected an instant such as 2026-11-20T08:30:00Z"
            ) from None
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)

    def statuses(self, name: str) -> tuple[RuntimeStatus, ...] | None:
        """Statuses, separated by commas or given several times, without regard to case; None when there are none.

        Raises:
            Refusal: 400, one is unknown.
        """
        given = [
            part.strip()
            for value in self._request.query_params.getlist(name)
            for part in value.split(",")
            if part.strip()
        ]
        if not given:
            return None
        return tuple(dict.fromkeys(_status(part) for part in given))


_STATUSES = {status.value.lower(): status for status in RuntimeStatus}


def _status(given: str) -> RuntimeStatus:
    status = _STATUSES.get(given.lower())
    if status is None:
        raise Refusal(
            400, f"runtimeStatus holds {given!r}: expected some of {', '.join(_names(_STATUSES.values()))}"
        )
    return status


def _names(statuses: Iterable[RuntimeStatus]) -> list[str]:
    return [status.value for status in statuses]
