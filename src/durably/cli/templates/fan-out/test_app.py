from app import app, count_site, count_words, find_pages


async def test_all_pages_are_counted(durable_env):
    async with durable_env(app) as env:
        env.mock_activity(find_pages, returns=["a", "bb", "ccc"])
        assert await env.run(count_site, "example.org") == 6


async def test_no_page_is_counted_again_after_a_crash(durable_env):
    async with durable_env(app) as env:
        crash = env.kill_after(2)
        assert await env.run(count_site, "example.org") == 131
        assert crash.happened
        assert len(env.calls(count_words)) >= 10
