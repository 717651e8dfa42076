"""The client that HTTP functions get: one that also makes answers with links."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from durably.client import Client
from durably.errors import UsageError
from durably.http_api.durable.starts import check_status, output_within
from durably.http_api.links import CLIENT, LINKS, Links
from durably.http_api.served import Served
from durably.http_api.starting import paced
from durably.http_api.witness import Did, witnessed
from durably.management import Management
from durably.program.durations import microseconds

if TYPE_CHECKING:
    from starlette.responses import Response


class DurableClient(Client):
    """A `Client` in a host that serves HTTP; HTTP functions get it as a parameter that is annotated with `Client`."""

    _served: Served

    @classmethod
    def serving(cls, served: Served) -> DurableClient:
        """The client of a hub that is served."""
        client = object.__new__(cls)
        client.__dict__.update(served.client.__dict__)
        client._served = served
        return client

    def noting(self, did: Did) -> DurableClient:
        """The same client, which notes what it changes."""
        return self._through(witnessed(self._management, did))

    def pacing(self, turn: Callable[[], Awaitable[None]]) -> DurableClient:
        """The same client, whose restarts wait for their turns."""
        return self._through(paced(self._management, turn))

    def _through(self, management: Management) -> DurableClient:
        client = object.__new__(type(self))
        client._attach(management, self._registry, self._converter, self._clock, self._random)
        client._served = self._served
        return client

    def create_http_management_payload(self, request: Request, instance_id: str) -> dict[str, str]:
        """Links to an instance, one for each verb, under the names of Durable Functions.

        They carry their own permission: for this instance, all verbs, and 90 days. ``{eventName}`` and ``{text}`` are left
        for the caller to fill in.

        Args:
            request: The request that is being answered: links begin where it was sent to.
            instance_id: The instance; whether it exists is not looked up.

        Raises:
            InvalidIdError: No instance can have this id.
        """
        return _links(request).of_instance(instance_id)

    def create_client_binding(self, request: Request) -> dict[str, Any]:
        """What the official clients of Durable Functions are made of, ``DurableOrchestrationClient(json.dumps(...))``.

        It holds a credential for all instances of the hub, for 90 days, where `HttpOptions.templates` allows that: keep it
        to yourself.

        Args:
            request: The request that is being answered.
        """
        return _links(request).binding()

    def create_check_status_response(self, request: Request, instance_id: str) -> Response:
        """202 with these links, ``Location`` (status) and ``Retry-After`` (10 seconds). See above for the parameters."""
        return check_status(_links(request), instance_id)

    async def wait_for_completion_or_create_check_status_response(
        self,
        request: Request,
        instance_id: str,
        timeout: timedelta | float = 10.0,
        retry_interval: timedelta | float = 1.0,
        *,
        return_internal_server_error_on_failure: bool = False,
    ) -> Response:
        """200 with the output of an instance that completes in time, else 202 with links.

        One that ends otherwise in time: 200 with its status.

        Args:
            request: The request that is being answered.
            instance_id: The instance.
            timeout: How long to wait (timedelta or seconds).
            retry_interval: Not longer than `timeout`. Nothing is polled for here: the end is told by the store.
            return_internal_server_error_on_failure: 500 for one that failed.

        Raises:
            InstanceNotFoundError: No such instance.
            UsageError: The interval is longer than the time-out.
        """
        patience = microseconds(timeout, "timeout", least=0)
        if microseconds(retry_interval, "retry_interval", least=0) > patience:
            raise UsageError(
                f"retry_interval is {retry_interval} and timeout is {timeout}: expected one within the other"
            )
        failed = 500 if return_internal_server_error_on_failure else 200
        ended = await output_within(self._served, instance_id, patience / 1_000_000, failed=failed)
        return ended or self.create_check_status_response(request, instance_id)


def client_of(request: Request) -> DurableClient:
    """The client, in an application that is mounted (`App.mount`); in FastAPI, ``Depends(client_of)``.

    Args:
        request: Of Starlette, or of what is made of it.

    Raises:
        UsageError: The request did not come through a host.
    """
    client: DurableClient | None = request.scope.get(CLIENT)
    if client is None:
        raise UsageError(
            "This request did not come through a host: expected that of an application which App.mount has taken"
        )
    return client


def _links(request: Request) -> Links:
    links: Links | None = request.scope.get(LINKS)
    if links is None:
        raise UsageError(
            "This request did not come through a host: expected the Request that the function was given"
        )
    return links
