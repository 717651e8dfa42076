"""Who looks at a hub hears of all that comes."""

import asyncio
from contextlib import aclosing

from durably.clock import SystemClock
from durably.scaling.lookout import Lookout
from durably.storage.api import Workload
from durably.storage.memory import MemoryStore
from durably.testing.store_scene import message

PATIENCE_S = 20


class SlowStore(MemoryStore):
    """A look has its figures, and is not told them before `told` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = asyncio.Event()
        self.told = asyncio.Event()

    async def workload(self, now: int | None = None) -> Workload:
        found = await super().workload(now)
        self.seen.set()
        await self.told.wait()
        return found


def test_what_comes_while_another_look_is_under_way_is_seen() -> None:
    async def test() -> None:
        store = SlowStore()
        await store.open()
        lookout = Lookout(store, SystemClock())
        asked = asyncio.ensure_future(lookout.look())
        await store.seen.wait()
        await store.post(
            [message("1", "a", at=1)]
        )  # after the figures of that look, and before anybody waits
        async with aclosing(lookout.changes()) as loads:
            first = asyncio.ensure_future(anext(loads))
            await asyncio.sleep(0.6)  # the look is old enough for another, and has not come to its end
            store.told.set()
            assert (await first).messages == 1
        assert (await asked).messages == 0
        await store.close()

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
