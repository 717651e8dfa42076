"""The URLs that an answer hands out: of one instance, and templates for starts."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlencode

from starlette.requests import Request

BASE = "/runtime/webhooks/durabletask"
"""Where the management API is, as in Durable Functions."""

Credential = Callable[[str], dict[str, str]]
"""The parameters that let the holder of a link use it: of an instance, or of starts for ``""``."""

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


class Links:
    """Makes links.

    Args:
        origin: Scheme, host and path under which the application is reached, without a slash at the end.
        hub: The name of the hub.
        credential: What a link carries as proof.
    """

    def __init__(self, origin: str, hub: str, credential: Credential) -> None:
        self._base = f"{origin}{BASE}"
        self._hub = hub
        self._credential = credential

    def of_instance(self, instance_id: str) -> dict[str, str]:
        """The check-status payload: the id, and a link for each verb. ``{eventName}`` and ``{text}`` are left to fill in."""
        proof = self._proof(instance_id)
        path = f"{self._base}/instances/{quote(instance_id, safe='')}"
        links = {"id": instance_id}
        for name, rest in _INSTANCE.items():
            links[name] = f"{path}{rest}{'&' if '?' in rest else '?'}{proof}"
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

    def _proof(self, instance_id: str) -> str:
        return urlencode({"taskHub": self._hub, "connection": "Storage", **self._credential(instance_id)})


def origin_of(request: Request) -> str:
    """Where the client reached us: what it called the host is checked before."""
    return f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '').rstrip('/')}"
