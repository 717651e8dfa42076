"""What a host shows and what the model says, in the same words."""

from __future__ import annotations

import asyncio
from itertools import zip_longest
from typing import Any

from durably import (
    Client,
    EntityOperationFailedError,
    FailureDetails,
    HubClosedError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceStateError,
    InstanceStatus,
    OrchestrationFailedError,
)
from tests.model.reference import Model
from tests.model.state import Instance
from tests.model.words import (
    Ask,
    Failure,
    Order,
    Outcome,
    Purge,
    Raise,
    Restart,
    Signal,
    Start,
)
from tests.support.clock import START

DIED: Outcome = ("HubClosedError",)


def in_order(statuses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By creation; instances that others start in one instant have no order of their own."""
    return sorted(statuses, key=lambda status: (status["created"], status["instance_id"]))


def by_clients(statuses: list[dict[str, Any]]) -> list[str]:
    return [
        status["instance_id"]
        for status in statuses
        if ":" not in status["instance_id"] and not status["parent"]
    ]


def agree(what: str, seen: Any, expected: Any) -> None:
    """Tell where host and model part."""
    if seen == expected:
        return
    if isinstance(seen, list) and isinstance(expected, list):
        pairs = zip_longest(seen, expected, fillvalue="nothing")
        at, seen, expected = next((at, *pair) for at, pair in enumerate(pairs) if pair[0] != pair[1])
        what = f"{what}, number {at}"
    if isinstance(seen, dict) and isinstance(expected, dict):
        what = f"{what} of {seen['instance_id']}"
        keys = [key for key in expected if seen[key] != expected[key]]
        seen, expected = ({key: side[key] for key in keys} for side in (seen, expected))
    raise AssertionError(f"{what}: the host has {seen}, the model {expected}")


async def outcome(client: Client, instance_id: str, message: Any) -> Outcome:
    try:
        answer = await _call(client, instance_id, message)
    except InstanceNotFoundError:
        return ("InstanceNotFoundError",)
    except InstanceAlreadyExistsError as error:
        return ("InstanceAlreadyExistsError", error.status)
    except InstanceStateError as error:
        return ("InstanceStateError", error.status, error.operation)
    except EntityOperationFailedError as error:
        return ("EntityOperationFailedError", error.details.message)
    except HubClosedError:
        return DIED
    return ("ok", answer) if isinstance(message, Purge | Ask) else ("ok",)


async def _call(client: Client, instance_id: str, message: Any) -> Any:
    match message:
        case Start():
            return await client.start(
                message.name,
                message.input,
                instance_id=instance_id,
                start_at=message.delay_s,
                tags=dict(message.tags),
                on_existing=message.on_existing,  # type: ignore[arg-type]
            )
        case Raise():
            return await client.raise_event(instance_id, message.event, message.data)
        case Restart():
            return await client.restart(instance_id)
        case Signal():
            return await client.signal_entity(
                instance_id, message.operation, message.input, at=message.delay_s
            )
        case Ask():
            return await client.call_entity(instance_id, message.operation, message.input)
        case Order():
            return await getattr(client, message.verb)(instance_id, message.reason)
        case _:
            return await client.purge(instance_id)


def result_of(task: asyncio.Task[Any]) -> Outcome:
    error = task.exception()
    match error:
        case None:
            return ("ok", task.result())
        case OrchestrationFailedError():
            return ("OrchestrationFailedError", error.status, _failure(error.details))
        case _:
            return (type(error).__name__,)


def _failure(details: FailureDetails | None) -> Failure | None:
    return None if details is None else Failure(details.type, details.message, _failure(details.inner))


def seen_of(status: InstanceStatus) -> dict[str, Any]:
    return {
        "instance_id": status.instance_id,
        "name": status.name,
        "version": status.version,
        "status": str(status.runtime_status),
        "created": (status.created_time - START).total_seconds(),
        "updated": (status.last_updated_time - START).total_seconds(),
        "input": status.input,
        "output": status.output,
        "custom_status": status.custom_status,
        "failure": _failure(status.failure),
        "blocked": status.blocked,
        "tags": status.tags,
        "parent": status.parent_instance_id,
    }


async def seen_entities(client: Client) -> list[dict[str, Any]]:
    page = await client.query_entities(include_transient=True, page_size=1_000)
    seen: list[dict[str, Any]] = []
    for one in page.entities:
        found = await client.get_entity(one.entity_id)
        assert found is not None
        state: Any = one.state
        seen.append(
            {
                "instance_id": str(one.entity_id),
                "held": None if state is None else state["held"],
                "locked by": one.locked_by,
                "later": one.scheduled,
                "waiting": found.waiting,
            }
        )
    return seen


def expected_entities(model: Model) -> list[dict[str, Any]]:
    return [
        {
            "instance_id": entity_id,
            "held": entity.held,
            "locked by": None if entity.holder is None else entity.holder.instance_id,
            "later": len(entity.delayed),
            "waiting": len(entity.waiting),
        }
        for entity_id, entity in sorted(model.entities.all.items())
        if entity.exists
    ]


def expected_of(instance: Instance) -> dict[str, Any]:
    parent = instance.start.parent
    return {
        "instance_id": instance.instance_id,
        "name": instance.start.name,
        "version": None,
        "status": instance.status,
        "created": instance.created,
        "updated": instance.updated,
        "input": instance.input,
        "output": instance.output,
        "custom_status": instance.custom_status,
        "failure": None if instance.status == "Terminated" else instance.failure,
        "blocked": None,
        "tags": dict(instance.start.tags),
        "parent": None if parent is None else parent[0],
    }
