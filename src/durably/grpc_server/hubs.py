"""Several hubs behind one server: a call says which one it means, and has to show what opens that one.

The metadata ``taskhub`` names the hub. A name opens nothing: each hub has its own keys, and whoever has those of one is a
stranger to the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

from durably.errors import DurablyError
from durably.grpc_server.gate import DEFAULT_HUB, Asked, Gate
from durably.grpc_server.refusals import Code, Refusal, refusal_of
from durably.grpc_server.served import Rpc
from durably.grpc_server.service import Handlers, TaskHubService, handler_of
from durably.security.roles import ANYBODY

ANY: Final = "*"
"""As a name: all others, too."""

_log = logging.getLogger("durably.grpc")

_OTHERS_MAX: Final = 100
"""Each is a host of its own, with files and connections of its own."""


class OpenHub(Protocol):
    """Another hub, which is served.

    Attributes:
        service: Answers its calls.
    """

    service: TaskHubService

    async def failed(self) -> Exception:
        """Return when it is served no more, with the reason."""
        ...

    async def stop(self) -> None:
        """Let go of it."""
        ...


class ClosedHub(Protocol):
    """Another hub, which nobody has asked for yet.

    Attributes:
        gate: Who is let in.
    """

    gate: Gate

    async def open(self) -> OpenHub:
        """Serve it; where there is none, there is one then."""
        ...


class Hubs:
    """A service of several hubs; one that is not served is refused by the own one.

    Args:
        own: The hub that is served anyhow.
        name: Its name.
        others: Names of other hubs, in lower case, which are opened when they are first asked for; or `ANY`.
        find: Another hub by its name. Raises UsageError for one that cannot be.
    """

    def __init__(
        self, own: TaskHubService, name: str, others: frozenset[str], find: Callable[[str], ClosedHub]
    ) -> None:
        self._own = own
        self._own_names = frozenset(("", name.lower(), DEFAULT_HUB))
        self._others = others
        self._find = find
        self._opened: dict[str, OpenHub] = {}
        self._opening: dict[str, asyncio.Task[OpenHub]] = {}
        self._closed: dict[str, ClosedHub] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._stops = False

    @property
    def way_in(self) -> str:
        """See `Service.way_in`."""
        names = "any hub" if ANY in self._others else f"hubs {', '.join(sorted(self._others))}"
        return f"{self._own.way_in}; also {names}, with its own keys"

    def handlers(self) -> Handlers:
        """See `Service.handlers`."""
        return {name: handler_of(rpc, self._calls(name, rpc)) for name, rpc in self._own.rpcs.items()}

    async def close(self) -> None:
        """See `Service.close`. The other hubs are let go of."""
        self._stops = True
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        for watch in self._watching.values():
            watch.cancel()
        opened = [hub.stop() for hub in self._opened.values()]
        self._opened.clear()
        await asyncio.gather(self._own.close(), *opened)

    def _calls(self, method: str, rpc: Rpc) -> Callable[[Any, Any], Any]:
        if not rpc.needs:
            return self._own.calls[method]  # it says that somebody is here, whatever hub there is or is not
        return self._streaming(method) if rpc.streams else self._answering(method)

    def _answering(self, method: str) -> Callable[[Any, Any], Awaitable[Any]]:
        own = self._own.calls[method]

        async def answered(request: Any, context: Any) -> Any:
            service = await self._meant(context)
            return await (own if service is self._own else service.calls[method])(request, context)

        return answered

    def _streaming(self, method: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def streamed(request: Any, context: Any) -> AsyncIterator[Any]:
            service = await self._meant(context)
            async for message in service.calls[method](request, context):
                yield message

        return streamed

    async def _meant(self, context: Any) -> TaskHubService:
        """The service that a call is for; refuses the call if there is none."""
        asked = Asked(context)
        name = asked.one("taskhub").lower()
        if name in self._own_names or not (ANY in self._others or name in self._others):
            return self._own
        try:
            return (await self._hub(name, asked)).service
        except Exception as error:
            refusal = refusal_of(error)
            await context.abort(refusal.code, str(refusal))
            raise

    async def _hub(self, name: str, asked: Asked) -> OpenHub:
        hub = self._opened.get(name)
        if hub is not None:
            return hub
        opening = self._opening.get(name)
        if opening is None:
            closed = self._closed_hub(name)
            await _let_in(closed.gate, asked)
            if name in self._opened:  # somebody else has asked meanwhile
                return self._opened[name]
            opening = self._opening.get(name) or self._begin(name, closed)
        return await asyncio.shield(opening)  # who asked first may hang up, and others wait

    def _begin(self, name: str, closed: ClosedHub) -> asyncio.Task[OpenHub]:
        if self._stops:
            raise Refusal(Code.UNAVAILABLE, "This host stops: ask another one")
        opening = self._opening[name] = asyncio.create_task(self._open(name, closed))
        opening.add_done_callback(_look_at)
        return opening

    def _closed_hub(self, name: str) -> ClosedHub:
        """The same one again for who asks again: it counts those who have no credential."""
        found = self._closed.get(name)
        if found is None:
            found = self._find(name)
            if len(self._closed) >= _OTHERS_MAX:
                self._closed.clear()
            self._closed[name] = found
        return found

    async def _open(self, name: str, closed: ClosedHub) -> OpenHub:
        try:
            if len(self._opened) >= _OTHERS_MAX:
                raise Refusal(
                    Code.RESOURCE_EXHAUSTED,
                    f"{_OTHERS_MAX} other hubs are open, the most that may be: serve it elsewhere",
                )
            hub = self._opened[name] = await closed.open()
            self._watching[name] = asyncio.create_task(self._watch(name, hub))
            return hub
        finally:
            del self._opening[name]

    async def _watch(self, name: str, hub: OpenHub) -> None:
        """Close a hub whose host has stopped by itself: its workers connect again, which opens it again."""
        error = await hub.failed()
        _log.error("The host of hub '%s' stopped by itself: %s", name, error)
        del self._opened[name], self._watching[name]
        await hub.stop()


def _look_at(opening: asyncio.Task[OpenHub]) -> None:
    """Whoever wanted the hub may be gone: nobody has to be told that it could not be opened."""
    if not opening.cancelled():
        opening.exception()


async def _let_in(gate: Gate, asked: Asked) -> None:
    """Nobody opens a hub, let alone makes one, who could not do anything there.

    Raises:
        Refusal: UNAUTHENTICATED.
    """
    try:
        if await gate.principal(asked) is ANYBODY:
            gate.check(ANYBODY, "read")
    except DurablyError as error:
        raise gate.noted(asked, refusal_of(error)) from None
