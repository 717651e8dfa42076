from app import Order, app, buy, charge


async def test_an_order_is_charged(durable_env):
    async with durable_env(app) as env:
        assert await env.run(buy, Order("tea", 2)) == "receipt over 9.00"


async def test_the_bank_is_tried_again(durable_env):
    async with durable_env(app) as env:
        bank = env.mock_activity(charge, raises=ConnectionError("no answer"), times=2)
        assert await env.run(buy, Order("tea")) == "receipt over 4.50"
        assert len(bank.calls) == 2
