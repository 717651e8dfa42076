from datetime import timedelta

from app import Watch, app, is_clear, monitor


async def test_it_looks_until_it_is_clear(durable_env):
    async with durable_env(app) as env:
        env.mock_activity(is_clear, returns=False, times=99)
        env.mock_activity(is_clear, returns=True)
        began = env.now
        assert await env.run(monitor, Watch("Oslo", every_s=3600)) == "clear after 100 looks"
        assert env.now - began == timedelta(hours=99)
