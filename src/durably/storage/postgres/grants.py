"""What the role of hosts and clients needs: to read and write rows, and nothing else. The schema belongs to another role."""

from __future__ import annotations

from typing import Final

from durably.storage.postgres.address import Address
from durably.storage.postgres.schema import quoted

_TEXTS: Final = (
    "GRANT USAGE ON SCHEMA {s} TO {r}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {s} TO {r}",
    "GRANT SELECT ON ALL SEQUENCES IN SCHEMA {s} TO {r}",  # an export says where they are
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {s} TO {r}",
    "REVOKE INSERT, UPDATE, DELETE ON {s}.hub, {s}.migrations FROM {r}",
    # What later steps make, as the role that has run this.
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {s} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {r}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {s} GRANT SELECT ON SEQUENCES TO {r}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {s} GRANT EXECUTE ON FUNCTIONS TO {r}",
)


def grants(address: Address, role: str) -> list[str]:
    """The statements; they may be repeated."""
    return [text.replace("{s}", quoted(address.schema)).replace("{r}", quoted(role)) for text in _TEXTS]
