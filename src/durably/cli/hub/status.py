"""``durably hub status``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from durably.cli.formats import printable
from durably.cli.output import Exit, print_json
from durably.cli.settings import hub_option, output_option, shared

if TYPE_CHECKING:
    from durably.storage.hub_state import HubState, PartitionState

_LINES_MAX = 12
"""More partitions than that are told by host."""


@click.command("status", short_help="Show version, hosts, contents and size of a hub.")
@hub_option
@output_option
@shared
def status_command(hub: str, output: str) -> int:
    """Show a hub as a whole: its schema and what is to be done to it, who serves it, what is in it and how large it is.

    Reads only. Every instance is counted: of many millions that takes seconds.
    """
    from durably.storage.administration import hub_state

    state = hub_state(hub)
    if output == "json":
        print_json(_as_json(state), sys.stdout, pretty=False, color=None)
        return Exit.OK
    for title, text in _lines(state):
        click.echo(f"{title:11}  {printable(text)}".rstrip())
    return Exit.OK


def _as_json(state: HubState) -> dict[str, Any]:
    return {
        "hub": state.url,
        "hub_id": state.hub_id,
        "server": state.server,
        "version": state.version,
        "known_version": state.known,
        "pending": [step._asdict() for step in state.pending],
        "hosts": state.hosts,
        "partitions": [one._asdict() for one in state.partitions],
        "instances": state.instances,
        "rows": state.rows,
        "sizes": state.sizes,
    }


def _lines(state: HubState) -> Iterator[tuple[str, str]]:
    from durably.storage.checkup import size_text

    yield "hub", state.url
    yield "id", state.hub_id
    yield "server", state.server
    known = "" if state.version == state.known else f"; this durably writes {state.known}"
    yield "schema", f"version {state.version}{known}"
    for step in state.pending:
        yield "pending", f"step {step}"
    yield "hosts", ", ".join(state.hosts) or "none"
    yield from _partitions(state.partitions)
    counts = [f"{count:,} {status}" for status, count in state.instances.items()]
    yield "instances", ", ".join(counts) or "none"
    yield "", ", ".join(f"{count:,} {name}" for name, count in state.rows.items())
    total = size_text(sum(state.sizes.values()))
    largest = sorted(state.sizes.items(), key=lambda size: -size[1])[:4]
    yield "size", f"{total}: {', '.join(f'{name} {size_text(size)}' for name, size in largest)}"


def _partitions(partitions: list[PartitionState]) -> Iterator[tuple[str, str]]:
    if len(partitions) <= _LINES_MAX:
        for one in partitions:
            yield f"partition {one.partition}", _owner(one)
        return
    yield "partitions", f"{len(partitions)}"
    owners = sorted({one.owner or "" for one in partitions})
    for owner in owners:
        numbers = [str(one.partition) for one in partitions if (one.owner or "") == owner]
        yield "", f"{len(numbers)} of {owner or 'nobody'}: {' '.join(numbers)}"


def _owner(one: PartitionState) -> str:
    if one.owner is None:
        return f"nobody, epoch {one.epoch}"
    lease = "" if one.lease_left_s is None else f", {max(0.0, one.lease_left_s):.0f} s of its lease left"
    return f"{one.owner}, epoch {one.epoch}, batch {one.batch}{lease}"
