"""Puts the face of a host together: keys, access, routes, server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from durably.bindings.outlets import Outlets
from durably.client import Client
from durably.clock import Clock, Random
from durably.codec.convert import Converter
from durably.errors import RegistrationError, UsageError
from durably.http_api.access import Access
from durably.http_api.application import HostApp
from durably.http_api.auditing import Auditor
from durably.http_api.functions.routes import HttpFunctions
from durably.http_api.mounts.mount import Mounts
from durably.http_api.options import HttpOptions
from durably.http_api.served import Served
from durably.http_api.starting import Starts
from durably.management import Management
from durably.program.registry import Registry
from durably.security.audit_log import AuditLog
from durably.security.failures import Failures
from durably.security.key_file import Glance, KeyFile

if TYPE_CHECKING:
    from pathlib import Path

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
    outlets: Outlets,
    mounts: Mounts | None = None,
    hub_url: str,
    options: HttpOptions,
    time_limit_s: float = 0.0,
) -> HostApp:
    """The application of a host. A secret for links is made where there is none.

    HTTP functions have the time limit of `EngineOptions.function_timeout_s`.

    Raises:
        RegistrationError: An HTTP function has a parameter that nothing would fill, or an output that cannot be written.
        UsageError: Others than this machine could connect, and there is no credential yet.
        OperationError: The key file cannot be read or written.
    """
    for function in functions:
        function.check(outlets)
    mounts = Mounts() if mounts is None else mounts
    _check_names(functions, mounts)
    hub = options.hub_at(hub_url)
    access = _access(hub, _keys(options, hub_url, clock), options.keys_at(hub_url), options, clock)
    served = Served(
        client,
        management,
        random,
        hub,
        options.max_body_bytes,
        registry,
        clock,
        on_existing="replace" if options.replace_running else "replace_finished",
        starts=Starts(options.max_starts_per_second) if options.max_starts_per_second else None,
    )
    return HostApp(
        served,
        access,
        functions,
        converter,
        outlets=outlets,
        mounts=mounts,
        route_prefix=options.route_prefix,
        outstanding_max=options.max_outstanding_requests,
        concurrent_max=options.max_concurrent_requests,
        time_limit_s=time_limit_s,
        audit=Auditor(_audit_log(options, hub_url), hub, clock.now, random),
        body_timeout_s=options.body_timeout_s,
        stop_s=options.max_wait_s,
    )


def _keys(options: HttpOptions, hub_url: str, clock: Clock) -> Glance | None:
    if options.insecure:
        return None
    keys = KeyFile(options.keys_at(hub_url), clock.now)
    if not (options.is_local or options.oidc_issuer or keys.ring.keys):
        where = "" if keys.path else ", with DURABLY_HTTP_KEY_FILE for where this hub has its keys"
        raise UsageError(
            f"bind is {options.bind!r} and there is no credential yet: beyond this machine nobody is served without. Make a "
            f"key first ('durably keys create NAME --role ROLE'{where}), set oidc_issuer, or bind to 127.0.0.1"
        )
    keys.prepare(shut=bool(options.key_file))
    return Glance(keys)


def _access(
    hub: str, keys: Glance | None, key_file: Path | None, options: HttpOptions, clock: Clock
) -> Access:
    return Access(
        hub,
        keys,
        options.names,
        clock.now,
        templates=options.with_templates,
        issuer=_issuer(options, clock),
        open_until_keys=options.open_until_keys,
        key_file=key_file,
        failures=Failures(options.max_failures_per_minute),
    )


def _check_names(functions: HttpFunctions, mounts: Mounts) -> None:
    names = {function.name for function in functions}
    for mount in mounts:
        if mount.name in names:
            raise RegistrationError(
                f"The application at '{mount.path}' and an HTTP function are both named '{mount.name}', so a key of one would "
                "open the other: give one of them name=…"
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
