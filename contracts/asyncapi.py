"""The bus as an AsyncAPI 3 document made from the types: what may be sent where, and who answers. Pure.

https://www.asyncapi.com/docs/reference/specification/v3.0.0. It is written from where Loratory stands: it *receives*
commands and questions, and *sends* facts, hints, telemetry and news. HTTP and WebSocket are in the OpenAPI document.
"""

from typing import Any, get_args

import msgspec

from contracts import subjects
from contracts.commands import FAMILIES, Command, Receipt
from contracts.errors import Trouble
from contracts.events import FACTS_OF, AnyFact, Commit
from contracts.events.evolution import Raw
from contracts.queries import Query, answer_of, name_of
from contracts.schemas import as_json
from contracts.subjects import Kind
from contracts.telemetry import Applied, LossBlock, Presence, TaggingProgress, TrainingProgress

PARTS = "#/components/schemas/{name}"
OWNER = "catalog"
"""Who answers all commands and questions."""
JSON = "application/json"

STREAMS = {
    subjects.FACTS: "The event log. Kept for ever; one message is one commit, stored if the thing has not moved on.",
    subjects.QUEUE: "Hints that work waits, spent by workers. Nothing in it is not in the log.",
    subjects.METRICS: "Loss curves; forgotten after 90 days.",
}


def asyncapi(version: str) -> Raw:
    """`version` is Loratory's own. Raises nothing; every reference in it resolves (a test walks them)."""
    document = _Document()
    for kind in get_args(Kind):
        document.facts(kind)
    for command, family in FAMILIES.items():
        document.command(command, family)
    for query in _QUERIES:
        document.question(query)
    document.telemetry()
    whole = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Loratory: the bus",
            "version": version,
            "description": "Subjects and messages of Loratory's services on NATS. They are for its own services and "
            "for reading along; whoever changes something asks the HTTP API.",
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
    return as_json(whole)


class _Document:
    """The parts, as they are put together."""

    def __init__(self) -> None:
        self.channels: dict[str, Raw] = {}
        self.operations: dict[str, Raw] = {}
        self.messages: dict[str, Raw] = {}
        # All in one go: two types of one name get two names only so.
        refs, parts = msgspec.json.schema_components(_TYPES, schema_hook=_anything, ref_template=PARTS)
        self.schemas: dict[str, Raw] = _named_only(parts)
        self._schemas = dict(zip(_TYPES, refs, strict=True))
        self._channel("answers", None, {}, "Where the answer to a command or question goes: the asker's own inbox.")
        self._message("answers", "refused", Trouble, "The answer of who refuses, with header Nats-Service-Error-Code.")

    def facts(self, kind: Kind) -> None:
        name = f"facts.{kind}"
        address = subjects.fact(kind, "{id}")
        self._channel(name, address, {"id": f"The {kind}'s id."}, STREAMS[subjects.FACTS], stream=subjects.FACTS)
        union: Any = FACTS_OF[kind]
        facts = [self._schemas[fact] for fact in get_args(union) or (union,)]
        narrowed = {"type": "object", "properties": {"facts": {"type": "array", "items": {"anyOf": facts}}}}
        self._message(name, f"commit.{kind}", None, f"What one wish changed in one {kind}.")
        self.messages[f"commit.{kind}"]["payload"] = {"allOf": [self._schemas[Commit], narrowed]}
        headers = {name: {"type": "string"} for name in ("Nats-Msg-Id", "Nats-Expected-Last-Subject-Sequence")}
        self.messages[f"commit.{kind}"]["headers"] = {"type": "object", "properties": headers}
        self._operation(f"append.{kind}", "send", name)

    def command(self, command: type[Command], family: str) -> None:
        name = f"command.{family}"
        self._channel(name, subjects.command(OWNER, family), {}, f"Wishes about a {family}.")
        self._message(name, name, command, f"A wish about a {family}, and where it comes from.")
        self._message("answers", "receipt", Receipt, "A wish was granted, now or when it was first sent.")
        self._operation(f"tell.{family}", "receive", name, reply="receipt")

    def question(self, query: type[Query[Any]]) -> None:
        name, word = f"query.{name_of(query)}", name_of(query)
        self._channel(name, subjects.query(OWNER, word), {}, _first_line(query))
        self._message(name, name, query, _first_line(query))
        self._message("answers", f"answer.{word}", answer_of(query), f"The answer to {word}.")
        self._operation(f"ask.{word}", "receive", name, reply=f"answer.{word}")

    def telemetry(self) -> None:
        told = "Told, not kept: the last one counts."
        for work, progress in (("train", TrainingProgress), ("tag", TaggingProgress)):
            self._told(f"progress.{work}", f"prog.{work}.{{id}}", {"id": "Of the work."}, told, progress)
        worker = {"service": "trainer or tagger.", "worker": "The worker's id."}
        self._told("presence", "wrk.{service}.{worker}", worker, "A worker lives.", Presence)
        self._told("news", subjects.NEWS, {}, "How far the catalog has come.", Applied)
        self._told("losses", subjects.metrics("{id}"), {"id": "The job's id."}, STREAMS[subjects.METRICS], LossBlock)
        self.channels["losses"]["x-stream"] = subjects.METRICS
        self._told("erased", subjects.ERASED, {}, "Pictures were erased: ask which, and drop what you keep.", None)
        nudged = {"class": "train or tag.", "id": "Of the work."}
        self._told("nudge", "ctl.{class}.{id}", nudged, "Whoever holds this work: look at the log now.", None)
        queued = {"class": "train or tag.", "priority": "high, normal or low.", "id": "Of the work."}
        self._told("hint", "jobs.{class}.{priority}.{id}", queued, STREAMS[subjects.QUEUE], None)
        self.channels["hint"]["x-stream"] = subjects.QUEUE
        fields = {"id": {"type": "string"}, "dispatch": {"type": "integer", "description": "Sequence of job.queued."}}
        self.messages["hint"]["payload"] = {"type": "object", "properties": fields, "required": ["id", "dispatch"]}

    def _told(self, name: str, address: str, tokens: dict[str, str], said: str, content: Any) -> None:
        self._channel(name, address, tokens, said)
        self._message(name, name, content, said)
        self._operation(f"tell.{name}", "send", name)

    def _channel(
        self, name: str, address: str | None, tokens: dict[str, str], said: str, *, stream: str | None = None
    ) -> None:
        channel: Raw = {"address": address, "description": said, "messages": {}}
        if tokens:
            channel["parameters"] = {token: {"description": words} for token, words in tokens.items()}
        if stream is not None:
            channel["x-stream"] = stream
        self.channels[name] = channel

    def _message(self, channel: str, name: str, content: Any, said: str) -> None:
        """Without content: JSON null, which says only that something is."""
        payload = {"type": "null"} if content is None else self._schemas[content]
        self.messages[name] = {"name": name, "summary": said, "contentType": JSON, "payload": payload}
        self.channels[channel]["messages"][name] = {"$ref": f"#/components/messages/{name}"}

    def _operation(self, name: str, action: str, channel: str, *, reply: str | None = None) -> None:
        operation: Raw = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}
        if reply is not None:
            said = [{"$ref": f"#/channels/answers/messages/{message}"} for message in (reply, "refused")]
            operation["reply"] = {"channel": {"$ref": "#/channels/answers"}, "messages": said}
        self.operations[name] = operation


def _queries(kind: type[Query[Any]]) -> list[type[Query[Any]]]:
    """Those that can be asked, by name; what they share is none."""
    found = [leaf for child in kind.__subclasses__() for leaf in (_queries(child) or [child])]
    return sorted((query for query in found if "[" not in query.__name__), key=name_of)


def _first_line(kind: type) -> str:
    return (kind.__doc__ or name_of(kind)).strip().partition("\n")[0]


def _named_only(schema: Any) -> Any:
    """AsyncAPI names only the property that tells members of a union apart, where OpenAPI also maps its values."""
    if isinstance(schema, dict):
        return {
            key: value["propertyName"] if key == "discriminator" else _named_only(value)
            for key, value in schema.items()
        }
    return [_named_only(value) for value in schema] if isinstance(schema, list) else schema


def _anything(kind: type) -> Raw:
    """`object` is any JSON."""
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError(kind)


_TOLD = (TrainingProgress, TaggingProgress, Presence, Applied, LossBlock)
_QUERIES = _queries(Query)
_TYPES: list[Any] = [
    *get_args(AnyFact),
    *(Commit, *FAMILIES, Receipt, Trouble, *_TOLD, *_QUERIES),
    *dict.fromkeys(answer_of(query) for query in _QUERIES),
]
