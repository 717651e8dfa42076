"""Who is let in: the keys and tokens of the HTTP API, as metadata of a call.

``authorization: Bearer TOKEN`` where there is an issuer of tokens, or ``x-functions-key: KEY``. Where only this machine can
connect, nobody is asked until somebody has made a key. Links open nothing here, and pages of browsers cannot speak gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from durably.clock import Clock
from durably.errors import UsageError
from durably.grpc_server.refusals import Code, Refusal
from durably.http_api.options import HttpOptions
from durably.security.access_keys import KeyRing
from durably.security.failures import Failures
from durably.security.key_file import Glance, KeyFile
from durably.security.roles import ANYBODY, EVERYTHING, Principal

if TYPE_CHECKING:
    from durably.security.issuer import Issuer

DEFAULT_HUB: Final = "default"
"""What emulators call their hub: stands for the one that is served."""

_FORWARDED: Final = frozenset(("forwarded", "via", "x-real-ip", "cf-connecting-ip"))
"""What proxies add, with all that begins ``x-forwarded-``: who asks may be anywhere, although this machine connects."""


class Asked:
    """What a call says of itself.

    Args:
        context: Of gRPC.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._metadata: Iterable[tuple[str, str | bytes]] = context.invocation_metadata() or ()

    def all(self, name: str) -> list[str]:
        """All values of a name, which is in lower case, as names are in gRPC."""
        return [value for given, value in self._metadata if given == name and isinstance(value, str)]

    def one(self, name: str) -> str:
        """The first value of a name, or ""."""
        return next(iter(self.all(name)), "")

    @property
    def address(self) -> str:
        """Where it comes from, without the port."""
        peer: str = self._context.peer()
        place = unquote(peer.partition(":")[2])
        return place.rpartition(":")[0].strip("[]")

    @property
    def is_forwarded(self) -> bool:
        """True when a proxy has passed it on."""
        return any(name in _FORWARDED or name.startswith("x-forwarded-") for name, _ in self._metadata)

    @property
    def offered(self) -> str:
        """What it shows as its credential, valid or not: ``token``, ``key``, or nothing."""
        if self.one("authorization")[:7].lower() == "bearer ":
            return "token"
        return "key" if self.one("x-functions-key") else ""


class Gate:
    """Credentials to principals.

    Args:
        hub: The name of the hub.
        keys: The keys of now, or None: nobody is asked for one.
        issuer: Whose bearer tokens are credentials, too.
        open_until_keys: While there are no keys, nobody on this machine is asked for one.
        failures: Counts who shows no credential, or a wrong one.
    """

    def __init__(
        self,
        hub: str,
        keys: Callable[[], KeyRing] | None,
        issuer: Issuer | None,
        *,
        open_until_keys: bool,
        failures: Failures,
    ) -> None:
        self._hub = hub
        self._keys = keys
        self._issuer = issuer
        self._open = open_until_keys
        self._failures = failures

    @classmethod
    def of(cls, options: HttpOptions, hub_url: str, clock: Clock) -> Gate:
        """The gate that options describe; their `bind` is the address of this face.

        Raises:
            UsageError: Others than this machine could connect, and there is no credential yet.
            OperationError: The key file cannot be read or written.
        """
        return cls(
            options.hub_at(hub_url),
            _keys(options, hub_url, clock),
            _issuer(options, clock),
            open_until_keys=options.open_until_keys,
            failures=Failures(options.max_failures_per_minute),
        )

    @property
    def way_in(self) -> str:
        """How to get in, for whoever starts the host."""
        if self._keys is None:
            return "no keys are asked for"
        if self._open and not self._keys().asks:
            return "no key is asked for until there is one"
        return "keys: durably keys --help"

    async def principal(self, asked: Asked) -> Principal:
        """Whom the credential of a call stands for.

        Raises:
            Refusal: UNAUTHENTICATED, there is a credential and it is not valid.
            OperationError: The keys, or those of the issuer, cannot be read.
        """
        if self._keys is None:
            return EVERYTHING
        if self._issuer is not None and (bearer := _bearer_of(asked)):
            return await _of_token(self._issuer, bearer)
        ring = self._keys()
        self._open = self._open and not ring.asks  # a file of keys that vanishes opens nothing
        if self._open and not asked.is_forwarded:
            return EVERYTHING
        given = asked.one("x-functions-key")
        if not given:
            return ANYBODY
        key = ring.find(given)
        if key is None:
            raise _unauthenticated("The key is not valid, or not any more")
        return key.principal()

    def check(self, principal: Principal, needs: str) -> None:
        """Let somebody do something.

        Raises:
            Refusal: UNAUTHENTICATED or PERMISSION_DENIED.
        """
        if not needs or principal.may(needs):
            return
        if principal is ANYBODY:
            raise _unauthenticated("A credential is missing")
        raise Refusal(
            Code.PERMISSION_DENIED, f"The {principal.name} may not do this: expected one that may '{needs}'"
        )

    def check_hub(self, asked: Asked) -> None:
        """A hub is never chosen by a call: one that names another hub finds nothing.

        Raises:
            Refusal: NOT_FOUND.
        """
        name = asked.one("taskhub")
        if name and name.lower() not in {self._hub.lower(), DEFAULT_HUB}:
            raise Refusal(
                Code.NOT_FOUND,
                f"Task hub {name[:100]!r} is not served here: expected '{self._hub}' or '{DEFAULT_HUB}'",
            )

    def noted(self, asked: Asked, refusal: Refusal) -> Refusal:
        """What becomes of a refusal: another one of failed credentials, when there were many from that address."""
        if refusal.code is not Code.UNAUTHENTICATED or not self._failures.count(asked.address):
            return refusal
        text = "Too many calls from your address have no valid credential: correct it, and try again later"
        return Refusal(Code.RESOURCE_EXHAUSTED, text, "TooManyFailures")


def _keys(options: HttpOptions, hub_url: str, clock: Clock) -> Glance | None:
    if options.insecure:
        return None
    keys = KeyFile(options.keys_at(hub_url), clock.now)
    if not (options.is_local or options.oidc_issuer or keys.ring.keys):
        where = "" if keys.path else ", with DURABLY_HTTP_KEY_FILE for where this hub has its keys"
        raise UsageError(
            f"gRPC is to listen on {options.bind!r} and there is no credential yet: beyond this machine nobody is served "
            f"without. Make a key first ('durably keys create NAME --role ROLE'{where}), or listen on localhost"
        )
    keys.prepare(shut=bool(options.key_file))
    return Glance(keys)


def _issuer(options: HttpOptions, clock: Clock) -> Issuer | None:
    rules = options.token_rules
    if rules is None:
        return None
    try:
        from durably.security.issuer import Issuer  # cryptography takes a while to load
    except ImportError as error:
        raise UsageError(
            f"Bearer tokens need the extra 'server' ({error}): pip install 'durably[server]'"
        ) from None
    return Issuer(rules, clock.now)


def _bearer_of(asked: Asked) -> str | None:
    given = asked.all("authorization")
    if len(given) > 1:
        raise _unauthenticated("There is more than one credential")
    scheme, _, token = (given[0] if given else "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def _of_token(issuer: Issuer, token: str) -> Principal:
    from durably.security.tokens import TokenError  # whoever has an issuer has the library

    try:
        return await issuer.principal(token)
    except TokenError as error:
        raise _unauthenticated(f"The bearer token is not accepted, {error}") from None


def _unauthenticated(what: str) -> Refusal:
    return Refusal(
        Code.UNAUTHENTICATED, f"{what}: expected a key as x-functions-key in the metadata, or a bearer token"
    )
