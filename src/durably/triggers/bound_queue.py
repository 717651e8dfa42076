"""A queue function and its queue, as one host knows it: settings are filled in, and the broker is at hand."""

from __future__ import annotations

from dataclasses import dataclass

from durably.bindings.broker import Broker
from durably.bindings.connections import Connections
from durably.core.queues import POISON, broker_queue
from durably.triggers.queue_function import QueueFunction


@dataclass(frozen=True)
class BoundQueue:
    """A queue function and its queue.

    Attributes:
        function: Takes its messages; resolved.
        connections: To brokers; None: there are none here, and messages of their queues come from elsewhere.
    """

    function: QueueFunction
    connections: Connections | None

    @property
    def name(self) -> str:
        """What the queue is called where it is."""
        return self.function.queue

    @property
    def hub_queue(self) -> str:
        """The queue of the hub in which its messages are dealt with: itself, or that of a queue of a broker."""
        connection = self.function.connection
        return self.name if connection is None else broker_queue(connection, self.name)

    @property
    def broker(self) -> Broker | None:
        """The broker that has the queue; None when the hub has it.

        Raises:
            RegistrationError: Its setting is missing or of no use.
        """
        connection = self.function.connection
        if connection is None or self.connections is None:
            return None
        return self.connections.broker(connection)

    @property
    def is_poison(self) -> bool:
        """True for a queue of messages that failed too often elsewhere. What fails here too stays."""
        return self.name.endswith(POISON)

    def __str__(self) -> str:
        where = "" if self.function.connection is None else f" of {self.function.connection}"
        return f"queue '{self.name}'{where}"
