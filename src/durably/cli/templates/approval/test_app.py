from datetime import timedelta

import pytest
from app import app, approval, notify


@pytest.mark.parametrize(("decision", "result"), [(True, "approved"), (False, "rejected")])
async def test_somebody_decides(durable_env, decision, result):
    async with durable_env(app) as env:
        handle = await env.start(approval, "a trip")
        await handle.raise_event("Decision", decision)
        assert await handle.result() == result


async def test_nobody_decides(durable_env):
    async with durable_env(app) as env:
        began = env.now
        assert await env.run(approval, "a trip") == "nobody decided"
        assert env.now - began == timedelta(days=3)
        assert len(env.calls(notify)) == 3
