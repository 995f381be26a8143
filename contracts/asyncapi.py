"""The bus, the WebSockets and the event stream as an AsyncAPI 3 document, generated from the types. Pure.

https://www.asyncapi.com/docs/reference/specification/v3.0.0. Written from Loratory's point of view: it *receives*
commands and queries, and *sends* events, queue messages, telemetry and frames. HTTP is in the OpenAPI document.
"""

import re
from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from contracts import subjects
from contracts.aggregates import REGISTRY, AggregateKind, AnyCommandResult, AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.commits import Commit
from contracts.errors import ErrorReply
from contracts.evolution import Raw
from contracts.frames import FRAMES, ClientFrame, EventItem
from contracts.queries.base import Query, query_name_of, result_type_of
from contracts.queries.owners import QUERIES
from contracts.signatures import HEADER as SIGNATURE
from contracts.telemetry import TELEMETRY, LossBlock

PARTS = "#/components/schemas/{name}"
JSON = "application/json"
Tokens = dict[str, str]
"""The tokens of an address, and what they mean."""

STREAMS = {
    subjects.EVENTS: "The event log, kept for ever. A message is a commit, stored if its aggregate has not changed.",
    subjects.QUEUE: "The work queue: one message for each queued job or tagging run. All of it follows from the log.",
    subjects.METRICS: "Loss curves, deleted after 90 days.",
}


def asyncapi(version: str) -> Raw:
    """The document; `version` is that of Loratory. Every reference in it resolves (a test walks them)."""
    document = _Document()
    for kind in REGISTRY.kinds:
        document.add_events(kind)
        if kind.command_types:
            document.add_commands(kind)
    for owner, queries in QUERIES.items():
        for query in queries:
            document.add_query(owner, query)
    document.add_telemetry()
    document.add_frames()
    content = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Loratory: the bus and the live feed",
            "version": version,
            "description": "Subjects and messages of Loratory's services on NATS, which are internal and may be read "
            "by others, and the frames for live clients. To change something use the HTTP API.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON,
        "servers": {
            "nats": {"host": "127.0.0.1:4222", "protocol": "nats", "description": "One account for each service."},
            "websocket": {"host": "127.0.0.1:8000", "protocol": "ws", "description": "The gateway."},
            "http": {"host": "127.0.0.1:8000", "protocol": "http", "description": "The gateway."},
        },
        "channels": document.channels,
        "operations": document.operations,
        "components": {"messages": document.messages, "schemas": dict(sorted(document.schemas.items()))},
    }
    return as_json(content)


class _Document:
    """The parts of the document while it is built."""

    def __init__(self) -> None:
        self.channels: dict[str, Raw] = {}
        self.operations: dict[str, Raw] = {}
        self.messages: dict[str, Raw] = {}
        # In one call: only then do two types with the same name get different schema names.
        refs, parts = msgspec.json.schema_components(_TYPES, schema_hook=any_json, ref_template=PARTS)
        self.schemas: dict[str, Raw] = _simplify_discriminators(parts)
        self._schemas = dict(zip(_TYPES, refs, strict=True))
        self._channel("replies", None, "The reply to a command or query goes to the inbox of the client.")
        self._message("replies", "error", ErrorReply, "An error reply, with the header Nats-Service-Error-Code.")
        executed = "The command was executed, now or when it was first sent."
        self._message("replies", "command_result", AnyCommandResult, executed)

    def add_events(self, kind: AggregateKind) -> None:
        channel, message = f"events.{kind.name}", f"commit.{kind.name}"
        tokens = {"id": f"The {kind.name}'s id."}
        self._stream_channel(channel, subjects.aggregate(kind.name, "{id}"), subjects.EVENTS, tokens)
        self._message(channel, message, None, f"The events that one command caused in one {kind.name}.")
        events = {"type": "array", "items": self._any_of(kind.event_types)}
        of_this_kind = {"type": "object", "properties": {"events": events}}
        self.messages[message]["payload"] = {"allOf": [self._schemas[Commit], of_this_kind]}
        headers = {name: {"type": "string"} for name in (SIGNATURE, "Nats-Expected-Last-Subject-Sequence")}
        self.messages[message]["headers"] = {"type": "object", "properties": headers}
        self._operation(f"append.{kind.name}", "send", channel)

    def add_commands(self, kind: AggregateKind) -> None:
        name = f"command.{kind.name}"
        self._channel(name, subjects.command(kind.owner, kind.name), f"Commands for a {kind.name}.")
        self._message(name, name, None, f"A command for a {kind.name}, with its metadata.")
        fields = {"metadata": self._schemas[CommandMetadata], "command": self._any_of(kind.command_types)}
        self.messages[name]["payload"] = _object(fields)
        self._operation(name, "receive", name, reply="command_result")

    def add_query(self, owner: str, query: type[Query[Any]]) -> None:
        query_name = query_name_of(query)
        name = f"query.{query_name}"
        self._channel(name, subjects.query(owner, query_name), _first_line(query))
        self._message(name, name, query, _first_line(query))
        self._message("replies", f"result.{query_name}", result_type_of(query), f"The result of {query_name}.")
        self._operation(name, "receive", name, reply=f"result.{query_name}")

    def _any_of(self, types: Iterable[type]) -> Raw:
        return {"anyOf": [self._schemas[one] for one in types]}

    def add_telemetry(self) -> None:
        for kind in TELEMETRY:
            tokens = {name: f"The message's `{name}`." for name in re.findall(r"{(\w+)}", kind.address)}
            self._channel(kind.kind_name(), kind.address, _first_line(kind), tokens)
            self._publish(kind.kind_name(), kind)
        self._stream_channel("losses", subjects.metrics("{id}"), subjects.METRICS, {"id": "The job's id."})
        self._publish("losses", LossBlock)
        wake_tokens = {"class": "train or tag.", "id": "Id of the work."}
        description = "Asks the worker that holds this work to read the log now."
        self._channel("wake", "ctl.{class}.{id}", description, wake_tokens)
        self._publish("wake", None)
        queue_tokens = {"class": "train or tag.", "priority": "high, normal or low.", "id": "Id of the work."}
        self._stream_channel("queue_message", "jobs.{class}.{priority}.{id}", subjects.QUEUE, queue_tokens)
        self._publish("queue_message", None)
        fields = {"id": {"type": "string"}, "dispatch": {"type": "integer", "description": "Sequence of job.queued."}}
        self.messages["queue_message"]["payload"] = _object(fields)

    def add_frames(self) -> None:
        """The sockets send all frames; the stream sends events only, each as an object of the events API."""
        job = {"job_id": "Only events and progress of this job."}
        for name, address, tokens in (("live", "/ws/progress", {}), ("live.job", "/ws/progress/{job_id}", job)):
            self._channel(name, address, "A WebSocket; continues from the cursor `after`.", tokens, server="websocket")
            for frame in FRAMES:
                self._message(name, f"frame.{frame.__struct_config__.tag}", frame, _first_line(frame))
            self._operation(f"send.{name}", "send", name)
            for request in get_args(ClientFrame):
                self._message(name, f"request.{request.__struct_config__.tag}", request, _first_line(request))
        description = "Server-sent events; continues from `Last-Event-ID`."
        self._channel("event_stream", "/api/v1/events", description, server="http")
        self._message("event_stream", "event_item", EventItem, _first_line(EventItem))
        self._operation("send.event_stream", "send", "event_stream")

    def _publish(self, name: str, content: Any) -> None:
        """The channel has one message, which services publish."""
        self._message(name, name, content, self.channels[name]["description"])
        self._operation(f"publish.{name}", "send", name)

    def _channel(
        self, name: str, address: str | None, description: str, tokens: Tokens | None = None, *, server: str = "nats"
    ) -> None:
        servers = [{"$ref": f"#/servers/{server}"}]
        channel: Raw = {"address": address, "description": description, "servers": servers, "messages": {}}
        if tokens:
            channel["parameters"] = {token: {"description": meaning} for token, meaning in tokens.items()}
        self.channels[name] = channel

    def _stream_channel(self, name: str, address: str, stream: str, tokens: Tokens) -> None:
        self._channel(name, address, STREAMS[stream], tokens)
        self.channels[name]["x-stream"] = stream

    def _message(self, channel: str, name: str, content: Any, summary: str) -> None:
        """`content` None: the message is JSON null."""
        payload = {"type": "null"} if content is None else self._schemas[content]
        self.messages[name] = {"name": name, "summary": summary, "contentType": JSON, "payload": payload}
        self.channels[channel]["messages"][name] = {"$ref": f"#/components/messages/{name}"}

    def _operation(self, name: str, action: str, channel: str, *, reply: str | None = None) -> None:
        operation: Raw = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}
        if reply is not None:
            replies = [{"$ref": f"#/channels/replies/messages/{message}"} for message in (reply, "error")]
            operation["reply"] = {"channel": {"$ref": "#/channels/replies"}, "messages": replies}
        self.operations[name] = operation


def _object(fields: Raw) -> Raw:
    return {"type": "object", "properties": fields, "required": [*fields]}


def any_json(kind: type) -> Raw:
    """A msgspec schema hook: `object` stands for any JSON value."""
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError(kind)


def as_json(document: Raw) -> Raw:
    """The document as plain JSON values: msgspec leaves tuples in it."""
    return msgspec.json.decode(msgspec.json.encode(document), type=dict[str, Any])


def _first_line(kind: type) -> str:
    return (kind.__doc__ or kind.__name__).strip().partition("\n")[0]


def _simplify_discriminators(schema: Any) -> Any:
    """A discriminator in AsyncAPI is only the property name; in OpenAPI it also maps its values."""
    if isinstance(schema, dict):
        return {
            key: value["propertyName"] if key == "discriminator" else _simplify_discriminators(value)
            for key, value in schema.items()
        }
    return [_simplify_discriminators(value) for value in schema] if isinstance(schema, list) else schema


_QUERIES = [query for queries in QUERIES.values() for query in queries]
_TYPES: list[Any] = [
    *get_args(AnyEvent),
    *REGISTRY.by_command,
    *(Commit, CommandMetadata, AnyCommandResult, ErrorReply, *TELEMETRY, LossBlock, *_QUERIES),
    *(*FRAMES, *get_args(ClientFrame), EventItem),
    *dict.fromkeys(result_type_of(query) for query in _QUERIES),
]
