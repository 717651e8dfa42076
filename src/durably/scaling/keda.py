"""An external scaler for KEDA: a gRPC service that says how many hosts a hub takes.

https://keda.sh/docs/latest/concepts/external-scalers/ describes the protocol. The metric is the recommended number of hosts,
and its target is 1: so what the horizontal autoscaler of Kubernetes makes of it is that number.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, cast

import grpc

from durably.core.load import Rule, recommended_hosts
from durably.errors import OperationError, UsageError
from durably.scaling.lookout import Lookout
from durably.scaling.messages import MESSAGES, SERVICE
from durably.scaling.options import KEDAS, OURS, ScalerOptions, rule_of

METRIC: Final = "durably-hosts"

_CALLS_MAX: Final = 256
"""At once, streams included."""

_STREAMS_MAX: Final = 64
"""Of them: KEDA has one for each scaled object. They last, so without a bound of their own no place is left for others."""

_CONNECTION: Final = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 10_000),
)
"""Peers that are gone, or never go, do not keep their streams."""

_REQUEST_BYTES_MAX: Final = 64 * 1_024

_log = logging.getLogger("durably.scaling")

_grpc: Any = cast("Any", grpc)
_Answer = Callable[[Any, Any], Awaitable[Any]]


class KedaService:
    """What is answered.

    Args:
        lookout: Of the hub.
        hub: Its name.
    """

    def __init__(self, lookout: Lookout, hub: str) -> None:
        self._lookout = lookout
        self._hub = hub
        self._strange: set[str] = set()
        self._streams = 0

    @property
    def handler(self) -> Any:
        """For a server."""
        unary, stream = _grpc.unary_unary_rpc_method_handler, _grpc.unary_stream_rpc_method_handler
        ref = "ScaledObjectRef"
        methods = {
            "IsActive": self._method(unary, self._guarded(self._is_active), ref, "IsActiveResponse"),
            "StreamIsActive": self._method(stream, self._stream_is_active, ref, "IsActiveResponse"),
            "GetMetricSpec": self._method(
                unary, self._guarded(self._metric_spec), ref, "GetMetricSpecResponse"
            ),
            "GetMetrics": self._method(
                unary, self._guarded(self._metrics), "GetMetricsRequest", "GetMetricsResponse"
            ),
        }
        return _grpc.method_handlers_generic_handler(SERVICE, methods)

    def _method(self, kind: Any, act: Any, takes: str, gives: str) -> Any:
        return kind(
            act,
            request_deserializer=MESSAGES[takes].FromString,
            response_serializer=MESSAGES[gives].SerializeToString,
        )

    def _guarded(self, answer: _Answer) -> _Answer:
        """Our errors as those of gRPC."""

        async def guarded(request: Any, context: Any) -> Any:
            try:
                return await answer(request, context)
            except UsageError as error:
                await context.abort(_grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except OperationError as error:
                _log.warning("the load cannot be told now: %s", error)
                await context.abort(
                    _grpc.StatusCode.UNAVAILABLE,
                    "The hub cannot be asked now: the log of the scaler says why",
                )

        return guarded

    # --- calls -------------------------------------------------------------------------------------------------------

    async def _is_active(self, request: Any, context: Any) -> Any:
        rule = self._rule(request)
        return MESSAGES["IsActiveResponse"](result=recommended_hosts(await self._lookout.look(), rule) > 0)

    async def _stream_is_active(self, request: Any, context: Any) -> AsyncGenerator[Any]:
        """Says what is so now, and then each change: a message that comes starts a host at once."""
        try:
            rule = self._rule(request)
        except UsageError as error:
            await context.abort(_grpc.StatusCode.INVALID_ARGUMENT, str(error))
            return
        if self._streams >= _STREAMS_MAX:
            await context.abort(
                _grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{_STREAMS_MAX} streams are open: expected one for each scaled object. Close some, or ask with IsActive",
            )
            return
        self._streams += 1
        try:
            async with aclosing(self._lookout.changes(rule)) as loads:
                said: bool | None = None
                async for load in loads:
                    active = recommended_hosts(load, rule) > 0
                    if active is not said:
                        said = active
                        yield MESSAGES["IsActiveResponse"](result=active)
        finally:
            self._streams -= 1

    async def _metric_spec(self, request: Any, context: Any) -> Any:
        self._rule(request)
        spec = MESSAGES["MetricSpec"](metricName=METRIC, targetSize=1, targetSizeFloat=1.0)
        return MESSAGES["GetMetricSpecResponse"](metricSpecs=[spec])

    async def _metrics(self, request: Any, context: Any) -> Any:
        number = recommended_hosts(await self._lookout.look(), self._rule(request.scaledObjectRef))
        value = MESSAGES["MetricValue"](metricName=METRIC, metricValue=number, metricValueFloat=float(number))
        return MESSAGES["GetMetricsResponse"](metricValues=[value])

    def _rule(self, ref: Any) -> Rule:
        metadata: dict[str, str] = dict(ref.scalerMetadata)
        for name in metadata.keys() - KEDAS - set(OURS) - self._strange:
            if len(self._strange) < _CALLS_MAX:
                self._strange.add(name)
                _log.warning(
                    "the metadata has %r, which is ignored; known are %s", name[:100], ", ".join(OURS)
                )
        return rule_of(metadata, self._hub)


class ScalerServer:
    """Serves one hub, until it is stopped.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, service: KedaService, options: ScalerOptions) -> None:
        self._options = options
        self._server = _grpc.aio.server(
            maximum_concurrent_rpcs=_CALLS_MAX,
            options=[
                ("grpc.max_receive_message_length", _REQUEST_BYTES_MAX),
                ("grpc.so_reuseport", 0),
                *_CONNECTION,
            ],
        )
        self._server.add_generic_rpc_handlers((service.handler,))
        self.port = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            OperationError: The address is taken, or none of this machine.
            UsageError: A file for TLS cannot be read.
        """
        options = self._options
        try:
            if options.tls_certificate and options.tls_key:
                self.port = self._server.add_secure_port(options.bind, self._credentials())
            else:
                self.port = self._server.add_insecure_port(options.bind)
        except RuntimeError as error:
            raise OperationError(f"Cannot listen on {options.bind}: {error}") from None
        await self._server.start()

    def _credentials(self) -> Any:
        options = self._options
        key = options.read("tls_key", options.tls_key or "")
        chain = options.read("tls_certificate", options.tls_certificate or "")
        authority = options.read("client_ca", options.client_ca) if options.client_ca else None
        return _grpc.ssl_server_credentials(
            [(key, chain)], root_certificates=authority, require_client_auth=authority is not None
        )

    async def stop(self) -> None:
        """Hang up."""
        await self._server.stop(grace=0.5)
