"""Notices: what is told to others of the life of an instance.

A notice is an instance of an orchestrator that every host has; its start is a message of the very commit that it tells of.
So there is no event without its notice and no notice without its event, whatever dies when.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from durably.core.ids import check_tags, derived_execution_id
from durably.core.instance import InstanceState
from durably.core.messages import StartInstance
from durably.errors import InvalidTextError

NOTICE: Final = "durably:notice"
"""The orchestrator of a notice, and the activity that delivers it."""

CALLBACK: Final = "durably:callback"
"""The tag of an instance that holds the URL which is told of its end."""

OWN: Final = "durably:"
"""How the names of the orchestrators begin that every host has: nothing is told of their instances."""

ENDS: Final = ("completed", "failed", "canceled", "terminated")

EVENTS: Final = ("started", *ENDS, "blocked")


_URL: Final = re.compile(r"https?://[^\s/?#@\x00-\x20\x7f-\uffff]+([/?#][\x21-\x7e]*)?")
_URL_CHARS_MAX: Final = 2_000
_REASON_CHARS_MAX: Final = 4_000


class Destination(msgspec.Struct, frozen=True):
    """Where a notice goes.

    Attributes:
        form: ``"webhook"``, or ``"eventgrid"``.
        url: The URL.
    """

    form: str
    url: str


class NoticeRules(NamedTuple):
    """What is told of all instances.

    Attributes:
        events: Some of `EVENTS`.
        to: Where.
    """

    events: frozenset[str] = frozenset()
    to: tuple[Destination, ...] = ()


NO_NOTICES: Final = NoticeRules()


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is told, as its instance has it for input. FORMAT: fields may be added, with defaults.

    Attributes:
        id: Unique for the event, and the same however often it is told.
        event: One of `EVENTS`.
        instance_id: The instance.
        name: Its orchestrator.
        status: Its runtime status.
        at: When, in microseconds since 1970 UTC.
        to: Where.
        execution_id: The execution that began or ended.
        version: Of the instance.
        reason: Why it did not complete, or goes on no more.
    """

    id: str
    event: str
    instance_id: str
    name: str
    status: str
    at: int
    to: tuple[Destination, ...]
    execution_id: str
    version: str | None = None
    reason: str | None = None

    @property
    def instance(self) -> str:
        """The id of the instance that is this notice."""
        return f"notice:{self.id}"


def notice_of(
    state: InstanceState, event: str, rules: NoticeRules, cause: str | None = None
) -> tuple[str, StartInstance] | None:
    """Target and body of the start of a notice; None when nobody wants to be told.

    Args:
        state: The instance, of which the event is true by now.
        event: One of `EVENTS`.
        rules: Who wants to be told.
        cause: Why it is blocked. The same cause is told once.
    """
    started = state.started
    if started is None or started.name.startswith(OWN):
        return None
    to = rules.to if event in rules.events else ()
    callback = None if started.tags is None or event not in ENDS else started.tags.get(CALLBACK)
    if callback is not None:
        to = (*to, Destination("webhook", callback))
    if not to:
        return None
    execution_id = derived_execution_id(started.execution_id, f"notice:{event}:{cause or ''}")
    notice = Notice(
        id=execution_id,
        event=event,
        instance_id=state.instance_id,
        name=started.name,
        status=state.status,
        at=state.now,
        to=to,
        execution_id=started.execution_id,
        version=started.version,
        reason=_shortened(cause or (None if state.failure is None else state.failure.message)),
    )
    body = StartInstance(NOTICE, msgspec.json.encode(notice), execution_id, version="")
    return notice.instance, body


def _shortened(reason: str | None) -> str | None:
    return reason if reason is None or len(reason) <= _REASON_CHARS_MAX else f"{reason[:_REASON_CHARS_MAX]}…"


def check_callback(url: str, what: str) -> str:
    """A URL that can be told.

    Raises:
        InvalidTextError: It is none of http or https, or too long, or no text of one line.
    """
    if type(url) is not str or len(url) > _URL_CHARS_MAX or not _URL.fullmatch(url):
        shown = "with a password" if type(url) is str and "@" in url else repr(url)
        raise InvalidTextError(
            f"The {what} is {shown}: expected an http:// or https:// URL without password, {_URL_CHARS_MAX} characters at most"
        )
    return url


def with_callback(tags: dict[str, str] | None, url: str | None) -> dict[str, str] | None:
    """The tags of an instance whose end a URL is told of.

    Raises:
        InvalidTextError: It is no such URL.
    """
    given = url if url is not None else (tags or {}).get(CALLBACK)
    return tags if given is None else {**(tags or {}), CALLBACK: check_callback(given, "callback URL")}


def checked_tags(tags: dict[str, str] | None) -> dict[str, str] | None:
    """Tags as callers may give them.

    Raises:
        InvalidTextError: They cannot be stored, one is the runtime's own, or the callback is no URL.
    """
    for name in tags or ():
        if name.startswith(OWN) and name != CALLBACK:
            raise InvalidTextError(
                f"The tag {name[:100]!r} is the runtime's own: expected a name that does not begin with '{OWN}'"
            )
    return with_callback(check_tags(tags), None)
