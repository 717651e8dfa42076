"""``durably instances show``, ``why`` and ``history``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from durably.cli.answers import plain_failure
from durably.cli.completing import complete_ids
from durably.cli.formats import Column, Row, colored, plain, printable, printer, status_style
from durably.cli.instances.ids import ids_of, one_id
from durably.cli.instances.rows import row_of
from durably.cli.instances.session import status_of, with_client
from durably.cli.moments import exactly
from durably.cli.output import Exit, complain, exit_code, failure_text
from durably.cli.settings import format_option, reach_options, settings_of, shared

if TYPE_CHECKING:
    from durably.client import Client
    from durably.core.status import InstanceStatus
    from durably.core.timeline import HistoryEntry

_LABELS = (
    ("name", "Orchestrator"),
    ("version", "Version"),
    ("status", "Status"),
    ("why", "Why"),
    ("created_time", "Created"),
    ("last_updated_time", "Updated"),
    ("parent_instance_id", "Parent"),
    ("tags", "Tags"),
    ("custom_status", "Custom status"),
    ("input", "Input"),
    ("output", "Output"),
)
_WIDTH = 15


# --- show ------------------------------------------------------------------------------------------------------------


@click.command("show", short_help="Show all about instances.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_ids())
@reach_options
@format_option(
    "table", "json", "jsonl", help_text="For people; an object (several: an array), or one a line."
)
@shared
@click.pass_context
def show_command(context: click.Context, ids: tuple[str, ...], hub: str, output: str) -> int:
    """Show status, input, output, failure, tags, and what the instance waits for. - reads ids from stdin."""
    wanted = ids_of(ids)
    color = settings_of(context).color

    async def show(client: Client, instance_id: str) -> None:
        status = await status_of(client, instance_id)
        row = row_of(status) | {
            "why": await client.why(instance_id),
            "input": status.input,
            "output": status.output,
            "failure": None if status.failure is None else plain_failure(status.failure),
        }
        if output == "table":
            _print_card(status, row, color=color)
        else:
            rows.row(row)

    single = output == "json" and ids != ("-",) and len(wanted) == 1
    rows = printer("jsonl" if single else output, sys.stdout, columns=(), keys=())
    return _for_each(context, hub, wanted, show, rows.close)


def _print_card(status: InstanceStatus, row: Row, *, color: bool | None) -> None:
    """All about one instance, a line for each thing; what takes several lines stands below."""
    colors = colored(sys.stdout, color=color)

    def styled(text: str, **style: Any) -> str:
        return click.style(text, **style) if colors else text

    lines = [styled(row["instance_id"], bold=True)]
    for key, label in _LABELS:
        value = row[key]
        if value is None or value in ({}, ""):
            continue
        text = printable(plain(value))
        if key.endswith("_time"):
            text = f"{text[:19]}Z"
        if key == "status":
            text = styled(f"{text} (blocked)" if row["blocked"] else text, **status_style(row))
        if key == "tags":
            text = printable(", ".join(f"{name}={tag}" for name, tag in value.items()))
        lines.append(f"  {label:{_WIDTH}}{text}")
    for label, text in (
        ("Blocked", status.blocked),
        ("Failure", None if status.failure is None else failure_text(status.failure)),
    ):
        if text is not None:
            inner = text if colors else click.unstyle(text)
            lines += [f"  {label}", *(f"    {line}" for line in inner.splitlines())]
    click.echo("\n".join(lines), color=colors)


# --- why -------------------------------------------------------------------------------------------------------------


@click.command("why", short_help="Say in one sentence what an instance waits for.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_ids())
@reach_options
@format_option(
    "table", "json", "jsonl", help_text="A sentence; an object (several: an array), or one a line."
)
@shared
@click.pass_context
def why_command(context: click.Context, ids: tuple[str, ...], hub: str, output: str) -> int:
    """Say in one sentence what an instance waits for, or how it ended. - reads ids from stdin."""
    wanted = ids_of(ids)
    alone = ids != ("-",) and len(wanted) == 1

    async def tell(client: Client, instance_id: str) -> None:
        sentence = await client.why(instance_id)
        if output == "table":
            click.echo(printable(sentence if alone else f"{instance_id}  {sentence}"))
        else:
            rows.row({"instance_id": instance_id, "why": sentence})

    form = "jsonl" if output == "json" and alone else output
    rows = printer(form, sys.stdout, columns=(), keys=())
    return _for_each(context, hub, wanted, tell, rows.close)


def _for_each(context: click.Context, hub: str, ids: list[str], look: Any, close: Any) -> int:
    """Look at one after the other; what is not there is said, and does not keep the others from being looked at."""
    from durably.errors import HistoryCorruptError, InstanceNotFoundError

    async def run(client: Client) -> int:
        code: int = Exit.OK
        for instance_id in ids:
            try:
                await look(client, instance_id)
            except (InstanceNotFoundError, HistoryCorruptError) as error:
                complain(str(error), color=settings_of(context).color)
                code = exit_code(error)
        close()
        return code

    return with_client(hub, run)


# --- history ---------------------------------------------------------------------------------------------------------

_EVENT_KEYS = ("timestamp", "event_type", "task_id", "name", "details")
_PAYLOAD_KEYS = ("input", "result")


@click.command("history", short_help="Print the history of an instance.")
@click.argument("instance_id", metavar="ID", shell_complete=complete_ids())
@click.option("--payloads", is_flag=True, show_envvar=True, help="Inputs and results too.")
@reach_options
@format_option("table", "json", "jsonl", "csv", help_text="For people; one array, one object a line, or CSV.")
@shared
@click.pass_context
def history_command(
    context: click.Context, *, instance_id: str, payloads: bool, hub: str, output: str
) -> None:
    """Print the events of the current execution of an instance, as committed."""
    wanted = one_id(instance_id)

    async def read(client: Client) -> list[HistoryEntry]:
        return await client.get_history(wanted)

    entries = with_client(hub, read)
    shown = printer(
        output,
        sys.stdout,
        columns=_event_columns(payloads=payloads),
        keys=(*_EVENT_KEYS, *_PAYLOAD_KEYS) if payloads else _EVENT_KEYS,
        color=settings_of(context).color,
    )
    for entry in entries:
        shown.row(_event(entry, payloads=payloads))
    shown.close()


def _event(entry: HistoryEntry, *, payloads: bool) -> dict[str, Any]:
    event: dict[str, Any] = {
        "timestamp": exactly(entry.timestamp),
        "event_type": entry.event_type,
        "task_id": entry.task_id,
        "name": entry.name,
        "details": entry.details,
    }
    if payloads:
        event |= {"input": _decoded(entry.input), "result": _decoded(entry.result)}
    return event


def _decoded(payload: str | None) -> Any:
    import json

    return None if payload is None else json.loads(payload)


def _event_columns(*, payloads: bool) -> list[Column]:
    columns = [
        Column("TIME", lambda row: f"{row['timestamp'][:23]}Z"),
        Column("EVENT", lambda row: row["event_type"], style=_event_style),
        Column("#", lambda row: plain(row["task_id"]), right=True),
        Column("NAME", lambda row: row["name"] or "", elastic=True),
        Column("DETAILS", _details, elastic=True),
    ]
    if payloads:
        columns[4:4] = [
            Column("INPUT", lambda row: plain(row["input"]), elastic=True),
            Column("RESULT", lambda row: plain(row["result"]), elastic=True),
        ]
    return columns


def _event_style(row: Row) -> dict[str, Any]:
    event = row["event_type"]
    if event.endswith("Failed"):
        return {"fg": "red"}
    if event.endswith(("Completed", "TimerFired", "EventRaised")):
        return {"fg": "green"}
    return {"dim": True} if event == "OrchestratorStarted" else {}


_LEFT_OUT = frozenset(("execution_id", "instance_id", "created_at", "python", "ordinal", "custom_status"))
"""Details of the first event that say nothing to people, or are shown elsewhere."""


def _details(row: Row) -> str:
    parts: list[str] = []
    for key, value in row["details"].items():
        if row["event_type"] == "ExecutionStarted" and key in _LEFT_OUT:
            continue
        if key == "failure":
            parts.append(f"{value['type']}: {value.get('message', '')}")
        else:
            parts.append(f"{key}={plain(value)}")
    return " ".join(" ".join(parts).split())
