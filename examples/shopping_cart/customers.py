"""Customers who are played: they put things into their carts, change their minds, and check out, or forget to."""

from durably import App, EntityId, OrchestrationContext
from examples.shopping_cart import app as shop
from examples.shopping_cart.app import Item, Receipt, check_out

app = App()
app.include(shop.app)


@app.orchestrator
async def open_shop(ctx: OrchestrationContext, deliveries: dict[str, int]) -> None:
    """Fill the shelves; an orchestration, so that doing it again is doing it once."""
    for article, pieces in deliveries.items():
        await ctx.call_entity(EntityId("stock", article), "deliver", pieces)


@app.orchestrator
async def visit(ctx: OrchestrationContext, articles: list[str]) -> Receipt | None:
    """One customer: the id of the instance is the name. Chance comes from the context, so that a replay repeats it."""
    cart = EntityId("cart", ctx.instance_id)
    chosen = ctx.random.sample(articles, 3)
    for article in chosen:
        ctx.signal_entity(cart, "add", Item(article, ctx.random.randint(1, 3)))
    ctx.signal_entity(cart, "set_quantity", Item(chosen[0], 2))
    await ctx.call_entity(cart, "remove", chosen[1])  # signals of one sender come before its calls
    if ctx.random.random() < 0.2:
        return None  # the phone rings
    return await ctx.call_sub_orchestrator(check_out, ctx.instance_id)
