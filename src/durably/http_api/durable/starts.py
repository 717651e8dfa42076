"""Start, restart, and the answers that may wait for the end."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from durably.core.ids import check_text
from durably.core.messages import StartInstance
from durably.core.notices import with_callback
from durably.core.status import TERMINAL, RuntimeStatus
from durably.errors import InstanceNotFoundError
from durably.http_api.durable.bodies import status_body
from durably.http_api.incoming import Incoming
from durably.http_api.links import Links
from durably.http_api.reading import Parameters, json_payload, read_body
from durably.http_api.refusals import Refusal
from durably.http_api.reserved import check_orchestrator, check_restart
from durably.http_api.served import Served

JSON = "application/json; charset=utf-8"


class Starts:
    """The routes that start instances."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def start(self, request: Incoming) -> Response:
        """``POST orchestrators/{functionName}[/{instanceId}]``."""
        served, parameters = self._served, Parameters(request)
        timeout = patience(parameters)
        payload = json_payload(await read_body(request, served.body_bytes_max), twice=served.json_twice)
        version = parameters.text("version")
        check_text(version, "version")
        given: str | None = request.path_params.get("instanceId")
        instance_id = served.management.new_instance_id() if given is None else given
        name: str = request.path_params["functionName"]
        check_orchestrator(name)
        await served.management.start(
            instance_id,
            StartInstance(
                name,
                payload,
                served.random.token(),
                version,
                tags=with_callback(None, parameters.text("callbackUrl")),
                on_existing=served.on_existing,
                fresh=given is None,
            ),
        )
        return await self._accepted(request, instance_id, timeout)

    async def restart(self, request: Incoming) -> Response:
        """``POST instances/{id}/restart``: under a new id, unless the query says otherwise."""
        parameters = Parameters(request)
        timeout = patience(parameters)
        fresh = parameters.flag("restartWithNewInstanceId", default=True)
        instance_id: str = request.path_params["instanceId"]
        await check_restart(self._served.management, instance_id, request.principal)
        try:
            handle = await self._served.client.restart(instance_id, new_instance_id=fresh)
        except InstanceNotFoundError as error:
            raise Refusal(400, str(error), type(error).__name__) from None  # as the original answers
        return await self._accepted(request, handle.instance_id, timeout)

    async def _accepted(self, request: Incoming, instance_id: str, timeout: float | None) -> Response:
        request.made = instance_id
        if timeout is not None:
            ended = await output_within(self._served, instance_id, timeout, failed=200)
            if ended is not None:
                return ended
        return check_status(request.links, instance_id)


def patience(parameters: Parameters) -> float | None:
    """How long a start waits for the end (seconds), or None. The store says when it has come: nothing is polled for.

    Raises:
        Refusal: 400, the interval is longer than the time-out.
    """
    timeout, interval = parameters.seconds("timeout"), parameters.seconds("pollingInterval")
    if timeout is not None and interval is not None and interval > timeout:
        raise Refusal(
            400,
            f"pollingInterval is {interval:g} and timeout is {timeout:g}: expected an interval within the time-out",
        )
    return timeout


def check_status(links: Links, instance_id: str) -> Response:
    """202 with a link for each verb on the instance."""
    payload = links.of_instance(instance_id)
    headers = {"Location": payload["statusQueryGetUri"], "Retry-After": "10"}
    return Response(msgspec.json.encode(payload), 202, headers, media_type=JSON)


async def output_within(served: Served, instance_id: str, timeout: float, *, failed: int) -> Response | None:
    """The output of an instance that completes in time; its status when it ends otherwise; None when it goes on.

    Args:
        served: The hub.
        instance_id: The instance.
        timeout: How long to wait, in seconds.
        failed: The status code for one that failed.
    """
    try:
        row = await served.management.wait(instance_id, timeout)
    except TimeoutError:
        return None
    if row.status not in TERMINAL:  # it was started once more meanwhile
        return None
    if row.status == RuntimeStatus.Completed.value:
        body = status_body(row, show_input=False).output
        return Response(bytes(body), 200, media_type=JSON)
    status = failed if row.status == RuntimeStatus.Failed.value else 200
    return Response(msgspec.json.encode(status_body(row, show_input=True)), status, media_type=JSON)
