"""What hosts tell a process that waits for them, so that it looks when there is something to see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from durably.storage.api import Store
from durably.storage.news import News

SELDOM_S = 1.0
"""While hosts tell, it is looked so often all the same: a notice may have been lost."""


class Told:
    """What is told of one message.

    Attributes:
        soon: Set when there is something to know, or to see.
        accepted: The owner has accepted it, and has nothing else to say.
    """

    def __init__(self) -> None:
        self.soon = asyncio.Event()
        self.accepted = False

    def accept(self) -> None:
        """It was accepted."""
        self.accepted = True
        self.soon.set()


class Heard:
    """News for all that wait in this process.

    Args:
        store: The hub; opened before anything is heard.
        ended: Called with instances that have ended, or are gone, waited for or not.
    """

    def __init__(self, store: Store, ended: Callable[[frozenset[str]], None]) -> None:
        self._store = store
        self._ended = ended
        self._messages: dict[str, Told] = {}

    def listen(self) -> bool:
        """Want news for a while; True while they come."""
        return self._store.heed(self._on_news)

    def expect(self, message_id: str) -> Told:
        """What is told of a message, until `forget`."""
        told = self._messages[message_id] = Told()
        return told

    def forget(self, message_id: str) -> None:
        """Nobody waits for this one any more. Idempotent."""
        self._messages.pop(message_id, None)

    def _on_news(self, news: News) -> None:
        for message_id in self._messages.keys() & news.accepted:
            self._messages[message_id].accept()
        for message_id in self._messages.keys() & news.answered:
            self._messages[message_id].soon.set()
        if news.ended:
            self._ended(news.ended)
