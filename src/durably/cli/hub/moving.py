"""``durably hub export``, ``import`` and ``copy``."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from durably.cli.output import Exit, say
from durably.cli.settings import hub_argument, quiet_option, shared

if TYPE_CHECKING:
    from durably.storage.api import Store
    from durably.storage.moving import Counted

_PARTIAL = ".partial"
"""Behind the name of a file that is being written."""

_EXAMPLES = """\b
Examples:
  durably hub export sqlite:///durably.db backup.hub
  durably hub export postgresql://app@db/shop - | ssh vault 'cat > shop.hub'
"""


@click.command("export", short_help="Write a hub into a file: a backup.", epilog=_EXAMPLES)
@hub_argument("url")
@click.argument("file", metavar="FILE|-")
@quiet_option
@shared
def export_command(*, url: str, file: str, quiet: bool) -> int:
    """Write all of a hub into a new file, or to stdout, as it is at this moment. Hosts may go on serving it.

    What is encrypted stays encrypted, and no key is needed. Where nothing is encrypted the file holds payloads as they
    are: only its owner may read it.
    """
    import asyncio

    from durably.clock import SystemClock
    from durably.storage.moving import export_hub

    with _counted(quiet=quiet) as counted:

        async def run() -> None:
            async with _opened(url) as store:
                with _written(file) as write:
                    await export_hub(store, write, SystemClock().now(), counted)

        asyncio.run(run())
    say(f"Exported {_total(counted)}")
    return Exit.OK


@click.command("import", short_help="Make a hub of such a file.")
@click.argument("file", metavar="FILE|-")
@hub_argument("url")
@quiet_option
@shared
def import_command(*, file: str, url: str, quiet: bool) -> int:
    """Make a new hub of a file, or of stdin: all of it or, when anything is wrong, nothing.

    The hub must not exist; on PostgreSQL it may be there and unused. It is a copy, with the id of the hub that was
    exported: hosts must not serve both, or work is done twice. Encrypted payloads need the same keys as before.
    """
    import asyncio

    from durably.storage.moving import import_hub
    from durably.storage.open import moved_store

    store = moved_store(url)
    with _counted(quiet=quiet) as counted, _read(file) as opened:
        name = "stdin" if file == "-" else f"File '{file}'"
        asyncio.run(import_hub(opened.read1, name, store, counted))
    say(f"Imported {_total(counted)}")
    return Exit.OK


@click.command("copy", short_help="Make a hub like another one.")
@hub_argument("source")
@hub_argument("target")
@click.option(
    "--live",
    is_flag=True,
    show_envvar=True,
    help="Also when hosts serve SOURCE: the copy is a backup, which no host may serve meanwhile.",
)
@quiet_option
@shared
def copy_command(*, source: str, target: str, live: bool, quiet: bool) -> int:
    """Move a hub between SQLite and PostgreSQL: all of it or, when anything is wrong, nothing. SOURCE stays as it is.

    Stop the hosts of SOURCE first, and start them again on TARGET: instances go on there. A host that serves SOURCE
    afterwards would do the same work again.
    """
    import asyncio

    from durably.storage.moving import copy_hub
    from durably.storage.open import moved_store

    made = moved_store(target)
    with _counted(quiet=quiet) as counted:

        async def run() -> None:
            async with _opened(source) as store:
                await copy_hub(store, made, counted, live=live)

        asyncio.run(run())
    say(f"Copied {_total(counted)}")
    return Exit.OK


@asynccontextmanager
async def _opened(url: str) -> AsyncGenerator[Store]:
    from durably.storage.open import moved_store

    store = moved_store(url)
    await store.open(create=False)
    try:
        yield store
    finally:
        await store.close()


# --- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def _written(name: str) -> Generator[Callable[[bytes], object]]:
    """Where an export goes. A file has its name when it is whole, and on the disk."""
    if name == "-":
        if sys.stdout.isatty():
            raise click.UsageError(
                "An export is no text for a terminal: name a file, or pipe it into a program"
            )
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    path, partial = Path(name), Path(f"{name}{_PARTIAL}")
    if os.path.lexists(path):
        raise click.UsageError(f"File '{name}' is there already: name another one, or delete it first")
    partial.touch(0o600)
    try:
        with partial.open("wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink()
        raise


@contextmanager
def _read(name: str) -> Generator[BufferedReader]:
    if name == "-":
        if sys.stdin.isatty():
            raise click.UsageError("An export is expected on stdin: name a file, or pipe one into this")
        yield cast("BufferedReader", sys.stdin.buffer)
        return
    with Path(name).open("rb") as file:
        yield file


# --- what is told ----------------------------------------------------------------------------------------------------


@contextmanager
def _counted(*, quiet: bool) -> Generator[Counted]:
    """Counts rows; on a terminal it shows how many have passed."""
    from time import monotonic

    from durably.storage.moving import Counted

    if quiet or not sys.stderr.isatty():
        yield Counted()
        return
    next_at = 0.0

    def tell(counted: Counted) -> None:
        nonlocal next_at
        if monotonic() >= next_at:
            next_at = monotonic() + 0.2
            sys.stderr.write(f"\r\x1b[K{_total(counted)}")
            sys.stderr.flush()

    try:
        yield Counted(tell)
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _total(counted: Counted) -> str:
    found = [f"{count:,} {_NAMES[kind]}" for kind, count in counted.rows.items() if count]
    return ", ".join(found) if found else "an empty hub"


_NAMES = {
    "instances": "instances",
    "history": "history rows",
    "timers": "timers",
    "entities": "entities",
    "inbox": "messages",
    "parked": "parked messages",
    "tombstones": "tombstones",
}
