"""What the routes work on: a hub, and the limits of its face."""

from __future__ import annotations

from dataclasses import dataclass, field

from durably.client import Client
from durably.clock import Clock, Random, SystemClock
from durably.http_api.options import BODY_BYTES_MAX
from durably.http_api.starting import Starts
from durably.management import Management
from durably.program.registry import Registry


@dataclass(frozen=True)
class Served:
    """A hub that is served over HTTP.

    Attributes:
        client: For what is typed.
        management: For payloads that go through as they are.
        random: Draws ids.
        hub: The name by which clients of Durable Functions know it (``taskHub``).
        body_bytes_max: See `BODY_BYTES_MAX`.
        registry: The functions of the host.
        clock: Of the host.
        on_existing: What a start does when its id is taken, see `StartInstance`.
        starts: How much may be started; None: as much as they like.
        json_twice: Bodies are JSON texts that are sent as JSON strings, as the official client does.
    """

    client: Client
    management: Management
    random: Random
    hub: str
    body_bytes_max: int = BODY_BYTES_MAX
    registry: Registry = field(default_factory=Registry)
    clock: Clock = field(default_factory=SystemClock)
    on_existing: str = "replace_finished"
    starts: Starts | None = None
    json_twice: bool = False
