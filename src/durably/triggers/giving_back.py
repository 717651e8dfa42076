"""What a trigger does when its host goes away while a function runs."""

from __future__ import annotations

import asyncio
from typing import NoReturn


async def leave_to_the_next_host() -> NoReturn:
    """End the attempt that calls this without a result, so that the next host makes it again.

    That the host has let go of the hub says nothing about the function, which could not do what it wanted.
    """
    task = asyncio.current_task()
    if task is not None:
        task.cancel()
    await asyncio.sleep(0)
    raise asyncio.CancelledError
