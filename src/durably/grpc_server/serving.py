"""Puts the face of a host together: keys, audit log, calls, server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from durably.client import Client
from durably.clock import Clock, Random
from durably.grpc_server.auditing import Auditor
from durably.grpc_server.gate import Gate
from durably.grpc_server.served import Served
from durably.grpc_server.server import Address, GrpcServer
from durably.grpc_server.service import TaskHubService, WorkService
from durably.http_api.options import HttpOptions
from durably.management import Management
from durably.security.audit_log import AuditLog
from durably.security.buckets import Buckets


def grpc_server(
    client: Client,
    management: Management,
    *,
    clock: Clock,
    random: Random,
    hub_url: str,
    address: Address,
    options: HttpOptions,
    is_unstarted: Callable[[str], bool] | None = None,
    work: WorkService | None = None,
) -> GrpcServer:
    """The server of a host, which is to be started.

    Args:
        client: Of the host.
        management: Of the host.
        clock: Of the host.
        random: Of the host.
        hub_url: The URL of its store.
        address: Where to listen.
        options: Of HTTP: keys, tokens, TLS, the audit log and the name of the hub are the same. Their `bind` is not heeded.
        is_unstarted: See `Served`.
        work: The side of the workers.

    Raises:
        UsageError: Others than this machine could connect, and nobody would ask them for a credential, or none is there.
        OperationError: The key file cannot be read or written.
    """
    here = replace(options, bind=address.host, port=address.port)
    hub = here.hub_at(hub_url)
    per_s = here.max_starts_per_second
    served = Served(
        client=client,
        management=management,
        clock=clock,
        random=random,
        hub=hub,
        is_unstarted=is_unstarted,
        starts=Buckets(per_s, per_s) if per_s else None,
    )
    path = here.audit_at(hub_url)
    audit = Auditor(None if path is None else AuditLog(path, here.audit_max_bytes), hub, clock, random)
    service = TaskHubService(served, Gate.of(here, hub_url, clock), audit, work)
    return GrpcServer(service, address, here)
