"""Bulk provisioning: a fleet starts groups, a group starts devices, a device takes four steps. Each is an instance.

A device that fails does not spoil its group, and a child that is done is never run again, whatever happens to its
parent. What the levels are good for: each has a short history, a status of its own, and an id to find it by.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

from durably import (
    App,
    NonRetryableError,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
)
from examples.effects import transaction, write_file

app = App()

SCHEMA = """
CREATE TABLE IF NOT EXISTS addresses (address INTEGER PRIMARY KEY, device_id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS devices (device_id TEXT PRIMARY KEY, address TEXT NOT NULL, state TEXT NOT NULL);
"""


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fleet:
    """What to provision."""

    serials: list[str]
    group_size: int


@dataclass(frozen=True)
class Group:
    """Some devices of a fleet."""

    number: int
    serials: list[str]


@dataclass(frozen=True)
class Device:
    """A device that has got an address."""

    device_id: str
    address: str


@dataclass(frozen=True)
class Provisioned:
    """What came of a group or a fleet: how many devices are active, and why the others are not."""

    active: int
    failed: dict[str, str]


# --- activities -------------------------------------------------------------------------------------------------------
#
# A database has one writer at a time. `max_concurrent` lets a few calls wait for it, not a thousand.


class UnknownModelError(NonRetryableError):
    """There is no firmware for this device, and there will not be one in a second."""


class NoAnswerError(Exception):
    """The device did not answer. It may the next time."""


def files() -> Path:
    """The folder of inventory.db and configs/. Configuration comes from the environment, as in any service."""
    return Path(os.environ.get("PROVISIONING_DIR", "."))


@app.activity(max_concurrent=4)
def assign_address(serial: str) -> Device:
    """Take the next free address. A device that has got one keeps it, in this run and in the next one."""
    with transaction(files() / "inventory.db") as db:
        db.execute("INSERT INTO addresses (device_id) VALUES (?) ON CONFLICT DO NOTHING", (serial,))
        find = "SELECT address FROM addresses WHERE device_id = ?"
        (number,) = db.execute(find, (serial,)).fetchone()
    return Device(serial, f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")


@app.activity(max_concurrent=8)
def write_config(device: Device) -> None:
    """Write the file that the device boots with. The name is that of the device: writing it again replaces it."""
    if device.device_id.endswith("-x"):
        raise UnknownModelError("there is no firmware for its model")
    content = {"device_id": device.device_id, "address": device.address}
    write_file(files() / "configs" / f"{device.device_id}.json", json.dumps(content).encode())


@app.activity(max_concurrent=50)
async def call_device(device: Device) -> None:
    """Tell the device its address, by radio. Telling it twice is telling it once."""
    host, _, port = os.environ["PROVISIONING_GATEWAY"].rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{device.device_id} {device.address}\n".encode())
        answer = await reader.readline()
        writer.close()
    except OSError as error:
        raise NoAnswerError(f"no gateway: {error}") from None
    if answer != b"ok\n":
        raise NoAnswerError("does not answer")


@app.activity(max_concurrent=4)
def activate(device: Device) -> None:
    """Enter the device into the inventory. It has one row, however often this runs."""
    with transaction(files() / "inventory.db") as db:
        db.execute(
            "INSERT INTO devices VALUES (?, ?, 'active') ON CONFLICT DO NOTHING",
            (device.device_id, device.address),
        )


# --- the orchestrators, from the small to the large -------------------------------------------------------------------

PATIENT = RetryPolicy(first_retry_interval=1, max_number_of_attempts=5, backoff_coefficient=2)

# 0.1, 0.2, 0.4 s between four tries: minutes in real life.
BY_RADIO = RetryPolicy(first_retry_interval=0.1, max_number_of_attempts=4, backoff_coefficient=2)


@app.orchestrator
async def provision_device(ctx: OrchestrationContext, serial: str) -> Device:
    """Four steps, one after the other."""
    device = await ctx.call_activity(assign_address, serial, retry=PATIENT)
    await ctx.call_activity(write_config, device, retry=PATIENT)
    await ctx.call_activity(call_device, device, retry=BY_RADIO)
    await ctx.call_activity(activate, device, retry=PATIENT)
    return device


@app.orchestrator
async def provision_group(ctx: OrchestrationContext, group: Group) -> Provisioned:
    """All devices of a group at once; those that fail are collected."""
    children = {
        # An id to find the device by. Without one, a child gets an id made of its parent's.
        serial: ctx.call_sub_orchestrator(
            provision_device, serial, instance_id=f"{ctx.parent_instance_id}-{serial}"
        )
        for serial in group.serials
    }
    failed: dict[str, str] = {}
    for serial, child in children.items():
        try:
            await child
        except TaskFailedError as error:
            cause = error.details.inner or error.details
            failed[serial] = cause.message
    return Provisioned(len(children) - len(failed), failed)


@app.orchestrator
async def provision_fleet(ctx: OrchestrationContext, fleet: Fleet) -> Provisioned:
    """All groups at once; the custom status tells how far it is, each time a group is done."""
    size = fleet.group_size
    parts = [fleet.serials[at : at + size] for at in range(0, len(fleet.serials), size)]
    groups = [
        ctx.call_sub_orchestrator(
            provision_group, Group(number, part), instance_id=f"{ctx.instance_id}-group-{number}"
        )
        for number, part in enumerate(parts)
    ]
    active, failed = 0, dict[str, str]()
    async for group in ctx.as_completed(groups):
        part = group.result()
        active += part.active
        failed |= part.failed
        ctx.set_custom_status({"of": len(fleet.serials), "active": active, "failed": len(failed)})
    return Provisioned(active, failed)
