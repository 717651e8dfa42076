"""A model that is a script: it looks at what has been said and does the next thing, as a large one would, but always alike.

Any callable of the conversation will do in its place. This one writes a log of its turns, as a provider writes a bill.
"""

import json
import os
from pathlib import Path

from examples.agent_loop.app import Message, ToolCall

SENT = "SELECT order_id, customer, cents, parcel FROM orders ORDER BY order_id"


def scripted(messages: list[Message]) -> Message:
    """The next turn: what was sent? where is it? refund what is lost, note it, and say so."""
    with (Path(os.environ.get("AGENT_DIR", ".")) / "model.log").open("a") as log:
        log.write(f"turn {1 + sum(message.role == 'model' for message in messages)}\n")
    calls = {call.number: call for message in messages for call in message.calls}
    results = [(calls[message.answers], message.text) for message in messages if message.answers]
    known = {name: [(call, text) for call, text in results if call.name == name] for name in used(results)}

    if "query" not in known:
        return Message("model", "Let me see what was sent.", [ToolCall("query", {"sql": SENT})])
    orders = json.loads(known["query"][0][1])
    if "track" not in known:
        wishes = [ToolCall("track", {"parcel": parcel}) for _, _, _, parcel in orders]
        return Message("model", "Where are these parcels?", wishes)
    lost = {call.arguments["parcel"] for call, state in known["track"] if state == "lost"}
    if lost and "refund" not in known:
        wishes = [
            ToolCall("refund", {"order_id": order_id, "cents": cents})
            for order_id, _, cents, parcel in orders
            if parcel in lost
        ]
        return Message("model", "Some are lost. Their customers should have their money back.", wishes)
    report = "\n".join(text for _, text in known.get("refund", [])) or "nothing is lost"
    if "write_note" not in known:
        wish = ToolCall("write_note", {"name": "lost-parcels.txt", "text": f"{report}\n"})
        return Message("model", "I write that down.", [wish])
    return Message(
        "model", f"{len(lost)} of {len(orders)} parcels are lost: {report.replace(chr(10), '; ')}."
    )


def used(results: list[tuple[ToolCall, str]]) -> set[str]:
    """The names of the tools that have been used."""
    return {call.name for call, _ in results}
