"""The URLs that an answer hands out: of one instance, and templates for starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import URL
from starlette.requests import Request

from durably.core.ids import check_instance_id
from durably.security.capabilities import ANY_INSTANCE

BASE = "/runtime/webhooks/durabletask"
"""Where the management API is, as in Durable Functions."""

RPC = "/durabletask"
"""Where the official clients find the same API, with their credential in the path: they put none into the query."""

OPEN = "open"
"""In the place of that credential, on a host that asks for none."""

CLIENT = "durably.client"
LINKS = "durably.links"
"""In the scope of an application that is mounted: a client, and what makes the links of its answers."""

Credential = Callable[[str], dict[str, str]]
"""The parameters that let the holder of a link use it: of an instance, of starts for ``""``, of all for `ANY_INSTANCE`.

Their values are of characters that a query takes as they are.
"""

_PLACEHOLDER = "INSTANCEID"

_INSTANCE = {
    "statusQueryGetUri": "",
    "sendEventPostUri": "/raiseEvent/{eventName}",
    "terminatePostUri": "/terminate?reason={text}",
    "purgeHistoryDeleteUri": "",
    "restartPostUri": "/restart",
    "suspendPostUri": "/suspend?reason={text}",
    "resumePostUri": "/resume?reason={text}",
    "rewindPostUri": "/rewind?reason={text}",
}


_RESTS = tuple((name, f"{rest}{'&' if '?' in rest else '?'}") for name, rest in _INSTANCE.items())


class Links:
    """Makes links.

    Args:
        origin: Scheme, host and path under which the application is reached, without a slash at the end.
        hub: The name of the hub.
        credential: What a link carries as proof.
    """

    def __init__(self, origin: str, hub: str, credential: Credential) -> None:
        self._origin = origin
        self._base = f"{origin}{BASE}"
        self._hub = hub
        self._credential = credential
        self._hub_named = _named(hub)

    def of_instance(self, instance_id: str) -> dict[str, str]:
        """The check-status payload: the id, and a link for each verb. ``{eventName}`` and ``{text}`` are left to fill in.

        Raises:
            InvalidIdError: No instance can have this id: its link would open more than one, or starts.
        """
        check_instance_id(instance_id)
        return self._links(instance_id, self._proof(instance_id))

    def _links(self, instance_id: str, proof: str) -> dict[str, str]:
        path = f"{self._base}/instances/{quote(instance_id, safe='')}"
        links = {"id": instance_id}
        for name, rest in _RESTS:
            links[name] = f"{path}{rest}{proof}"
        return links

    def of_starts(self) -> dict[str, str]:
        """Templates to start orchestrations with, as clients of Durable Functions 1.x and 2.x fill them in."""
        proof = self._proof("")
        start = f"{self._base}/orchestrators/{{functionName}}[/{{instanceId}}]?"
        wait = "timeout={timeoutInSeconds}&pollingInterval={intervalInSeconds}&"
        return {
            "createNewInstancePostUri": f"{start}{proof}",
            "createAndWaitOnNewInstancePostUri": f"{start}{wait}{proof}",
        }

    def binding(self) -> dict[str, Any]:
        """What the official clients of Durable Functions are made of: the value of a durable client binding.

        Their credential is good for all instances of the hub, since they fill in ids by themselves.
        A host that gives no such credential away (`HttpOptions.templates`) leaves it out, and such a client is refused.
        """
        granted = self._credential(ANY_INSTANCE).get("sig")
        proof = self._proof(ANY_INSTANCE)
        return {
            "taskHubName": self._hub,
            "creationUrls": self.of_starts(),
            "managementUrls": self._links(_PLACEHOLDER, proof),
            "baseUrl": self._base,
            "requiredQueryStringParameters": proof,
            "rpcBaseUrl": f"{self._origin}{RPC}/{granted or OPEN}/",
            "httpBaseUrl": self._base,
        }

    def _proof(self, instance_id: str) -> str:
        proof = self._hub_named
        for name, value in self._credential(instance_id).items():
            proof += f"&{name}={value}"
        return proof


@lru_cache(16)
def _named(hub: str) -> str:
    return urlencode({"taskHub": hub, "connection": "Storage"})


def origin_of(request: Request) -> str:
    """Where the client reached us: what it called the host is checked before."""
    scope = request.scope
    host = next((value for name, value in scope["headers"] if name == b"host"), None)
    return _origin(scope.get("scheme", "http"), host, scope.get("server"), scope.get("root_path", ""))


@lru_cache(256)
def _origin(scheme: str, host: bytes | None, server: tuple[str, int | None] | None, root_path: str) -> str:
    headers = [] if host is None else [(b"host", host)]
    url = URL(scope={"scheme": scheme, "server": server, "path": "/", "headers": headers})
    return f"{url.scheme}://{url.netloc}{root_path.rstrip('/')}"
