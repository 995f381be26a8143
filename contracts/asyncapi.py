"""The bus as an AsyncAPI 3 document, generated from the types: channels, messages and operations. Pure.

https://www.asyncapi.com/docs/reference/specification/v3.0.0. Written from Loratory's point of view: it *receives*
commands and queries, and *sends* events, queue messages, telemetry and announcements. HTTP and WebSocket are in the
OpenAPI document.
"""

from typing import Any, get_args

import msgspec

from contracts import subjects
from contracts.commands import COMMAND_FAMILIES, AnyCommandResult, CommandEnvelope
from contracts.errors import ErrorReply
from contracts.events import EVENTS_OF, AnyEvent, Commit
from contracts.events.evolution import Raw
from contracts.queries import Query, query_name_of, result_type_of
from contracts.schemas import as_json
from contracts.subjects import AggregateKind
from contracts.telemetry import Applied, LossBlock, Presence, TaggingProgress, TrainingProgress

PARTS = "#/components/schemas/{name}"
OWNER = "catalog"
"""The service that handles all commands and queries."""
JSON = "application/json"

STREAMS = {
    subjects.EVENTS: "The event log, kept for ever. A message is a commit, stored if its aggregate has not changed.",
    subjects.QUEUE: "The work queue: one message for each queued job or tagging run. All of it follows from the log.",
    subjects.METRICS: "Loss curves, deleted after 90 days.",
}


def asyncapi(version: str) -> Raw:
    """The document; `version` is that of Loratory. Every reference in it resolves (a test walks them)."""
    document = _Document()
    for kind in get_args(AggregateKind):
        document.add_events(kind)
    for command, family in COMMAND_FAMILIES.items():
        document.add_command(command, family)
    for query in _QUERIES:
        document.add_query(query)
    document.add_telemetry()
    content = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Loratory: the bus",
            "version": version,
            "description": "Subjects and messages of Loratory's services on NATS. They are internal and may be "
            "read by others; to change something use the HTTP API.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON,
        "servers": {
            "nats": {"host": "127.0.0.1:4222", "protocol": "nats", "description": "One user for each service."}
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
        refs, parts = msgspec.json.schema_components(_TYPES, schema_hook=_any_json, ref_template=PARTS)
        self.schemas: dict[str, Raw] = _simplify_discriminators(parts)
        self._schemas = dict(zip(_TYPES, refs, strict=True))
        self._channel("replies", None, {}, "The reply to a command or query goes to the inbox of the client.")
        self._message("replies", "error", ErrorReply, "An error reply, with the header Nats-Service-Error-Code.")

    def add_events(self, kind: AggregateKind) -> None:
        name = f"events.{kind}"
        address = subjects.aggregate(kind, "{id}")
        self._channel(name, address, {"id": f"The {kind}'s id."}, STREAMS[subjects.EVENTS], stream=subjects.EVENTS)
        union: Any = EVENTS_OF[kind]
        events = [self._schemas[event] for event in get_args(union) or (union,)]
        of_this_kind = {"type": "object", "properties": {"events": {"type": "array", "items": {"anyOf": events}}}}
        self._message(name, f"commit.{kind}", None, f"The events that one command caused in one {kind}.")
        self.messages[f"commit.{kind}"]["payload"] = {"allOf": [self._schemas[Commit], of_this_kind]}
        headers = {name: {"type": "string"} for name in ("Nats-Msg-Id", "Nats-Expected-Last-Subject-Sequence")}
        self.messages[f"commit.{kind}"]["headers"] = {"type": "object", "properties": headers}
        self._operation(f"append.{kind}", "send", name)

    def add_command(self, command: type[CommandEnvelope], family: str) -> None:
        name = f"command.{family}"
        self._channel(name, subjects.command(OWNER, family), {}, f"Commands for a {family}.")
        self._message(name, name, command, f"A command for a {family}, with its metadata.")
        self._message(
            "replies", "command_result", AnyCommandResult, "The command was executed, now or when it was first sent."
        )
        self._operation(f"command.{family}", "receive", name, reply="command_result")

    def add_query(self, query: type[Query[Any]]) -> None:
        query_name = query_name_of(query)
        name = f"query.{query_name}"
        self._channel(name, subjects.query(OWNER, query_name), {}, _first_line(query))
        self._message(name, name, query, _first_line(query))
        self._message("replies", f"result.{query_name}", result_type_of(query), f"The result of {query_name}.")
        self._operation(f"query.{query_name}", "receive", name, reply=f"result.{query_name}")

    def add_telemetry(self) -> None:
        description = "Published, not stored: the last value counts."
        for work, progress in (("train", TrainingProgress), ("tag", TaggingProgress)):
            self._add_sent(f"progress.{work}", f"prog.{work}.{{id}}", {"id": "Id of the work."}, description, progress)
        worker = {"service": "trainer or tagger.", "worker": "The worker's id."}
        self._add_sent("presence", "wrk.{service}.{worker}", worker, "The heartbeat of a worker.", Presence)
        self._add_sent("applied", subjects.APPLIED, {}, "The sequence that the read model has applied.", Applied)
        self._add_sent(
            "losses", subjects.metrics("{id}"), {"id": "The job's id."}, STREAMS[subjects.METRICS], LossBlock
        )
        self.channels["losses"]["x-stream"] = subjects.METRICS
        self._add_sent("erased", subjects.ERASED, {}, "Images were erased: query which, and delete copies.", None)
        wake_tokens = {"class": "train or tag.", "id": "Id of the work."}
        self._add_sent(
            "wake", "ctl.{class}.{id}", wake_tokens, "Asks the worker that holds this work to read the log now.", None
        )
        queue_tokens = {"class": "train or tag.", "priority": "high, normal or low.", "id": "Id of the work."}
        self._add_sent("queue_message", "jobs.{class}.{priority}.{id}", queue_tokens, STREAMS[subjects.QUEUE], None)
        self.channels["queue_message"]["x-stream"] = subjects.QUEUE
        fields = {"id": {"type": "string"}, "dispatch": {"type": "integer", "description": "Sequence of job.queued."}}
        self.messages["queue_message"]["payload"] = {
            "type": "object",
            "properties": fields,
            "required": ["id", "dispatch"],
        }

    def _add_sent(self, name: str, address: str, tokens: dict[str, str], description: str, content: Any) -> None:
        self._channel(name, address, tokens, description)
        self._message(name, name, content, description)
        self._operation(f"publish.{name}", "send", name)

    def _channel(
        self, name: str, address: str | None, tokens: dict[str, str], description: str, *, stream: str | None = None
    ) -> None:
        channel: Raw = {"address": address, "description": description, "messages": {}}
        if tokens:
            channel["parameters"] = {token: {"description": meaning} for token, meaning in tokens.items()}
        if stream is not None:
            channel["x-stream"] = stream
        self.channels[name] = channel

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


def _queries(kind: type[Query[Any]]) -> list[type[Query[Any]]]:
    """The concrete query types, sorted by name."""
    found = [leaf for child in kind.__subclasses__() for leaf in (_queries(child) or [child])]
    return sorted((query for query in found if "[" not in query.__name__), key=query_name_of)


def _first_line(kind: type) -> str:
    return (kind.__doc__ or query_name_of(kind)).strip().partition("\n")[0]


def _simplify_discriminators(schema: Any) -> Any:
    """A discriminator in AsyncAPI is only the property name; in OpenAPI it also maps its values."""
    if isinstance(schema, dict):
        return {
            key: value["propertyName"] if key == "discriminator" else _simplify_discriminators(value)
            for key, value in schema.items()
        }
    return [_simplify_discriminators(value) for value in schema] if isinstance(schema, list) else schema


def _any_json(kind: type) -> Raw:
    """A msgspec schema hook: `object` stands for any JSON value."""
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError(kind)


_TELEMETRY = (TrainingProgress, TaggingProgress, Presence, Applied, LossBlock)
_QUERIES = _queries(Query)
_TYPES: list[Any] = [
    *get_args(AnyEvent),
    *(Commit, *COMMAND_FAMILIES, AnyCommandResult, ErrorReply, *_TELEMETRY, *_QUERIES),
    *dict.fromkeys(result_type_of(query) for query in _QUERIES),
]
