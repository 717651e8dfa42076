"""Puts the face of a host together: keys, access, routes, server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from durably.client import Client
from durably.clock import Clock, Random
from durably.codec.convert import Converter
from durably.http_api.access import Access
from durably.http_api.application import HostApp
from durably.http_api.auditing import Auditor
from durably.http_api.functions.routes import HttpFunctions
from durably.http_api.options import HttpOptions
from durably.http_api.served import Served
from durably.management import Management
from durably.program.registry import Registry
from durably.security.audit_log import AuditLog
from durably.security.failures import Failures
from durably.security.key_file import KeyFile

if TYPE_CHECKING:
    from durably.security.issuer import Issuer


def host_app(
    client: Client,
    management: Management,
    functions: HttpFunctions,
    *,
    registry: Registry,
    converter: Converter,
    clock: Clock,
    random: Random,
    hub_url: str,
    options: HttpOptions,
) -> HostApp:
    """The application of a host. The standard keys are made where they are missing.

    Raises:
        RegistrationError: An HTTP function has a parameter that nothing would fill.
        OperationError: The key file cannot be read or written.
    """
    for function in functions:
        function.check()
    hub = options.hub_at(hub_url)
    keys = None
    if not options.insecure:
        keys = KeyFile(options.keys_at(hub_url), clock.now)
        keys.prepare()
    served = Served(client, management, random, hub, options.max_body_bytes, registry, clock)
    access = Access(
        hub,
        None if keys is None else lambda: keys.ring,
        options.names,
        clock.now,
        templates=options.with_templates,
        issuer=_issuer(options, clock),
        failures=Failures(options.max_failures_per_minute),
    )
    return HostApp(
        served,
        access,
        functions,
        converter,
        route_prefix=options.route_prefix,
        outstanding_max=options.max_outstanding_requests,
        audit=Auditor(_audit_log(options, hub_url), hub, clock.now, random),
        body_timeout_s=options.body_timeout_s,
    )


def _audit_log(options: HttpOptions, hub_url: str) -> AuditLog | None:
    path = options.audit_at(hub_url)
    return None if path is None else AuditLog(path, options.audit_max_bytes)


def _issuer(options: HttpOptions, clock: Clock) -> Issuer | None:
    rules = options.token_rules
    if rules is None:
        return None
    from durably.security.issuer import Issuer  # cryptography takes a while to load

    return Issuer(rules, clock.now)
