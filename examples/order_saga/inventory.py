"""The inventory: an entity for each article.

Its operations come one after the other, so however many orders want the last lamp at once, one gets it. Each is keyed by the
order, so asking twice is asking once.
"""

from dataclasses import dataclass, field

from durably import App, EntityId

inventory = App()


@dataclass(frozen=True)
class Delivery:
    """Goods that come in."""

    number: str
    pieces: int


@dataclass(frozen=True)
class Hold:
    """Goods that are kept for an order."""

    order_id: str
    pieces: int


class OutOfStockError(Exception):
    """There are not as many left. The operation leaves no trace, and its caller gets the error."""


@inventory.entity
@dataclass
class Inventory:
    """The pieces of one article, which is the key of the entity."""

    pieces: int = 0
    held: dict[str, int] = field(default_factory=dict[str, int])
    deliveries: list[str] = field(default_factory=list[str])

    @property
    def free(self) -> int:
        """What can still be sold."""
        return self.pieces - sum(self.held.values())

    def receive(self, delivery: Delivery) -> None:
        """Put goods on the shelf, once for each delivery."""
        if delivery.number not in self.deliveries:
            self.deliveries.append(delivery.number)
            self.pieces += delivery.pieces

    def reserve(self, hold: Hold) -> None:
        """Keep goods for an order."""
        if hold.order_id in self.held:
            return
        if hold.pieces > self.free:
            raise OutOfStockError(f"{self.free} left, {hold.pieces} wanted")
        self.held[hold.order_id] = hold.pieces

    def release(self, order_id: str) -> None:
        """Undo `reserve`. An order that holds nothing gives nothing back."""
        self.held.pop(order_id, None)

    def ship(self, order_id: str) -> None:
        """The goods of an order leave the shelf."""
        self.pieces -= self.held.pop(order_id, 0)


def inventory_of(sku: str) -> EntityId:
    """The entity of an article."""
    return EntityId("inventory", sku)
