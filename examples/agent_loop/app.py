"""The loop of an agent: ask the model, use the tools that it asks for, tell it what came of it, and again.

The loop is an orchestrator, each turn of the model and each use of a tool an activity. So a turn that was paid for is never
paid twice after a crash, and waiting for a human's approval takes a row in a file for as long as it takes.
"""

import asyncio
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

from durably import ActivityContext, App, OrchestrationContext, RetryPolicy, TaskFailedError
from examples.agent_loop.tools import TOOLS

app = App()


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToolCall:
    """A wish of the model. The loop gives it its number, such as "3.1": models are careless with theirs."""

    name: str
    arguments: dict[str, Any]
    number: str = ""


@dataclass(frozen=True)
class Message:
    """One message of the conversation: `role` is "user", "model" or "tool"."""

    role: str
    text: str
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    answers: str = ""
    """The number of the call that a tool's message answers."""


@dataclass(frozen=True)
class Conversation:
    """Everything that one execution hands to the next.

    Attributes:
        messages: From the beginning on.
        turns: How often the model has been asked.
        turns_max: How often it may be: a model that goes round in circles comes to an end.
        turns_per_execution: After so many, the loop goes on in a new execution, with an empty history.
        approval_s: How long a human may think about a dangerous call, in seconds.
    """

    messages: list[Message]
    turns: int = 0
    turns_max: int = 20
    turns_per_execution: int = 5
    approval_s: float = 86_400.0


@dataclass(frozen=True)
class Decision:
    """The payload of the event `Approval 3.1`: what a human says to that call."""

    approved: bool
    by: str
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """How it ended: `state` is "answered" or "out of turns"."""

    state: str
    text: str
    turns: int
    messages: list[Message]


# --- activities -------------------------------------------------------------------------------------------------------

Model = Callable[[list[Message]], Message]
"""What a model is here: it gets the conversation, and says something or calls tools. It may fail: it is asked again."""


@app.activity
def ask_model(messages: list[Message]) -> Message:
    """One turn of the model that the environment names, as `module:function`. Put the client of yours behind it."""
    module, _, name = os.environ.get("AGENT_MODEL", "examples.agent_loop.model:scripted").partition(":")
    model = cast("Model", getattr(importlib.import_module(module), name))
    return model(messages)


@app.activity
def use_tool(call: ToolCall, ctx: ActivityContext) -> str:
    """One use of a tool. The key is for tools whose effect would show when it happens twice."""
    return TOOLS[call.name].use(call.arguments, ctx.idempotency_key)


# --- the orchestrator -------------------------------------------------------------------------------------------------

PATIENT = RetryPolicy(
    first_retry_interval=0.1, max_number_of_attempts=8, backoff_coefficient=3, max_retry_interval=60
)


@app.orchestrator
async def converse(ctx: OrchestrationContext, talk: Conversation) -> Answer:
    """Until the model has nothing more to ask for, or its turns are used up."""
    for _ in range(talk.turns_per_execution):
        if talk.turns >= talk.turns_max:
            return Answer("out of turns", "", talk.turns, talk.messages)
        said = await ctx.call_activity(ask_model, talk.messages, retry=PATIENT)
        turn = talk.turns + 1
        calls = [replace(call, number=f"{turn}.{index}") for index, call in enumerate(said.calls, 1)]
        talk = replace(talk, turns=turn, messages=[*talk.messages, replace(said, calls=calls)])
        if not calls:
            return Answer("answered", said.text, talk.turns, talk.messages)
        results = await Turn(ctx, talk.approval_s).use_all(calls)
        talk = replace(talk, messages=[*talk.messages, *results])
    # Each turn records the whole conversation once more, as the input of `ask_model`. A new execution drops all that.
    ctx.continue_as_new(talk)
    return Answer("", "", talk.turns, [])  # counts for nothing


class Turn:
    """The tools that one turn of the model asks for. A plain class: orchestrators may be built of whatever Python has."""

    def __init__(self, ctx: OrchestrationContext, approval_s: float) -> None:
        self._ctx = ctx
        self._approval_s = approval_s
        self._waiting: dict[str, str] = {}

    async def use_all(self, calls: list[ToolCall]) -> list[Message]:
        """At once; those that need no human do not wait for the others."""
        results = await asyncio.gather(*(self._use(call) for call in calls))
        return [Message("tool", text, answers=call.number) for call, text in zip(calls, results, strict=True)]

    async def _use(self, call: ToolCall) -> str:
        """What the model is told. A tool that fails ends nothing: the model may find another way."""
        tool = TOOLS.get(call.name)
        if tool is None:
            return f"error: there is no tool '{call.name}'; there are {', '.join(sorted(TOOLS))}"
        if (
            tool.dangerous
        ):  # to change that is to change this code: see docs/versioning.md for agents under way
            decision = await self._ask_human(call)
            if not decision.approved:
                return f"denied by {decision.by}: {decision.reason}"
        try:
            return await self._ctx.call_activity(use_tool, call, retry=PATIENT)
        except TaskFailedError as error:
            return f"error: {error.details.message}"

    async def _ask_human(self, call: ToolCall) -> Decision:
        """The custom status says what waits; the number in the name of the event keeps answers apart."""
        self._show({**self._waiting, call.number: f"{call.name} {call.arguments}"[:500]})
        decision = await self._ctx.wait_for_external_event(
            f"Approval {call.number}", Decision, timeout=self._approval_s, default=None
        )
        self._show({number: wish for number, wish in self._waiting.items() if number != call.number})
        return decision or Decision(approved=False, by="the deadline", reason="nobody has answered")

    def _show(self, waiting: dict[str, str]) -> None:
        self._waiting = waiting
        self._ctx.set_custom_status({"waits for approval": waiting})
