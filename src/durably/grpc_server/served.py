"""What the calls work on: a hub, and who asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from durably.client import Client
from durably.clock import Clock, Random
from durably.core.ids import check_instance_id
from durably.core.notices import OWN
from durably.errors import InstanceNotFoundError, InvalidIdError
from durably.executors.remote.wire import Message
from durably.grpc_server.refusals import Code, Refusal
from durably.management import Management
from durably.security.buckets import Buckets
from durably.security.roles import Principal

ID_CHARS_MAX: Final = 100
"""Of ids that clients choose over gRPC, as the Durable Task Scheduler has it. Ids of other faces may be longer."""

PAGE_BYTES_MAX: Final = 2 * 1024 * 1024
"""Of payloads in a page: clients take 4 MiB by default, and one payload may be that long by itself."""

BATCH_MAX: Final = 500
"""Ids in a batch of one call."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was let in.

    Attributes:
        principal: Who asks.
        context: Of gRPC (`grpc.aio.ServicerContext`).
    """

    principal: Principal
    context: Any

    @property
    def sees_payloads(self) -> bool:
        """Whether the answer may have inputs, outputs and whatever may quote them."""
        return self.principal.may("payloads")


class Rpc(NamedTuple):
    """A call that there is.

    Attributes:
        takes: The class of its request.
        needs: The permission that it takes, one of `durably.security.roles.PERMISSIONS`; "" for none.
        act: Answers it: with a message, or when it `streams` with an asynchronous iterator of messages.
        streams: Its answer is a stream.
    """

    takes: type[Message]
    needs: str
    act: Callable[[Any, Call], Any]
    streams: bool = False


Rpcs = dict[str, Rpc]
"""By the name of the method."""

Act = Callable[[Any, Call], Awaitable[Message]]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A hub that is served over gRPC.

    Attributes:
        client: For what it does with more than one instance.
        management: For all else; payloads go through as they are.
        clock: Of the host.
        random: Draws ids.
        hub: Its name, in the metadata of calls (``taskhub``).
        is_unstarted: Of an instance that is Running: nobody has begun its code yet, so clients are told Pending. None: the
            engine's word holds for all.
        starts: How much each principal may start; None: as much as it likes.
    """

    client: Client
    management: Management
    clock: Clock
    random: Random
    hub: str
    is_unstarted: Callable[[str], bool] | None = None
    starts: Buckets | None = None

    def take_start(self, principal: Principal) -> None:
        """Count a start.

        Raises:
            Refusal: RESOURCE_EXHAUSTED.
        """
        wait_s = 0.0 if self.starts is None else self.starts.take(principal.name, 1)
        if wait_s:
            text = f"The {principal.name} starts too many: try again in {wait_s:.1f} s"
            raise Refusal(Code.RESOURCE_EXHAUSTED, text, "TooManyStarts")


def check_length(instance_id: str) -> None:
    """Refuse an id that the protocol does not have.

    Raises:
        Refusal: INVALID_ARGUMENT.
    """
    if len(instance_id) > ID_CHARS_MAX:
        raise Refusal(
            Code.INVALID_ARGUMENT,
            f"The length of id '{instance_id[:40]}…' is {len(instance_id)} characters: expected {ID_CHARS_MAX} at most",
        )


def is_instance(instance_id: str) -> bool:
    """Whether this may be the id of an instance at all: nothing else is sent to the engine, or to an entity by mistake."""
    try:
        check_instance_id(instance_id)
    except InvalidIdError:
        return False
    return True


def existing(instance_id: str) -> str:
    """The id of an instance that is meant to be there.

    Raises:
        InstanceNotFoundError: It cannot be one.
    """
    if not is_instance(instance_id):
        raise InstanceNotFoundError(instance_id)
    return instance_id


def check_orchestrator(name: str) -> None:
    """Refuse to start an orchestrator that every host has: its input is trusted, with the secrets of the host.

    Raises:
        Refusal: PERMISSION_DENIED.
    """
    if name.startswith(OWN):
        raise Refusal(
            Code.PERMISSION_DENIED,
            f"Orchestrator {name[:100]!r} is the runtime's own: expected one of the app, whose name does not begin with '{OWN}'",
        )


def check_batch(count: int) -> None:
    """Refuse a batch that is too long.

    Raises:
        Refusal: INVALID_ARGUMENT.
    """
    if count > BATCH_MAX:
        raise Refusal(
            Code.INVALID_ARGUMENT, f"The batch has {count} instance ids: expected {BATCH_MAX} at most"
        )
