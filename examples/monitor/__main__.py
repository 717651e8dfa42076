"""Watch a target until Ctrl-C; without one, watch a file of our own that changes, and stop by ourselves."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from durably import Handle, InstanceStateError
from examples.command import at_least, command, run
from examples.monitor.app import Watch, app, monitor


async def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Start the monitor or go on with the one that is there, follow it, and show its alerts."""
    target = arguments.target or str(folder / "service.txt")
    if not target.startswith(("http://", "https://")):
        target = str(Path(target).resolve())
    watch = Watch(target, arguments.text, arguments.every, str(folder / "alerts"))

    async with app.host(f"sqlite:///{folder / 'hub.db'}") as host:
        handle = await host.client.start(monitor, watch, instance_id="monitor", on_existing="attach")
        if await has_ended(handle):
            print("this monitor was stopped earlier")
        elif arguments.target:
            print(f"watching {target} for '{watch.text}'; Ctrl-C sends the event that stops it")
            await stop_on_ctrl_c(handle)
        else:
            await play(handle, Path(target))
        last = await handle.result()
        events = len(await handle.history())

    print(
        f"\nstopped after {last.looks} looks, {last.changes} changes; {events} events of history in the last round"
    )
    print(f"{watch.alerts}:")
    for alert in sorted(Path(watch.alerts).glob("*.json")):
        print(f"  {alert.name}")
    return True


async def play(handle: Handle[Watch], target: Path) -> None:
    """A service that comes, goes, and comes back. Each scene lasts until the monitor has seen it."""
    for content, holds in (("starting", False), ("ready", True), ("on fire", False), ("ready", True)):
        target.write_text(f"{content}\n")
        print(f"{target.name} says '{content}'")
        while not await has_ended(handle):
            seen = await seen_by(handle)
            if seen and seen["holds"] is holds:
                print(f"  seen at look {seen['looks']}")
                break
            await asyncio.sleep(0.02)
    await stop(handle)


async def stop_on_ctrl_c(handle: Handle[Watch]) -> None:
    """Print what the monitor sees, until Ctrl-C."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, asked.set)
    shown = None
    while not asked.is_set() and not await has_ended(handle):
        seen = await seen_by(handle)
        if seen and seen["changes"] != shown:
            shown = seen["changes"]
            print(f"look {seen['looks']}: {'yes' if seen['holds'] else 'no'}")
        try:
            await asyncio.wait_for(asked.wait(), 0.1)
        except TimeoutError:
            continue
    await stop(handle)


async def stop(handle: Handle[Watch]) -> None:
    """Raise the event that ends the monitor."""
    try:
        await handle.raise_event("Stop", data=True)
    except InstanceStateError as error:
        print(error)  # somebody else was faster


async def has_ended(handle: Handle[Watch]) -> bool:
    """Whether there is nothing to stop any more."""
    status = await handle.status()
    return status is None or status.runtime_status.is_terminal


async def seen_by(handle: Handle[Watch]) -> dict[str, Any] | None:
    """What the monitor said of its last look."""
    status = await handle.status()
    return status.custom_status if status else None


parser = command("monitor", "An eternal monitor: continue-as-new, ended by an event.")
parser.add_argument("target", nargs="?", help="a file or URL; else a file that the example changes itself")
parser.add_argument("--text", default="ready", help="what the target should contain (ready)")
parser.add_argument("--every", type=at_least(0.01), default=0.1, help="seconds between two looks (0.1)")

if __name__ == "__main__":
    sys.exit(run(parser, main))
