"""The control messages between gateway and worker: one msgpack map a message, request and reply matched by id.

Both processes import this module; the sockets are in gateway/dispatch/worker_client.py and workers/commands.py. A
request is ``{"id", "command", …fields}``, a reply ``{"id", "code", "message", …fields}`` with code 0 for OK. The fields
of each command are in the table below; surplus ones are ignored, so that a newer peer may add some.

| command | request fields | reply fields |
|---|---|---|
| hello | – | pid, epoch, wire_version, tensorflow_version, num_execution_threads |
| load | handle, name, version, path, platform, and how (below) | signature_def_map, load_us, what warm-up took |
| unload | handle | – |
| ping | – | in_flight, completed, rss_bytes, queues |
| profile | duration_ms | xspace, has_events |
| end_profile | – | – |
| weigh | weights | – |
| await_leaving | – | –, once somebody else than the gateway wants the worker to end |
| stop | – | – |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

# Platforms of ``load``, as a model's configuration calls them.
TENSORFLOW_PLATFORM = "tensorflow"
HASHMAP_PLATFORM = "hashmap"

# What an inference call on a platform without signatures is answered with, upstream's text.
WRONG_SERVABLE_TYPE = "Servable type doesn't match the asked for type."

# Name and type of every field a reader relies on; a list is of strings.
REQUEST_FIELDS: Mapping[str, Mapping[str, type[Any]]] = {
    "hello": {},
    "load": {
        "handle": int,
        "name": str,
        "version": int,
        "path": str,
        "tags": list,
        "session_config": bytes,  # a serialized tensorflow.ConfigProto, or empty
        "num_warmup_iterations": int,
        "platform": str,
        "checks_method_names": bool,
        "outputs_as_content": bool,
        "prefer_tflite_model": bool,
        "num_tflite_pools": int,
        "golden_tolerance": float,
        "batching_mode": str,  # of gateway/batching.py
        "batching_parameters": bytes,  # a serialized tensorflow.serving.BatchingParameters, or empty
        "model_settings": bytes,  # a serialized tensorgate.ModelSettings, or empty
    },
    "unload": {"handle": int},
    "ping": {},
    "profile": {"duration_ms": int},
    "end_profile": {},
    "weigh": {"weights": dict},  # of models, by name; 1 for those that it does not have
    "await_leaving": {},
    "stop": {},
}

REPLY_FIELDS: Mapping[str, Mapping[str, type[Any]]] = {
    "hello": {"pid": int, "epoch": int, "wire_version": int, "tensorflow_version": str, "num_execution_threads": int},
    "load": {"signature_def_map": bytes, "load_us": int, "num_warmup_records": int, "warmup_us": int},
    "unload": {},
    # Of queues for requests that are merged each is a JSON object: handle, name, version, signature and counters.
    "ping": {"in_flight": int, "completed": int, "rss_bytes": int, "queues": list},
    "profile": {"xspace": bytes, "has_events": bool},  # a serialized tensorflow.profiler.XSpace
    "end_profile": {},
    "weigh": {},
    "await_leaving": {},
    "stop": {},
}


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """A command to a worker. The fields of a known command are present and of their types."""

    id: int
    command: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ControlReply:
    """A worker's answer. ``code`` is a canonical status code; ``fields`` are there when it is 0."""

    id: int
    code: int
    message: str
    fields: Mapping[str, Any]


def pack_request(message_id: int, command: str, **fields: Any) -> bytes:
    """The message for a command; the fields are those of the table."""
    return bytes(msgpack.packb({"id": message_id, "command": command, **fields}, use_bin_type=True))


def unpack_request(message: bytes) -> ControlRequest:
    """The command in a message; one of an unknown name comes with whatever fields it has. Raises ValueError."""
    fields = _unpack_map(message)
    message_id, command = _take(fields, "id", int), _take(fields, "command", str)
    _check(fields, REQUEST_FIELDS.get(command, {}), command)
    return ControlRequest(message_id, command, fields)


def pack_reply(message_id: int, code: int, message: str, **fields: Any) -> bytes:
    """The answer to the command of that id."""
    return bytes(msgpack.packb({"id": message_id, "code": int(code), "message": message, **fields}, use_bin_type=True))


def unpack_reply(message: bytes) -> ControlReply:
    """The answer in a message. Raises ValueError. ``check_reply`` checks the fields, once the command is known."""
    fields = _unpack_map(message)
    return ControlReply(_take(fields, "id", int), _take(fields, "code", int), _take(fields, "message", str), fields)


def check_reply(command: str, reply: ControlReply) -> None:
    """Raises ValueError when a successful answer to ``command`` lacks a field or has it in another type."""
    _check(reply.fields, REPLY_FIELDS[command], command)


def _unpack_map(message: bytes) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(message, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"not a msgpack message: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"not a map but {type(fields).__name__}")
    return fields


def _take(fields: dict[str, Any], name: str, wanted: type[Any]) -> Any:
    _check(fields, {name: wanted}, "a control message")
    return fields.pop(name)


def _check(fields: Mapping[str, Any], wanted: Mapping[str, type[Any]], what: str) -> None:
    for name, kind in wanted.items():
        if name not in fields:
            raise ValueError(f"{what} lacks the field {name!r}")
        value = fields[name]
        # bool is an int to Python, but not to a reader of numbers.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{what}: the field {name!r} is of type {type(value).__name__}, not {kind.__name__}")
        if kind is list and not all(isinstance(each, str) for each in value):
            raise ValueError(f"{what}: the field {name!r} is not a list of strings")
