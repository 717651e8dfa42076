"""What all sources of brokers have in common, at its edges."""

import asyncio
from collections.abc import Sequence

from durably.bindings.broker import BrokerMessage
from durably.bindings.holding import HoldingSource

PATIENCE_S = 10.0


class _Deaf(HoldingSource):
    """Its client loses the first cancellation, as one of `asyncio.wait_for` does up to Python 3.11."""

    left = 0
    lost = 0

    async def _read(self, room: int) -> list[BrokerMessage]:
        while True:
            await self._wait()

    async def _keep(self, messages: Sequence[BrokerMessage]) -> None:
        await self._wait()

    async def _remove(self, messages: Sequence[BrokerMessage]) -> None: ...

    async def _leave(self, messages: Sequence[BrokerMessage]) -> None:
        self.left += 1

    async def _wait(self) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.lost += 1
            if self.lost > 1:
                raise


def test_a_source_closes_although_its_client_loses_a_cancellation() -> None:
    async def act() -> _Deaf:
        source = _Deaf(prefetch=1, keep_s=3600)
        receiving = asyncio.create_task(source.receive(1))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE_S):
            await source.close()
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        return source

    source = asyncio.run(act())
    assert (source.lost, source.left) == (2, 1)
