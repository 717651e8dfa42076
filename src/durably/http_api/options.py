"""How a host is served over HTTP; each option has an environment variable, ``DURABLY_HTTP_`` and its name in capitals."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from durably.errors import UsageError
from durably.security.audit_log import BYTES_MAX
from durably.security.key_file import audit_beside, beside
from durably.security.loopback import LOCAL_NAMES, is_loopback
from durably.security.token_rules import DEFAULT_ALGORITHMS, DEFAULT_ROLES, TokenRules
from durably.storage.open import hub_name

BODY_BYTES_MAX = 16 * 1024 * 1024
"""A request with a longer body is refused with 413."""

PORT = 7071
"""As the local Functions host of Azure."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,44}")


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """How a host is served.

    Attributes:
        bind: The address to listen on. Any other than one of this machine needs a key, or an issuer of tokens.
        port: 0 for any free one.
        hub_name: What clients of Durable Functions call the hub (``taskHub``); by default the name of its file or schema.
        route_prefix: Before the routes of HTTP functions; "" for none.
        insecure: Nobody is asked for a key.
        key_file: Where keys are kept; by default beside the hub file, as ``{file}.keys``. Where it is set, and is missing
            when a host starts, nobody gets in until a key is made.
        allowed_hosts: What clients may call this host beside its own addresses, separated by commas; ``*``: anything.
        templates: Links for new starts carry a credential, as clients of Durable Functions 1.x need it. By default only
            where nobody beyond this machine can connect.
        max_body_bytes: A longer body is refused with 413.
        max_outstanding_requests: More at once are refused with 429.
        max_concurrent_requests: Calls of HTTP functions that run at once; more wait. 0: all run.
        replace_running: A start with the id of an instance that has not ended replaces it; by default it is refused (409).
        max_wait_s: A stopping host gives requests that are under way so long.
        tls_certificate: PEM file, with intermediate certificates; with `tls_key`, HTTPS is served.
        tls_key: PEM file. Files that are replaced are taken over within seconds.
        tls_passphrase: Of the key, when it is encrypted.
        max_failures_per_minute: An address that shows no credential, or wrong ones, more often gets 429 for these.
        max_starts_per_second: A key, link or token that asks for more starts over the APIs gets 429; 0: as many as it likes.
        trusted_proxies: Addresses and networks, separated by commas, whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are
            believed; by default nobody's.
        head_timeout_s: Time for the head of a request.
        body_timeout_s: Time for its body, and a second more for each KiB of it.
        answer_timeout_s: A client that takes nothing of its answer for so long is hung up on.
        audit: Who changes what over the management API is recorded.
        audit_file: Where; by default beside the hub file, as ``{file}.audit``. A hub without a file has none by default.
        audit_max_bytes: A longer file is put aside, and kept: deleting it is up to you.
        oidc_issuer: Who issues bearer tokens (JWT) that are accepted; "" for nobody.
        oidc_audience: What these have in ``aud``: one of several, separated by commas.
        oidc_algorithms: How they may be signed, separated by commas.
        oidc_roles: Which of their claims give which role, ``claim:value=role``, separated by commas.
        oidc_jwks_url: Where the keys of the issuer are; by default its discovery document says so.
    """

    bind: str = "127.0.0.1"
    port: int = PORT
    hub_name: str = ""
    route_prefix: str = "api"
    insecure: bool = False
    key_file: str = ""
    allowed_hosts: str = ""
    templates: bool | None = None
    max_body_bytes: int = BODY_BYTES_MAX
    max_outstanding_requests: int = 2_000
    max_concurrent_requests: int = 0
    replace_running: bool = False
    max_wait_s: float = 5.0
    tls_certificate: str = ""
    tls_key: str = ""
    tls_passphrase: str = field(default="", repr=False)
    max_failures_per_minute: int = 100
    max_starts_per_second: float = 0.0
    trusted_proxies: str = ""
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    answer_timeout_s: float = 30.0
    audit: bool = True
    audit_file: str = ""
    audit_max_bytes: int = BYTES_MAX
    oidc_issuer: str = ""
    oidc_audience: str = ""
    oidc_algorithms: str = DEFAULT_ALGORITHMS
    oidc_roles: str = DEFAULT_ROLES
    oidc_jwks_url: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise UsageError(f"port is {self.port!r}: expected 0 to 65535")
        if self.hub_name and not _HUB_NAME.fullmatch(self.hub_name):
            raise UsageError(
                f"hub_name is {self.hub_name!r}: expected letters, digits, '_', '-' and '.', 45 characters at most"
            )
        for name in (
            "max_body_bytes",
            "max_outstanding_requests",
            "max_failures_per_minute",
            "audit_max_bytes",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)!r}: expected 1 or more")
        if self.max_concurrent_requests < 0:
            raise UsageError(
                f"max_concurrent_requests is {self.max_concurrent_requests!r}: expected 1 or more, or 0 for no limit"
            )
        for name in ("head_timeout_s", "body_timeout_s", "answer_timeout_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)!r}: expected a number of seconds above 0")
        if not 0 <= self.max_starts_per_second < math.inf:
            raise UsageError(
                f"max_starts_per_second is {self.max_starts_per_second!r}: expected a number, or 0 for no limit"
            )
        _check_proxies(self.trusted_proxies)
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise UsageError("tls_certificate and tls_key: expected both, or none")
        if self.insecure and not self.is_local:
            raise UsageError(
                f"bind is {self.bind!r} and insecure is on: anybody who reaches this address could do anything. Bind to "
                "127.0.0.1, or let the host ask for keys"
            )
        if self.token_rules is not None and self.insecure:
            raise UsageError(
                "oidc_issuer is set and insecure is on: expected tokens to be asked for, or nothing"
            )

    @property
    def is_local(self) -> bool:
        """True when only this machine can connect."""
        return is_loopback(self.bind)

    @property
    def names(self) -> frozenset[str]:
        """What clients may call this host; empty: anything."""
        given = {part.strip().lower() for part in self.allowed_hosts.split(",") if part.strip()}
        if "*" in given:
            return frozenset()
        if not self.is_local and not given:
            return frozenset()  # behind other addresses its names are not known here
        return frozenset({*LOCAL_NAMES, self.bind.lower(), *given})

    @property
    def open_until_keys(self) -> bool:
        """True where nobody is asked for a key before somebody has made one.

        Only this machine can connect, and nothing says that others come through it: no proxy, no other name, no tokens. A
        `key_file` that is set and missing says that somebody has made one: see `KeyFile.prepare`.
        """
        return self.is_local and not (self.allowed_hosts or self.trusted_proxies or self.oidc_issuer)

    @property
    def with_templates(self) -> bool:
        """See `templates`."""
        return self.is_local if self.templates is None else self.templates

    @property
    def token_rules(self) -> TokenRules | None:
        """Which bearer tokens are accepted, or None: there is no issuer.

        Raises:
            UsageError: A setting is wrong, or there is one without an issuer.
        """
        if not self.oidc_issuer:
            if self.oidc_audience or self.oidc_jwks_url:
                raise UsageError("oidc_issuer is missing: expected the 'iss' of the tokens that are accepted")
            return None
        return TokenRules.of(
            issuer=self.oidc_issuer,
            audience=self.oidc_audience,
            algorithms=self.oidc_algorithms,
            roles=self.oidc_roles,
            jwks_url=self.oidc_jwks_url,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **given: Any) -> HttpOptions:
        """Options from the environment; what is given and not None goes first.

        Raises:
            UsageError: A variable cannot be read; the message names it.
        """
        variables = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for one in fields(cls):
            variable = f"DURABLY_HTTP_{one.name.upper()}"
            text = variables.get(variable)
            if text:
                values[one.name] = _read(variable, text, str(one.type))
        return cls(**{**values, **{name: value for name, value in given.items() if value is not None}})

    def keys_at(self, hub_url: str) -> Path | None:
        """Where the keys of a hub are, or None: in memory, as long as the host lives.

        Args:
            hub_url: The URL of the store.
        """
        return Path(self.key_file) if self.key_file else beside(hub_url)

    def audit_at(self, hub_url: str) -> Path | None:
        """Where the audit log of a hub is, or None: there is none.

        Args:
            hub_url: The URL of the store.
        """
        if not self.audit:
            return None
        return Path(self.audit_file) if self.audit_file else audit_beside(hub_url)

    def hub_at(self, hub_url: str) -> str:
        """The name of a hub: `hub_name`, or what its file or schema is called."""
        if self.hub_name:
            return self.hub_name
        stem = re.sub(r"[^A-Za-z0-9_.-]", "", hub_name(hub_url))
        return stem[:45] or "hub"


def _check_proxies(text: str) -> None:
    for part in text.split(",") if text else ():
        try:
            ipaddress.ip_network(part.strip())
        except ValueError as error:
            raise UsageError(
                f"trusted_proxies has {part!r} ({error}): expected addresses or networks such as 10.0.0.0/8"
            ) from None


_FLAGS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _read(variable: str, text: str, kind: str) -> Any:
    try:
        if "bool" in kind:
            return _FLAGS[text.strip().lower()]
        if kind == "int":
            return int(text)
        return float(text) if kind == "float" else text
    except (KeyError, ValueError):
        wanted = "true or false" if "bool" in kind else "a number"
        raise UsageError(f"{variable} is {text!r}: expected {wanted}") from None
