"""Delivers notices: a signed message to a webhook, or an event in the form of Azure Event Grid."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self

import msgspec

from durably.clock import Clock
from durably.core.notices import NOTICE, Destination, Notice
from durably.core.timeline import instant
from durably.errors import HttpRequestError, HttpStatusError, NonRetryableError, OperationError, UsageError
from durably.executors.http.policy import HttpPolicy
from durably.program.registry import ActivityFunction

_AT_ONCE: Final = 16
"""Requests to one destination that are under way."""

_QUEUE: Final = 256
"""Notices that wait for that, at most; more come again later."""

_PATIENCE_S: Final = 10.0

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how secrets begin by the Standard Webhooks

_SECRET_BYTES_MIN: Final = 16

_GONE: Final = 410


@dataclass(frozen=True, kw_only=True)
class NoticeKeys:
    """Secrets for those who are told; they are in no history.

    Attributes:
        webhook: What messages to webhooks are signed with; None: they are not signed.
        event_grid: Access key of the topic.
    """

    webhook: bytes | None = field(default=None, repr=False)
    event_grid: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """``DURABLY_WEBHOOK_SECRET`` (``whsec_`` and base64) and ``DURABLY_EVENT_GRID_KEY``.

        Raises:
            UsageError: The secret is none; the message does not repeat it.
        """
        source = os.environ if environment is None else environment
        text = source.get("DURABLY_WEBHOOK_SECRET")
        return cls(
            webhook=_secret(text) if text else None, event_grid=source.get("DURABLY_EVENT_GRID_KEY") or None
        )


def _secret(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not text.startswith(_SECRET_PREFIX) or len(raw) < _SECRET_BYTES_MIN:
        raise UsageError(
            f"DURABLY_WEBHOOK_SECRET is no secret: expected {_SECRET_PREFIX} and {_SECRET_BYTES_MIN} random bytes or more in "
            "base64, such as the output of: echo whsec_$(openssl rand -base64 32)"
        )
    return raw


class Forgets(Protocol):
    """Deletes the instances of notices some time after they were delivered."""

    def note(self, instance_id: str) -> None:
        """One was delivered."""
        ...

    async def forget_due(self) -> None:
        """Delete a few that are due."""
        ...

    async def forget_old(self) -> None:
        """Delete what an earlier host has left."""
        ...


class Notifier:
    """The built-in activity of notices.

    Args:
        hub: The name of the hub.
        policy: What may be called; the same as for `call_http`.
        keys: Secrets.
        clock: The time that a signature holds.
        event_grid_endpoint: The only place that gets the access key of the topic.
    """

    def __init__(
        self,
        hub: str,
        policy: HttpPolicy,
        keys: NoticeKeys,
        clock: Clock,
        *,
        event_grid_endpoint: str | None = None,
    ) -> None:
        self._event_grid_endpoint = event_grid_endpoint
        self._hub = hub
        self._policy = policy
        self._keys = keys
        self._clock = clock
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._waiting: dict[str, int] = {}
        self._forgets: Forgets | None = None
        self._old_forgotten = False

    def connect(self, forgets: Forgets) -> None:
        """Say who deletes what was delivered, before anything runs."""
        self._forgets = forgets

    def registered(self) -> ActivityFunction:
        """The activity, as an executor takes it."""
        return ActivityFunction(self.perform, NOTICE, "coroutine", None, None)

    async def perform(self, data: dict[str, Any]) -> int:
        """Tell one destination once.

        Returns:
            The status of its answer.

        Raises:
            HttpRefusedError: The policy refuses the URL.
            HttpRequestError: There is no answer in time, or too many wait for one.
            HttpStatusError: It is no success.
            NonRetryableError: The destination says that it is gone, or the host lacks the library.
        """
        notice, to = msgspec.convert(data["notice"], Notice), msgspec.convert(data["to"], Destination)
        if self._waiting.get(to.url, 0) >= _QUEUE:
            raise HttpRequestError(
                f"{_QUEUE} notices wait for this destination already: it is tried again later"
            )
        slots = self._slots.setdefault(to.url, asyncio.Semaphore(_AT_ONCE))
        self._waiting[to.url] = self._waiting.get(to.url, 0) + 1
        try:
            async with slots:
                status = await self._send(notice, to)
        finally:
            self._waiting[to.url] -= 1
            if not self._waiting[to.url]:
                del self._waiting[to.url], self._slots[to.url]
        with contextlib.suppress(OperationError):  # it is delivered; what is left is for another time
            await self._tidy(notice)
        return status

    async def _tidy(self, notice: Notice) -> None:
        if self._forgets is None:
            return
        if not self._old_forgotten:
            self._old_forgotten = True
            await self._forgets.forget_old()
        self._forgets.note(notice.instance)
        await self._forgets.forget_due()

    async def _send(self, notice: Notice, to: Destination) -> int:
        try:
            from durably.executors.http.exchange import Outgoing, exchange
            from durably.executors.http.hops import parsed, shown
        except ModuleNotFoundError as error:
            raise NonRetryableError(
                f"Notices need the library '{error.name}', which this host does not have: "
                "expected pip install 'durably[http]'; then rewind this instance"
            ) from None
        headers, body = self._event_grid(notice, to.url) if to.form == "eventgrid" else self._webhook(notice)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await exchange(Outgoing("POST", parsed(to.url), headers, body), self._policy)
        except TimeoutError:
            raise HttpRequestError(f"'{shown(to.url)}' has not answered within {_PATIENCE_S:g} s") from None
        if answer.status == _GONE:
            raise NonRetryableError(f"'{shown(to.url)}' says that it is gone for good (410)")
        if not 200 <= answer.status < 300:
            raise HttpStatusError(f"'{shown(to.url)}' answered with {answer.status}: expected 200 to 299")
        return answer.status

    def _data(self, notice: Notice) -> dict[str, Any]:
        return {
            "hubName": self._hub,
            "functionName": notice.name,
            "instanceId": notice.instance_id,
            "reason": notice.reason or "",
            "runtimeStatus": notice.status,
        }

    def _webhook(self, notice: Notice) -> tuple[dict[str, str], bytes]:
        """By the Standard Webhooks: id, time and body are signed."""
        message = {
            "type": f"instance.{notice.event}",
            "timestamp": _iso(notice.at),
            "data": {**self._data(notice), "executionId": notice.execution_id, "version": notice.version},
        }
        body = msgspec.json.encode(message)
        sent_at = str(self._clock.now() // 1_000_000)
        headers = {
            "content-type": "application/json",
            "webhook-id": notice.id,
            "webhook-timestamp": sent_at,
        }
        if self._keys.webhook is not None:
            said = f"{notice.id}.{sent_at}.".encode() + body
            signature = hmac.digest(self._keys.webhook, said, hashlib.sha256)
            headers["webhook-signature"] = f"v1,{base64.b64encode(signature).decode()}"
        return headers, body

    def _event_grid(self, notice: Notice, url: str) -> tuple[dict[str, str], bytes]:
        event = {
            "id": notice.id,
            "subject": f"durable/orchestrator/{notice.status}",
            "eventType": "orchestratorEvent",
            "eventTime": _iso(notice.at),
            "dataVersion": "1.0",
            "data": self._data(notice),
        }
        headers = {"content-type": "application/json"}
        # A notice that somebody wrote into the hub could name any other place.
        if self._keys.event_grid is not None and url == self._event_grid_endpoint:
            headers["aeg-sas-key"] = self._keys.event_grid
        return headers, msgspec.json.encode([event])


def _iso(at: int) -> str:
    return datetime.isoformat(instant(at).astimezone(UTC), timespec="microseconds")
