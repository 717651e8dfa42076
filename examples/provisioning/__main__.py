"""Provision a fleet, say which devices have failed and why, and compare the inventory with what was asked for.

The next run with the same folder takes those up again that have failed, and no others.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from durably import Client, Handle, RuntimeStatus
from examples.command import command, count, run
from examples.effects import create, query
from examples.provisioning.app import SCHEMA, Fleet, Provisioned, app, provision_fleet
from examples.provisioning.gateway import open_gateway


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Provision, or go on where it was; the exit code says whether the inventory is right."""
    os.environ["PROVISIONING_DIR"] = str(folder)
    database = folder / "inventory.db"
    create(database, SCHEMA)
    offline = folder / "offline.txt"
    if not offline.exists():
        offline.write_text("".join(f"{serial}\n" for serial in serials(arguments.devices)[120::250]))

    start = time.monotonic()
    async with (
        open_gateway(folder) as os.environ["PROVISIONING_GATEWAY"],
        app.host(f"sqlite:///{folder / 'hub.db'}") as host,
    ):
        fleet = Fleet(serials(arguments.devices), arguments.group_size)
        done = await follow(await begin(host.client, f"fleet-{arguments.devices}", fleet))
    print(f"{done.active} devices are active, {len(done.failed)} failed, in {time.monotonic() - start:.1f} s")
    for serial, why in done.failed.items():
        print(f"  {serial}: {why}")
    if done.failed and arguments.dir:
        print(
            f"the devices in {offline} do not answer: take them out, and run this again for those that failed"
        )

    sql = "SELECT count(*), count(DISTINCT address), count(DISTINCT device_id) FROM addresses"
    addresses = query(database, sql)[0]
    (active,) = query(database, "SELECT count(*) FROM devices WHERE state = 'active'")[0]
    configs = len(list((folder / "configs").glob("*.json")))
    print(f"{database}: {addresses[0]} addresses of {addresses[2]} devices, {active} devices active")
    print(f"{folder}/configs: {configs} files")
    return active == arguments.devices - len(done.failed) <= configs and addresses == (arguments.devices,) * 3


async def begin(client: Client, name: str, fleet: Fleet) -> Handle[Provisioned]:
    """The run that is under way; when it is over, one more for the devices that failed in it; else the first one."""
    number = 1
    while (status := await client.get_status(f"{name}-run-{number}")) is not None:
        if status.runtime_status is not RuntimeStatus.Completed:
            break
        last = await client.handle(status.instance_id, Provisioned).result()
        if not last.failed:
            break
        fleet = Fleet(list(last.failed), fleet.group_size)
        number += 1
    if number > 1:
        print(f"run {number}, for the {len(fleet.serials)} devices that failed in the one before")
    return await client.start(
        provision_fleet, fleet, instance_id=f"{name}-run-{number}", on_existing="attach"
    )


async def follow(handle: Handle[Provisioned]) -> Provisioned:
    """The result; until it is there, look at the custom status from time to time, as a dashboard does."""
    shown = None
    while True:
        try:
            return await handle.result(timeout=0.1)
        except TimeoutError:
            status = await handle.status()
            if status and status.custom_status not in (None, shown):
                shown = status.custom_status
                print(f"  {shown['active'] + shown['failed']:>5} of {shown['of']}")


def serials(number: int) -> list[str]:
    """The serial numbers of a fleet. One device in 400 is of a model that nobody knows: it ends in -x."""
    return [f"device-{n:05}{'-x' if n % 400 == 399 else ''}" for n in range(number)]


parser = command("provisioning", "Sub-orchestrations: a fleet, its groups, their devices.")
parser.add_argument("--devices", type=count, default=1_000, help="how many devices (1000)")
parser.add_argument("--group-size", type=count, default=50, help="devices in a group (50)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
