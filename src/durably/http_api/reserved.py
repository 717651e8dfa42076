"""What is the runtime's own: whoever may start orchestrations starts none of it from outside."""

from __future__ import annotations

from durably.core.notices import OWN
from durably.http_api.refusals import Refusal
from durably.management import Management
from durably.security.roles import Principal


def check_orchestrator(name: str) -> None:
    """Refuse to start an orchestrator that every host has: its input is trusted, with the secrets of the host.

    Raises:
        Refusal: 403.
    """
    if name.startswith(OWN):
        raise Refusal(
            403,
            f"Orchestrator {name[:100]!r} is the runtime's own: expected one of the app, whose name does not begin with '{OWN}'",
            "Forbidden",
        )


async def check_restart(management: Management, instance_id: str, principal: Principal) -> None:
    """Refuse to start an instance of such an orchestrator once more, to all but an admin.

    Raises:
        Refusal: 403.
    """
    if principal.may("admin"):
        return
    row = await management.get(instance_id, payloads=False)
    if row is not None:
        check_orchestrator(row.name)
