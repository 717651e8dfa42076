"""The hubs beside the one that a host serves, for calls over gRPC that name them: each gets a host of its own.

They have no app: their functions are in workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from durably.app import App, AppHost
from durably.cli.faces import remote_workers
from durably.clock import SystemClock
from durably.config.names import filled
from durably.engine.options import EngineOptions
from durably.errors import HubClosedError
from durably.grpc_server.gate import Gate
from durably.grpc_server.hubs import ClosedHub
from durably.grpc_server.service import TaskHubService
from durably.grpc_server.serving import hub_service
from durably.grpc_server.work import RemoteWork
from durably.http_api.options import HttpOptions
from durably.storage.open import shown_url, sibling_hub


def service_of(host: AppHost, gate: Gate, options: HttpOptions) -> TaskHubService:
    """What a server of gRPC answers about the hub of a host."""
    workers = host.workers
    return hub_service(
        host.client,
        host.management,
        gate,
        clock=host.engine.clock,
        random=host.engine.random,
        hub_url=host.engine.store.url,
        options=options,
        is_unstarted=None if workers is None else workers.is_unstarted,
        work=None if workers is None else RemoteWork(workers),
    )


class OtherHubs:
    """Hubs beside one.

    Args:
        url: Of that one, secrets included.
        engine: The options of their hosts.
        options: Of HTTP.
        settings: By the names of environment variables.
    """

    def __init__(
        self, url: str, engine: EngineOptions, options: HttpOptions, settings: Mapping[str, str]
    ) -> None:
        self._url = filled(url, f"Hub {shown_url(url)!r}", settings)
        self._engine = engine
        self._options = options
        self._settings = settings

    def find(self, name: str) -> ClosedHub:
        """The one of a name.

        Raises:
            UsageError: No hub can have it, or there is no credential for it.
        """
        url = sibling_hub(self._url, name)
        options = replace(self._options, hub_name=name)
        gate = Gate.of(options, shown_url(url), SystemClock())
        return _Closed(url, gate, self._engine, options, self._settings)


class _Closed:
    def __init__(
        self,
        url: str,
        gate: Gate,
        engine: EngineOptions,
        options: HttpOptions,
        settings: Mapping[str, str],
    ) -> None:
        self.gate = gate
        self._url = url
        self._engine = engine
        self._options = options
        self._settings = settings

    async def open(self) -> _Open:
        """See `ClosedHub.open`."""
        workers = remote_workers(self._settings)
        host = AppHost(App(), self._url, self._engine, None, None, settings=self._settings, workers=workers)
        await host.start()
        return _Open(host, service_of(host, self.gate, self._options))


class _Open:
    def __init__(self, host: AppHost, service: TaskHubService) -> None:
        self.service = service
        self._host = host

    async def failed(self) -> Exception:
        """See `OpenHub.failed`."""
        await self._host.failed()
        return self._host.failure or HubClosedError("it was stopped")

    async def stop(self) -> None:
        """See `OpenHub.stop`."""
        await self.service.close()
        await self._host.stop()
