"""The seam to brokers: what a queue outside of the hub has to be able to do.

A host takes a message over in three steps: `Source.receive`; the message becomes one of the hub, durable; `Source.settle`.
A process that dies in between gets the message again, under the same id, by which the hub knows it. So a source needs
nothing of a broker but at-least-once delivery and ids that stay, and what happens to the message afterwards (tries, delays,
poison, long runs) is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec


class BrokerMessage(msgspec.Struct, frozen=True):
    """A message as a broker delivers it.

    Attributes:
        id: The same whenever the broker delivers this message, and no other one's; "" when nothing of it is.
        body: The bytes that were sent.
        dequeue_count: How often the broker has delivered it, this time included; 1 when it does not say.
        inserted_at: When it was sent, in microseconds since 1970 UTC, or None: the broker does not say.
        receipt: What its source settles it by.
    """

    id: str
    body: bytes
    dequeue_count: int
    inserted_at: int | None
    receipt: Any


class Source(Protocol):
    """One queue of a broker, as its consumer sees it. All methods raise `BrokerError` when the broker cannot be reached."""

    async def receive(self, limit: int) -> list[BrokerMessage]:
        """Wait until there is a message; then take it and what else is there, up to the limit.

        Woken by the broker where that can be. What is taken is nobody else's until it is settled, or this source is closed
        or silent for a while. Cancelling it loses nothing.
        """
        ...

    async def settle(self, messages: Sequence[BrokerMessage]) -> None:
        """Take messages out of the queue for good. One that could not be is delivered again."""
        ...

    async def close(self) -> None:
        """Leave. What was taken and not settled is delivered again, at once where it can be. Idempotent, never raises."""
        ...


class Broker(Protocol):
    """A connection to a broker. All methods but `close` raise `BrokerError` when it cannot be reached."""

    async def source(self, queue: str, prefetch: int) -> Source:
        """Begin to take from a queue, which is made where the broker knows no other way to keep what is sent before.

        Args:
            queue: The name of it, as the broker has it.
            prefetch: As many messages are taken and not settled at most.

        Raises:
            BrokerError: The broker cannot be reached, or refuses.
        """
        ...

    async def send(self, queue: str, body: bytes, *, message_id: str, delay_s: float = 0.0) -> None:
        """Send a message: kept by the broker on return, as far as it keeps anything.

        Args:
            queue: Where to.
            body: What.
            message_id: Brokers that know ids keep it.
            delay_s: Not before this has passed.

        Raises:
            BrokerError: The broker cannot be reached or refuses, or knows no delays.
        """
        ...

    async def close(self) -> None:
        """Hang up. Idempotent, never raises."""
        ...
