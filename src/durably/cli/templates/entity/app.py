"""Entities: small pieces of state with a name, and a transfer between two of them."""

from durably import App, EntityId, OrchestrationContext

app = App()


@app.entity(read_only=["balance"])
class Account:
    """Attributes are the state, methods the operations, performed one after the other."""

    euros: int = 0

    def deposit(self, euros: int) -> int:
        """Put money in."""
        self.euros += euros
        return self.euros

    def withdraw(self, euros: int) -> int:
        """An operation that raises changes nothing."""
        if euros > self.euros:
            raise ValueError(f"{self.euros} euros are not enough")
        self.euros -= euros
        return self.euros

    def balance(self) -> int:
        """Look, without waiting behind the others."""
        return self.euros


@app.orchestrator
async def open_account(ctx: OrchestrationContext, name: str) -> int:
    """An entity is there as soon as it is called."""
    return await ctx.call_entity(EntityId("account", name), "deposit", 50)


@app.orchestrator
async def transfer(ctx: OrchestrationContext, euros: int) -> bool:
    """From ann to bob, with both locked: nobody sees the money twice, or nowhere."""
    ann, bob = EntityId("account", "ann"), EntityId("account", "bob")
    async with ctx.lock_entities(ann, bob):
        if await ctx.call_entity(ann, "balance") < euros:
            return False
        await ctx.call_entity(ann, "withdraw", euros)
        await ctx.call_entity(bob, "deposit", euros)
        return True
