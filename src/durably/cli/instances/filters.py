"""Which instances are meant: the options that choose them, and walking through all that match."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from durably.cli.completing import complete_ids, complete_names
from durably.cli.moments import Moment

if TYPE_CHECKING:
    from durably.client import Client
    from durably.client import Filters as ClientFilters
    from durably.core.status import InstanceStatus

C = TypeVar("C", bound=Callable[..., Any])

STATUSES = (
    "Pending",
    "Running",
    "Completed",
    "Failed",
    "Canceled",
    "Terminated",
    "Suspended",
    "ContinuedAsNew",
)  # as in `RuntimeStatus`, which is slow to import for a help page

_FIRST_PAGE, _PAGE = 100, 1_000
"""The first page is small, so that something is seen at once."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What an instance has to match; None and empty match everything.

    Attributes:
        name: Of the orchestrator.
        statuses: Runtime statuses.
        created_from: Created then or later.
        created_to: Created then or earlier.
        updated_from: Last updated then or later.
        updated_to: Last updated then or earlier.
        prefix: The id begins with it.
        parent: Children that this instance called.
        tags: All of these, with these values.
        stuck: Only those that are blocked or parked.
        limit: So many at most, or None.
        everything: ``--all``: no limit where there would be one by default, and no filter needed where one would be.
    """

    name: str | None = None
    statuses: tuple[str, ...] = ()
    created_from: datetime | None = None
    created_to: datetime | None = None
    updated_from: datetime | None = None
    updated_to: datetime | None = None
    prefix: str | None = None
    parent: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    stuck: bool = False
    limit: int | None = None
    everything: bool = False

    @property
    def chosen(self) -> bool:
        """True when something was given."""
        return self != Filters()

    @property
    def narrowed(self) -> bool:
        """True when not every instance matches, or the user said that all are meant."""
        return self.everything or self != Filters(limit=self.limit)


class _Status(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]  # not generic before click 8.4
    """One status, or several with commas between them."""

    name = "status"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value  # pyright: ignore[reportUnknownVariableType]
        known = {status.lower(): status for status in STATUSES}
        found: list[str] = []
        for word in str(value).split(","):
            status = known.get(word.strip().lower())
            if status is None:
                close = difflib.get_close_matches(word.strip().lower(), known, n=1, cutoff=0.5)
                hint = f"did you mean '{known[close[0]]}'? Statuses are" if close else "statuses are"
                self.fail(f"'{word.strip()}' is no status: {hint} {', '.join(STATUSES)}", param, ctx)
            found.append(status)
        return tuple(found)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{status}")
            for status in STATUSES
            if status.lower().startswith(last.lower())
        ]


class Tag(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]  # not generic before click 8.4
    """``key=value``."""

    name = "k=v"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """See `click.ParamType.convert`."""
        if isinstance(value, tuple):
            return value  # pyright: ignore[reportUnknownVariableType]
        key, separator, text = str(value).partition("=")
        if not separator or not key:
            self.fail(f"'{value}' is no tag: expected KEY=VALUE", param, ctx)
        return key, text


def filter_options(command: C) -> C:
    """Add the options that choose instances; `filters_of` makes `Filters` of them."""
    for option in reversed(
        (
            click.option(
                "--name",
                metavar="NAME",
                show_envvar=True,
                shell_complete=complete_names,
                help="Of this orchestrator.",
            ),
            click.option(
                "--status",
                type=_Status(),
                multiple=True,
                metavar="STATUS",
                show_envvar=True,
                help="In this runtime status; may be repeated, or given as Failed,Running.",
            ),
            click.option(
                "--created-from",
                type=Moment("past"),
                metavar="WHEN",
                show_envvar=True,
                help="Created at this instant or later: 2026-11-20T12:00Z, or 2h, 3d (ago).",
            ),
            click.option(
                "--created-to",
                type=Moment("past"),
                metavar="WHEN",
                show_envvar=True,
                help="Created at this instant or earlier.",
            ),
            click.option(
                "--updated-from",
                type=Moment("past"),
                metavar="WHEN",
                show_envvar=True,
                help="Last updated at this instant or later; of a finished one: when it ended.",
            ),
            click.option(
                "--updated-to",
                type=Moment("past"),
                metavar="WHEN",
                show_envvar=True,
                help="Last updated at this instant or earlier.",
            ),
            click.option("--prefix", metavar="TEXT", show_envvar=True, help="The id begins with this."),
            click.option(
                "--parent",
                metavar="ID",
                show_envvar=True,
                shell_complete=complete_ids(),
                help="Called by this instance as a sub-orchestration.",
            ),
            click.option(
                "--tag",
                type=Tag(),
                multiple=True,
                metavar="KEY=VALUE",
                show_envvar=True,
                help="With this tag; may be repeated.",
            ),
            click.option("--stuck", is_flag=True, show_envvar=True, help="Only blocked or parked ones."),
            click.option(
                "--limit",
                type=click.IntRange(min=1),
                metavar="N",
                show_envvar=True,
                help="The first N in the order of creation.",
            ),
            click.option("--all", is_flag=True, show_envvar=True, help="Every one that matches."),
        )
    ):
        command = option(command)
    return command


def filters_of(given: dict[str, Any]) -> Filters:
    """The filters among the arguments of a command; they are taken out of it.

    Raises:
        click.UsageError: Two of them exclude each other.
    """
    statuses = tuple(dict.fromkeys(status for group in given.pop("status") for status in group))
    filters = Filters(
        statuses=statuses,
        tags=given.pop("tag"),
        everything=given.pop("all"),
        **{
            key: given.pop(key)
            for key in (
                "name",
                "created_from",
                "created_to",
                "updated_from",
                "updated_to",
                "prefix",
                "parent",
                "stuck",
                "limit",
            )
        },
    )
    if filters.limit is not None and filters.everything:
        raise click.UsageError("--limit and --all exclude each other: leave one out")
    return filters


def criteria(filters: Filters) -> ClientFilters:
    """The filters as the client takes them."""
    return {
        "name": filters.name,
        "runtime_status": filters.statuses or None,
        "created_from": filters.created_from,
        "created_to": filters.created_to,
        "updated_from": filters.updated_from,
        "updated_to": filters.updated_to,
        "stuck": True if filters.stuck else None,
        "instance_id_prefix": filters.prefix,
        "parent_instance_id": filters.parent,
        "tags": dict(filters.tags) or None,
    }


async def matching(client: Client, filters: Filters) -> AsyncIterator[InstanceStatus]:
    """All instances that match, in the order of creation, page by page."""
    left = filters.limit
    token: str | None = None
    size = _FIRST_PAGE
    while True:
        page = await client.query_instances(
            **criteria(filters),
            page_size=size if left is None else min(size, left),
            continuation_token=token,
            fetch_payloads=False,
        )
        for instance in page.instances:
            yield instance
        token = page.continuation_token
        left = None if left is None else left - len(page.instances)
        if token is None or left == 0:
            return
        size = _PAGE
