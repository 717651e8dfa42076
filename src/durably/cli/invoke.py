"""``durably invoke``: calls a function of a running host over HTTP."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from durably.cli.instances.starting import tell_end
from durably.cli.output import Exit, complain, exit_code, print_json, say
from durably.cli.payloads import json_of
from durably.cli.settings import format_option, key_option, settings_of, shared, timeout_option

if TYPE_CHECKING:
    from durably.client.remote.answer import Answer
    from durably.client.remote.api import HostApi
    from durably.client.remote.calls import Function

DEFAULT_URL = "http://127.0.0.1:7071"

_EXAMPLES = """\b
Examples:
  durably invoke process_order --input '{"id": 7}' --wait
  durably invoke place number=7 --input @order.json
  durably invoke health --url https://shop.example
"""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What somebody wants to call, and how.

    Attributes:
        function: The name; or the path below ``/api``, where the host does not tell what it has.
        parameters: Of the route.
        content: The body as JSON, or None.
        value: The same as plain data.
        instance_id: For an orchestrator, or None.
        method: Of HTTP, or None for what fits.
        wait: Until the instance has ended.
        timeout_s: How long, or None.
        output: ``table`` or ``json``.
    """

    function: str
    parameters: dict[str, str]
    content: bytes | None
    value: Any
    instance_id: str | None
    method: str | None
    wait: bool
    timeout_s: float | None
    output: str


@click.command("invoke", short_help="Call a function of a running host.", epilog=_EXAMPLES)
@click.argument("function")
@click.argument("parameters", metavar="[NAME=VALUE]...", nargs=-1)
@click.option(
    "-i", "--input", "given", metavar="JSON|@FILE|-", show_envvar=True, help="The input or body; - is stdin."
)
@click.option("--id", "instance_id", metavar="ID", show_envvar=True, help="The instance of an orchestrator.")
@click.option(
    "-X", "--method", metavar="METHOD", show_envvar=True, help="Of HTTP; what fits the function by default."
)
@click.option("--wait", is_flag=True, show_envvar=True, help="Wait for the instance, and print its result.")
@timeout_option("Stop waiting after this long (exit code 6); the instance goes on.")
@click.option(
    "--url",
    metavar="URL",
    envvar="DURABLY_URL",
    default=DEFAULT_URL,
    show_default=True,
    show_envvar=True,
    help="Where the host is.",
)
@key_option
@format_option("table", "json", help_text="The answer as it is; or JSON in one line.")
@shared
@click.pass_context
def invoke_command(
    context: click.Context,
    *,
    function: str,
    parameters: tuple[str, ...],
    given: str | None,
    instance_id: str | None,
    method: str | None,
    wait: bool,
    timeout: float | None,
    url: str,
    output: str,
) -> int:
    """Call the HTTP function FUNCTION, or start the orchestrator FUNCTION, and print the answer.

    NAME=VALUE are parameters of the route. Where a key opens the function and not the list of functions, FUNCTION is its
    path below /api: orders/7.
    """
    import asyncio
    import json

    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for waiting: add --wait, or leave it out")
    value = json_of(given, "--input")
    call = Call(
        function=function,
        parameters=dict(_parameter(one) for one in parameters),
        content=None if given is None else json.dumps(value).encode(),
        value=value,
        instance_id=instance_id,
        method=None if method is None else method.upper(),
        wait=wait,
        timeout_s=timeout,
        output=output,
    )
    return asyncio.run(_invoke(context, url, call))


def _parameter(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise click.UsageError(f"'{given}' is no parameter of a route: expected NAME=VALUE")
    return name, value


async def _invoke(context: click.Context, url: str, call: Call) -> int:
    from durably.errors import UsageError

    try:
        from durably.client.remote.api import HostApi
        from durably.client.remote.calls import Function, functions_of
    except ImportError as error:
        raise UsageError(
            f"Asking over HTTP needs the extra 'http' ({error}): pip install 'durably[http]'"
        ) from None
    settings = settings_of(context)
    async with HostApi(url, settings.key, settings.ca, token=settings.token) as api:
        known = await functions_of(api)
        if known is None:
            path = call.function.strip("/")
            return await _call(context, api, Function(path, "httpTrigger", f"{api.url}/api/{path}"), call)
        function = _chosen(known, call.function)
        if function.kind == "httpTrigger":
            if call.instance_id is not None:
                raise UsageError(
                    f"--id is for orchestrators, and '{function.name}' is an HTTP function: leave it out"
                )
            return await _call(context, api, function, call)
    return await _start(context, url, function.name, call)


def _chosen(known: list[Function], name: str) -> Function:
    """The function of a name; of an HTTP function and an orchestrator the former."""
    import difflib

    from durably.errors import UnknownFunctionError, UsageError

    callable_ = [one for one in known if one.kind in {"httpTrigger", "orchestrationTrigger"}]
    for one in callable_:
        if one.name == name:
            return one
    for one in known:
        if one.name == name:
            raise UsageError(
                f"'{name}' is an {one.kind.removesuffix('Trigger')}: expected an HTTP function or an orchestrator"
            )
    names = [one.name for one in callable_]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = (
        f"did you mean '{close[0]}'?"
        if close
        else f"expected one of {', '.join(names) or 'none: it has none'}"
    )
    raise UnknownFunctionError(f"The host has no function '{name}': {hint}")


# --- HTTP functions --------------------------------------------------------------------------------------------------


async def _call(context: click.Context, api: HostApi, function: Function, call: Call) -> int:
    from durably.client.remote.calls import filled, followed, status_link
    from durably.client.remote.refused import error_of

    method = call.method or _method(function, call)
    headers = {} if call.content is None else {"content-type": "application/json"}
    url = filled(function, call.parameters)
    answer = await api.send(method, url, content=call.content, headers=headers)
    if answer.status >= 300:
        _print(answer, call.output)
        error = error_of(answer)
        complain(f"{method} {url}: {error}", color=settings_of(context).color)
        return {404: Exit.NOT_FOUND, 409: Exit.CONFLICT}.get(answer.status, exit_code(error))
    link = status_link(api, answer) if call.wait else None
    if link is None:
        _print(answer, call.output)
        return Exit.OK
    return tell_end(context, await followed(api, link, call.timeout_s), call.output)


def _method(function: Function, call: Call) -> str:
    wanted = ("POST", "PUT", "PATCH") if call.content is not None else ("GET", "POST", "DELETE")
    if not function.methods:
        return wanted[0]
    return next((method for method in wanted if method in function.methods), function.methods[0])


def _print(answer: Answer, output: str) -> None:
    import json

    if not answer.body:
        return
    try:
        value = json.loads(answer.body)
    except ValueError:
        click.echo(answer.body.decode(errors="replace"))
        return
    print_json(value, sys.stdout, pretty=output == "table", color=None)


# --- orchestrators ---------------------------------------------------------------------------------------------------


async def _start(context: click.Context, url: str, name: str, call: Call) -> int:
    from durably.cli.connecting import client_of
    from durably.errors import UsageError

    if call.parameters or call.method:
        raise UsageError(
            f"'{name}' is an orchestrator: expected --input, and neither NAME=VALUE nor --method"
        )
    async with client_of(url) as client:
        handle = await client.start(name, call.value, instance_id=call.instance_id)
        if call.wait:
            say(f"Started {handle.instance_id}")
            status = await client.wait_for_completion(handle.instance_id, call.timeout_s)
            return tell_end(context, status, call.output)
    if call.output == "json":
        answer = {"instance_id": handle.instance_id, "name": name}
        print_json(answer, sys.stdout, pretty=False, color=None)
    else:
        click.echo(handle.instance_id)
    return Exit.OK
