"""A saga: steps that are undone, the newest first, when a later one fails."""

from dataclasses import dataclass

from durably import App, OrchestrationContext

app = App()


@dataclass
class Trip:
    """What to book."""

    city: str
    nights: int = 1


@app.activity
async def book_flight(trip: Trip) -> str:
    """Returns the number of the booking."""
    return f"flight to {trip.city}"


@app.activity
async def cancel_flight(booking: str) -> None:
    """Undoes `book_flight`."""


@app.activity
async def book_hotel(trip: Trip) -> str:
    """Fails in cities without hotels."""
    if trip.city == "Atlantis":
        raise LookupError("no hotel in Atlantis")
    return f"{trip.nights} nights in {trip.city}"


@app.activity
async def cancel_hotel(booking: str) -> None:
    """Undoes `book_hotel`."""


@app.activity
async def charge(trip: Trip) -> str:
    """The last step has nothing to undo."""
    return f"paid for {trip.nights}"


def booking(result: str) -> str:
    """What an undo gets: the result of its step."""
    return result


@app.orchestrator
async def travel(ctx: OrchestrationContext, trip: Trip) -> list[str]:
    """All of it, or nothing."""
    async with ctx.saga() as saga:
        flight = await saga.step(book_flight, trip, undo=cancel_flight, undo_input=booking)
        hotel = await saga.step(book_hotel, trip, undo=cancel_hotel, undo_input=booking)
        return [flight, hotel, await saga.step(charge, trip)]
