from app import Account, app, open_account, transfer

from durably import EntityId


async def test_money_moves_and_none_is_made(durable_env):
    async with durable_env(app) as env:
        assert await env.run(open_account, "ann") == 50
        assert await env.run(transfer, 30) is True
        assert await env.run(transfer, 30) is False
        accounts = [await env.client.read_entity(EntityId("account", who), Account) for who in ("ann", "bob")]
        assert [account.euros for account in accounts] == [20, 30]
