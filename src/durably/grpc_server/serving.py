"""Puts the face of a host together: keys, audit log, calls, server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from durably.client import Client
from durably.clock import Clock, Random
from durably.grpc_server.auditing import Auditor
from durably.grpc_server.gate import Gate
from durably.grpc_server.hubs import ClosedHub, Hubs
from durably.grpc_server.served import Served
from durably.grpc_server.server import Address, GrpcServer
from durably.grpc_server.service import TaskHubService, WorkService
from durably.http_api.options import HttpOptions
from durably.management import Management
from durably.security.audit_log import AuditLog
from durably.security.buckets import Buckets


def hub_service(
    client: Client,
    management: Management,
    gate: Gate,
    *,
    clock: Clock,
    random: Random,
    hub_url: str,
    options: HttpOptions,
    is_unstarted: Callable[[str], bool] | None = None,
    work: WorkService | None = None,
) -> TaskHubService:
    """What a server answers about the hub of a host.

    Args:
        client: Of the host.
        management: Of the host.
        gate: Who is let in.
        clock: Of the host.
        random: Of the host.
        hub_url: The URL of its store.
        options: Of HTTP: the audit log, the name of the hub and the limits are the same.
        is_unstarted: See `Served`.
        work: The side of the workers.
    """
    hub = options.hub_at(hub_url)
    per_s = options.max_starts_per_second
    served = Served(
        client=client,
        management=management,
        clock=clock,
        random=random,
        hub=hub,
        is_unstarted=is_unstarted,
        starts=Buckets(per_s, per_s) if per_s else None,
    )
    path = options.audit_at(hub_url)
    audit = Auditor(None if path is None else AuditLog(path, options.audit_max_bytes), hub, clock, random)
    return TaskHubService(served, gate, audit, work)


def grpc_server(
    service: TaskHubService,
    address: Address,
    options: HttpOptions,
    *,
    name: str = "",
    others: frozenset[str] = frozenset(),
    find: Callable[[str], ClosedHub] | None = None,
) -> GrpcServer:
    """A server, which is to be started.

    Args:
        service: Of the hub that it serves.
        address: Where to listen.
        options: Of HTTP: the files for TLS are the same.
        name: Of the hub.
        others: Other hubs that calls may mean, see `Hubs`.
        find: See `Hubs`.

    Raises:
        UsageError: A file for TLS cannot be used.
    """
    if find is None or not others:
        return GrpcServer(service, address, options)
    return GrpcServer(Hubs(service, name, others, find), address, options)


def options_at(options: HttpOptions, address: Address) -> HttpOptions:
    """The options of HTTP as they hold for gRPC: who may connect is said by its own address."""
    return replace(options, bind=address.host, port=address.port)
