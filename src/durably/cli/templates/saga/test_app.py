import pytest
from app import Trip, app, cancel_flight, cancel_hotel, charge, travel

from durably import OrchestrationFailedError


async def test_all_is_booked(durable_env):
    async with durable_env(app) as env:
        assert await env.run(travel, Trip("Oslo", 2)) == ["flight to Oslo", "2 nights in Oslo", "paid for 2"]


async def test_what_was_booked_is_cancelled(durable_env):
    async with durable_env(app) as env:
        env.mock_activity(charge, raises=ConnectionError("no bank"))
        with pytest.raises(OrchestrationFailedError, match="no bank"):
            await env.run(travel, Trip("Oslo", 2))
        undone = [env.calls(undo)[0].input for undo in (cancel_hotel, cancel_flight)]
        assert undone == ["2 nights in Oslo", "flight to Oslo"]
