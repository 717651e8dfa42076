"""The messages of KEDA's protocol for external scalers: names and numbers of fields are what both sides agree upon."""

from __future__ import annotations

from typing import Any, Final, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE: Final = "externalscaler.ExternalScaler"

_PACKAGE: Final = "externalscaler"

_FIELDS: Final = {
    "ScaledObjectRef": ("name:string", "namespace:string", "scalerMetadata:map"),
    "IsActiveResponse": ("result:bool",),
    "MetricSpec": ("metricName:string", "targetSize:int64", "targetSizeFloat:double"),
    "GetMetricSpecResponse": ("metricSpecs:MetricSpec*",),
    "GetMetricsRequest": ("scaledObjectRef:ScaledObjectRef", "metricName:string"),
    "MetricValue": ("metricName:string", "metricValue:int64", "metricValueFloat:double"),
    "GetMetricsResponse": ("metricValues:MetricValue*",),
}
"""By message: its fields, numbered from 1 on; ``*``: repeated."""

_descriptors: Any = cast("Any", descriptor_pb2)  # the classes in it are made when it is imported
_Field: Any = _descriptors.FieldDescriptorProto

_SCALARS: Final = {
    "string": _Field.TYPE_STRING,
    "bool": _Field.TYPE_BOOL,
    "int64": _Field.TYPE_INT64,
    "double": _Field.TYPE_DOUBLE,
}


def _add_field(message: Any, number: int, name: str, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind == "map":  # from text to text: on the wire a list of pairs
        entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
        entry.options.map_entry = True
        for place, part in enumerate(("key", "value"), 1):
            _add_field(entry, place, part, "string")
        field.label, field.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"
    elif kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind.rstrip('*')}"
        if kind.endswith("*"):
            field.label = _Field.LABEL_REPEATED


def _classes() -> dict[str, Any]:
    file: Any = _descriptors.FileDescriptorProto(
        name="durably/externalscaler.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields, 1):
            _add_field(message, number, *field.split(":"))
    pool: Any = descriptor_pool.DescriptorPool()  # of our own: an application may have the same names
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


MESSAGES: Final = _classes()
"""The classes, by name."""
