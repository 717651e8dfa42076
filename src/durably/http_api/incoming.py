"""A request on its way through a host, with what the host finds out about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request

from durably.http_api.links import Credential, Links, origin_of
from durably.security.roles import ANYBODY, Principal

if TYPE_CHECKING:
    from durably.http_api.routing import Found
    from durably.http_api.witness import Did


class FunctionCall(NamedTuple):
    """A call of an HTTP function that asks for a key.

    Attributes:
        function: Its name.
        did: What it has done through its client.
    """

    function: str
    did: Did


class Incoming(Request):
    """A request. These are attributes and not in its ``state``, which is of user code, and costs a dozen times as much.

    Attributes:
        found: Its route; None for none.
        call: Of an HTTP function that asks for a key.
        principal: Who asks.
        hub: The hub that it is about, and
        credential: What links to that carry as proof; both are set before a handler is called.
        made: The id of the instance that it started.
        refused: The kind of the refusal that answers it.
    """

    found: Found | None = None
    call: FunctionCall | None = None
    principal: Principal = ANYBODY
    hub: str
    credential: Credential
    made: str | None = None
    refused: str | None = None

    @property
    def links(self) -> Links:
        """Makes the links of its answer; most have none."""
        return Links(origin_of(self), self.hub, self.credential)
