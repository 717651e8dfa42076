"""Hub URLs of PostgreSQL: where the server is, and which schema is the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from durably.errors import UsageError

HUB: Final = "durably"
"""The schema of a hub whose URL does not name one."""

_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_SECRET: Final = ("password", "passfile", "sslpassword")

_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
OPTIONS: Final = (
    "hub",
    "sslmode",
    *_FILES,
    "sslpassword",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "target_session_attrs",
    "user",
    "password",
    "krbsrvname",
    "gsslib",
)
_ONE_OF: Final = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    # A hub is on the server that takes writes, so there is nothing to choose; other programs want it said.
    "target_session_attrs": ("primary", "read-write"),
    "gsslib": ("gssapi", "sspi"),
}

EXAMPLE: Final = "postgresql://user:password@host:5432/database?hub=orders"


class Address(NamedTuple):
    """A hub on a server.

    Attributes:
        dsn: What the driver connects to.
        schema: The schema that is the hub.
        url: The URL without secrets, for people.
        servers: The DSN once for each host, with that one alone.
    """

    dsn: str
    schema: str
    url: str
    servers: Sequence[str]

    @property
    def place(self) -> str:
        """Which hub it is, whoever connects to it and how."""
        parts = urlsplit(self.dsn)
        return f"{parts.netloc.rpartition('@')[2]}{parts.path} {self.schema}"

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL such as ``postgresql://user:password@host1,host2:5432/database?hub=orders``.

        Raises:
            UsageError: A part of it cannot be; the message names the part, and shows no secret.
        """
        scheme, _, rest = url.partition("://")
        if "@" in "".join(re.split(r"[/?#]", rest, maxsplit=1)[1:]):
            raise _unusable(
                "has an '@' behind the host: in a password / is written %2F, ? %3F, # %23 and @ %40"
            )
        try:
            parts = urlsplit(f"postgresql://{rest}")
        except ValueError:
            raise _unusable("has a host in brackets that is no address") from None
        if scheme.lower() not in {"postgresql", "postgres"} or parts.fragment:
            raise _unusable("has a part behind '#'" if parts.fragment else f"has the scheme '{scheme}'")
        _check_hosts(parts.netloc.rpartition("@")[2])
        if not unquote(parts.path.strip("/")) or "/" in parts.path[1:]:
            raise _unusable("names no database, or more than one")
        options = parse_qsl(parts.query, keep_blank_values=True)
        _check_options(options)
        schema = dict(options).get("hub", HUB)
        if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
            raise UsageError(
                f"Hub name {schema!r} in a hub URL is not usable: expected lower-case letters, digits and '_', 48 at most, "
                "beginning with a letter; it becomes a schema"
            )
        driver = [(key, value) for key, value in options if key not in {"hub", "target_session_attrs"}]
        shown = [(key, value) for key, value in options if key not in _SECRET]
        dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(driver), ""))
        url = urlunsplit(("postgresql", _shown(parts.netloc), parts.path, urlencode(shown), ""))
        return cls(dsn, schema, url, _one_by_one(dsn))


def sibling(url: str, schema: str) -> str:
    """The URL of another hub in the same database.

    Raises:
        UsageError: There can be no such schema, or the URL is not usable.
    """
    parts = urlsplit(url)
    options = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key != "hub"]
    found = urlunsplit(parts._replace(query=urlencode([*options, ("hub", schema)])))
    Address.of(found)
    return found


def _one_by_one(dsn: str) -> list[str]:
    """The DSNs that name one host each."""
    parts = urlsplit(dsn)
    user, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=f"{user}{at}{host}")) for host in hosts.split(",")]


def _check_hosts(hosts: str) -> None:
    for host in hosts.split(","):
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::([^:]*))?", host)
        if found is None or (not found[1] and "," in hosts):
            raise _unusable(f"has the host '{host}', expected a name or an address; one of IPv6 in brackets")
        port = found[2]
        if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise _unusable(f"has the port '{port}', expected 1 to 65535")


def _check_options(options: list[tuple[str, str]]) -> None:
    seen: set[str] = set()
    for key, value in options:
        if key not in OPTIONS:
            raise _unusable(f"has the unknown option '{key}', expected one of {', '.join(OPTIONS)}")
        if key in seen:
            raise _unusable(f"has the option '{key}' twice")
        seen.add(key)
        if key in _ONE_OF and value not in _ONE_OF[key]:
            expected = ", ".join(_ONE_OF[key])
            raise _unusable(f"has {key}='{value}', expected one of {expected}")
        if key in _FILES and not Path(value).is_file():
            raise _unusable(f"has {key}='{value}', and there is no such file")


def _unusable(what: str) -> UsageError:
    return UsageError(f"The URL of a hub on PostgreSQL {what}; expected one like {EXAMPLE}")


def _shown(netloc: str) -> str:
    user, at, hosts = netloc.rpartition("@")
    name = quote(unquote(user.partition(":")[0]), safe="")
    return f"{name}{at}{hosts}" if name else hosts
