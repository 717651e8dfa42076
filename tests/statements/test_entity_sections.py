"""Critical sections that are cut off: by a cancel that the code answers, and by a failure that is rewound."""

from __future__ import annotations

import asyncio

from durably import App, AppHost, EntityId, OrchestrationContext
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, reaches

BOOK = EntityId("book", "b")
OTHER = EntityId("book", "o")


class Library:
    """An app with books that write down what was done to them, and fail as long as they are broken."""

    def __init__(self) -> None:
        self.app = App()
        self.broken = True

        @self.app.entity(name="book")
        class Book:
            done: list[str] = []  # noqa: RUF012 - each book begins with a list of its own

            def note(self, what: str) -> list[str]:
                self.done.append(what)
                return self.done

            async def slow(inner, what: str) -> list[str]:  # noqa: N805
                await asyncio.sleep(0.05)
                return inner.note(what)

            def brittle(inner, what: str) -> list[str]:  # noqa: N805
                if self.broken:
                    raise ValueError("torn")
                return inner.note(what)

        @self.app.orchestrator
        async def careful(ctx: OrchestrationContext) -> None:
            async with ctx.lock_entities(BOOK):
                borrowing = ctx.call_entity(BOOK, "slow", "borrowed")
                borrowing.cancel()
                await ctx.call_entity(BOOK, "note", "brought back")

        @self.app.orchestrator
        async def twice(ctx: OrchestrationContext) -> list[str]:
            async with ctx.lock_entities(BOOK, OTHER):
                await ctx.call_entity(OTHER, "brittle", ctx.instance_id)
                ctx.signal_entity(EntityId("book", "third"), "note", "seen")
                await ctx.call_entity(BOOK, "slow", ctx.instance_id)
                return await ctx.call_entity(BOOK, "note", ctx.instance_id, returns=list[str])

        @self.app.orchestrator
        async def leaves(ctx: OrchestrationContext) -> None:
            async with ctx.lock_entities(BOOK, OTHER):
                await ctx.call_activity("breaks")
                ctx.call_entity(OTHER, "note", "behind")

        @self.app.orchestrator
        async def holds(ctx: OrchestrationContext) -> None:
            async with ctx.lock_entities(OTHER):
                await ctx.wait_for_external_event("enough")

        @self.app.activity
        async def breaks() -> None:
            if self.broken:
                raise ValueError("broken")

        del Book, careful, twice, leaves, holds, breaks


async def test_what_a_cancelled_call_did_can_be_undone_in_the_block(hub: Deployment) -> None:
    async with hub.host(Library().app) as host:
        await (await host.client.start("careful", instance_id="c")).result()
        assert await host.client.call_entity(BOOK, "note", "read") == ["borrowed", "brought back", "read"]


async def test_a_rewound_critical_section_has_its_locks_before_it_goes_on(hub: Deployment) -> None:
    library = Library()
    async with hub.host(library.app) as host:
        client = host.client

        async def is_locked_by(book: EntityId, instance_id: str) -> bool:
            found = await client.get_entity(book)
            return found is not None and found.locked_by == instance_id

        await client.start("twice", instance_id="t")
        await reaches(host, "t", "Failed")
        await client.start("holds", instance_id="h")
        await eventually(lambda: is_locked_by(OTHER, "h"))
        library.broken = False
        await client.rewind("t")
        await eventually(lambda: is_locked_by(BOOK, "t"))
        assert await client.read_entity(OTHER) is None
        await client.raise_event("h", "enough")
        assert (await client.wait_for_completion("t")).output == ["t", "t"]
        for book in (BOOK, OTHER):
            await eventually(lambda book=book: is_free(host, book))


async def is_free(host: AppHost, book: EntityId) -> bool:
    found = await host.client.get_entity(book)
    return found is not None and (found.locked_by, found.waiting) == (None, 0)


async def test_a_call_of_a_rewound_section_that_is_left_at_once_is_performed_once(hub: Deployment) -> None:
    library = Library()
    async with hub.host(library.app) as host:
        await host.client.start("leaves", instance_id="x")
        await reaches(host, "x", "Failed")
        library.broken = False
        await host.client.rewind("x")
        await host.client.wait_for_completion("x")
        assert await host.client.call_entity(OTHER, "note", "read") == ["behind", "read"]
