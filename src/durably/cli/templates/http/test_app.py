from app import Job, app, process


async def test_a_job_is_processed(durable_env):
    async with durable_env(app) as env:
        assert await env.run(process, Job("hello")) == "HELLO"


def test_the_routes():
    assert sorted(function.template.text for function in app.http_functions) == ["health", "jobs/{number}"]
