"""The client that the function of a message gets: it starts once what it starts, however often the message is handed out."""

from __future__ import annotations

from typing import Any

from durably.client import Client, Handle
from durably.core.queues import QueueItem, start_id


class MessageClient(Client):
    """A `Client` whose starts are those of one message.

    A start without an id gets one that is made of the message and the number of the start; an id that is taken is
    attached to. So a message that is handed out again, after a failure or the death of a process, starts nothing twice.
    """

    _stem: str
    _starts: int

    @classmethod
    def for_message(cls, client: Client, item: QueueItem) -> MessageClient:
        """The client for one time that a message is handed out."""
        return cls.of_stem(client, start_id(item.queue, item.id))

    @classmethod
    def of_stem(cls, client: Client, stem: str) -> MessageClient:
        """The same for whatever has an id."""
        made = object.__new__(cls)
        made.__dict__.update(client.__dict__)
        made._stem = stem
        made._starts = 0
        return made

    async def start(self, fn: Any, input: Any = None, **options: Any) -> Handle[Any]:
        """See `Client.start`; `instance_id` and `on_existing` have other defaults."""
        self._starts += 1
        if options.get("instance_id") is None:
            number = "" if self._starts == 1 else f":{self._starts}"
            options["instance_id"] = f"{self._stem}{number}"
        options.setdefault("on_existing", "attach")
        return await super().start(fn, input, **options)
