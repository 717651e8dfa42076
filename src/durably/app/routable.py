"""HTTP functions and mounted applications in code: the part of an `App` that registers them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from durably.errors import RegistrationError

if TYPE_CHECKING:
    from durably.http_api.functions.routes import HttpFunctions
    from durably.http_api.mounts.mount import Mounts

F = TypeVar("F", bound=Callable[..., Any])


class Routable:
    """Takes HTTP functions and mounted applications."""

    def __init__(self) -> None:
        super().__init__()
        self._http_functions: HttpFunctions | None = None
        self._http_mounts: Mounts | None = None

    def route(
        self,
        path: str | None = None,
        /,
        *,
        methods: Iterable[str] | str | None = None,
        auth_level: Literal["anonymous", "function", "admin"] = "function",
        name: str | None = None,
    ) -> Callable[[F], F]:
        """Register an HTTP function: one that answers requests, and may start orchestrations.

        Its parameters are filled by what they are annotated with: `starlette.requests.Request`, `Client`, outputs (`Out`),
        or, for one more, the type of the JSON body; parameters of the route by their names. It returns a response, a
        `Handle` (202 with links to the instance), text, bytes, None (204), or anything that becomes JSON. A plain ``def``
        runs in a thread.

        Needs the extra ``server``. Served by `AppHost.serve_http` and ``durably run``.

        Args:
            path: The route below the prefix (``/api``): ``"orders/{id:int}"``, ``"files/{*path}"``, ``"page/{number?}"``;
                the name of the function by default.
            methods: ``"GET"``, ``"POST"`` and so on; all by default.
            auth_level: ``"function"`` needs a function, host or master key, in the header ``x-functions-key`` or the
                parameter ``code``; ``"admin"`` the master key; ``"anonymous"`` none.
            name: Of the function; its own by default.

        Raises:
            RegistrationError: Name or route are taken, or the route is none.
        """
        functions = self.http_functions

        def register(function: F) -> F:
            functions.add(function, name=name, route=path, methods=methods, auth_level=auth_level)
            return function

        return register

    def mount(
        self,
        path: str,
        app: Callable[..., Any],
        /,
        *,
        auth_level: Literal["anonymous", "function", "admin"] = "function",
        name: str | None = None,
    ) -> None:
        """Serve an ASGI application (FastAPI, Starlette, Django and so on) beside the HTTP functions, in the same process.

        It is told of start and stop, and the limits of the host apply to its requests. `client_of` is its way to the client.
        WebSockets do not get to it.

        Needs the extra ``server``. Served by `AppHost.serve_http` and ``durably run``.

        Args:
            path: Where it is, with everything below: ``"/shop"``, or ``"/api/shop"`` for a place among the HTTP functions,
                which come first; ``"/"`` for what nothing else answers.
            app: The application.
            auth_level: See `route`: who does not have the key does not get to it.
            name: What a function key knows it by; by default its path, ``shop`` or ``api-shop``.

        Raises:
            RegistrationError: The path is taken, or the host's own, or this is no ASGI application.
        """
        self._mount(path, app, auth_level, name, threads=0)

    def mount_wsgi(
        self,
        path: str,
        app: Callable[..., Any],
        /,
        *,
        auth_level: Literal["anonymous", "function", "admin"] = "function",
        name: str | None = None,
        threads: int = 10,
    ) -> None:
        """Serve a WSGI application (Flask, Django, Bottle and so on) as `mount` does. Needs the extra ``wsgi``, too.

        Its ``environ`` has the client as ``durably.client``, and ``durably.run`` to wait for what it does:
        ``environ["durably.run"](client.start("order", 7))``.

        Args:
            path: See `mount`.
            app: The application.
            auth_level: See `route`.
            name: See `mount`.
            threads: Requests that it is given at once.

        Raises:
            RegistrationError: As `mount`, or the extra is not installed.
        """
        if type(threads) is not int or threads < 1:
            raise RegistrationError(
                f"The application at {path!r} has threads={threads!r}: expected 1 or more"
            )
        try:
            importlib.import_module("durably.http_api.mounts.wsgi")
        except ImportError as error:
            raise RegistrationError(
                f"Mounting a WSGI application needs the extra 'wsgi' ({error}): pip install 'durably[server,wsgi]'"
            ) from None
        self._mount(path, app, auth_level, name, threads=threads)

    def _mount(
        self, path: str, app: Callable[..., Any], level: str, name: str | None, *, threads: int
    ) -> None:
        mounts = self.http_mounts
        from durably.http_api.mounts.mount import make_mount

        mounts.add(make_mount(path, app, auth_level=level, name=name, threads=threads))

    @property
    def http_functions(self) -> HttpFunctions:
        """HTTP functions, by name.

        Raises:
            RegistrationError: The extra ``server`` is not installed.
        """
        if self._http_functions is None:
            try:
                from durably.http_api.functions.routes import HttpFunctions
            except ImportError as error:
                raise RegistrationError(
                    f"HTTP functions need the extra 'server' ({error}): pip install 'durably[server]'"
                ) from None
            self._http_functions = HttpFunctions()
        return self._http_functions

    @property
    def http_mounts(self) -> Mounts:
        """Mounted applications. Raises as `http_functions`."""
        if self._http_mounts is None:
            _ = self.http_functions  # says what is missing
            from durably.http_api.mounts.mount import Mounts

            self._http_mounts = Mounts()
        return self._http_mounts

    @property
    def has_http_functions(self) -> bool:
        """True when there is one; asking imports nothing."""
        return self._http_functions is not None and len(self._http_functions) > 0

    @property
    def has_mounts(self) -> bool:
        """True when an application is mounted; asking imports nothing."""
        return self._http_mounts is not None and len(self._http_mounts) > 0

    @property
    def serves_http(self) -> bool:
        """True when there is something of its own to serve over HTTP; asking imports nothing."""
        return self.has_http_functions or self.has_mounts

    def _check_mounts(self, other: Routable) -> None:
        if other.has_mounts:
            for mount in other.http_mounts:
                self.http_mounts.check(mount)

    def _merge_routes(self, other: Routable) -> None:
        if other.has_http_functions:
            self.http_functions.merge(other.http_functions)
        if other.has_mounts:
            self.http_mounts.merge(other.http_mounts)
