"""Provision a fleet, with a line for each step of its progress, and compare the inventory with what was asked for."""

import argparse
import os
import sys
import time
from pathlib import Path

from durably import Handle
from examples.command import command, count, run
from examples.effects import create, query
from examples.provisioning.app import SCHEMA, Fleet, Provisioned, app, provision_fleet


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Provision, or go on where it was; the exit code says whether the inventory is right."""
    os.environ["PROVISIONING_DIR"] = str(folder)
    database = folder / "inventory.db"
    create(database, SCHEMA)
    fleet = Fleet(serials(arguments.devices), arguments.group_size)

    start = time.monotonic()
    async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
        handle = await host.client.start(
            provision_fleet, fleet, instance_id=f"fleet-{arguments.devices}", on_existing="attach"
        )
        done = await follow(handle)
    print(f"{done.active} devices are active, {len(done.failed)} failed, in {time.monotonic() - start:.1f} s")
    for why in done.failed.values():
        print(f"  {why}")

    sql = "SELECT count(*), count(DISTINCT address), count(DISTINCT device_id) FROM addresses"
    addresses = query(database, sql)[0]
    (active,) = query(database, "SELECT count(*) FROM devices WHERE state = 'active'")[0]
    configs = len(list((folder / "configs").glob("*.json")))
    print(f"{database}: {addresses[0]} addresses of {addresses[2]} devices, {active} devices active")
    print(f"{folder}/configs: {configs} files")
    return active == configs == done.active and addresses == (arguments.devices,) * 3


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
