"""Whether a schema may take the place of another one without a new version.

Compares two JSON Schemas keyword by keyword: whatever a writer may send by its schema, a reader must take by its own.
It errs on the side of refusal: a keyword that it does not know must be the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from jsonschema import Draft202012Validator

Schema = dict[str, Any] | bool

_SAY_NOTHING: Final = {"$schema", "$id", "$comment", "$defs", "title", "description", "examples", "format"}
_UPPER: Final = {"maximum", "maxLength", "maxProperties", "maxItems"}
_LOWER: Final = {"minimum", "minLength", "minProperties", "minItems"}
_ALL_TYPES: Final = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})
_CLOSED: Final = ("additionalProperties", "unevaluatedProperties")


def refusals(reader: dict[str, Any], writer: dict[str, Any], *, consumer: bool = False) -> list[str]:
    """Where the reader may refuse what the writer may send; empty where it never does.

    Args:
        reader, writer: whole schemas, with their ``$defs``.
        consumer: the reader counts on every field that its schema knows, and ignores others.
    """
    return list(_Comparison(reader, writer, consumer=consumer).of(reader, writer, ""))


class _Comparison:
    def __init__(self, reader: dict[str, Any], writer: dict[str, Any], *, consumer: bool) -> None:
        self._roots = (reader, writer)
        self._consumer = consumer

    def of(self, reader: Schema, writer: Schema, place: str) -> Iterator[str]:
        if reader is True or writer is False:
            return
        if isinstance(reader, bool):
            yield f"{place}: is refused"
            return
        sent = _whole({} if isinstance(writer, bool) else writer, self._roots[1])
        taken = _whole(reader, self._roots[0])
        yield from self._values(taken, sent, place)
        yield from self._objects(taken, sent, place)
        yield from self._branches(taken, sent, place)

    def _values(self, taken: dict[str, Any], sent: dict[str, Any], place: str) -> Iterator[str]:
        if not _types(sent) <= _types(taken):
            yield f"{place}: type {sorted(_types(sent) - _types(taken))}"
        allowed = _enumerated(taken)
        if allowed is not None and not _is_among(_enumerated(sent), allowed):
            yield f"{place}: values {_enumerated(sent)}"
        for keyword in taken.keys() & _UPPER:
            if keyword not in sent or sent[keyword] > taken[keyword]:
                yield f"{place}: {keyword} {sent.get(keyword)}"
        for keyword in taken.keys() & _LOWER:
            if keyword not in sent or sent[keyword] < taken[keyword]:
                yield f"{place}: {keyword} {sent.get(keyword)}"

    def _objects(self, taken: dict[str, Any], sent: dict[str, Any], place: str) -> Iterator[str]:
        for name in set(taken.get("required", ())) - set(sent.get("required", ())):
            yield f"{place}/{name}: may be missing"
        known, sent_properties = taken.get("properties", {}), sent.get("properties", {})
        others_taken, others_sent = _others(taken), _others(sent)
        for name in known.keys() | sent_properties.keys():
            if self._consumer and name not in sent_properties:
                yield f"{place}/{name}: is gone"
            if (name in known or not self._consumer) and _may_have(sent, name):
                yield from self.of(
                    known.get(name, others_taken), sent_properties.get(name, others_sent), f"{place}/{name}"
                )
        yield from self.of(others_taken, others_sent, f"{place}/*")

    def _branches(self, taken: dict[str, Any], sent: dict[str, Any], place: str) -> Iterator[str]:
        for keyword in taken.keys() & {"then", "else", "items", "propertyNames"}:
            yield from self.of(taken[keyword], sent.get(keyword, True), f"{place}({keyword})")
        compared = _SAY_NOTHING | _UPPER | _LOWER | {*_CLOSED, "type", "enum", "const", "required", "properties"}
        choice = taken.get("anyOf")
        if choice != sent.get("anyOf") and not any(not list(self.of(one, sent, place)) for one in choice or [True]):
            yield f"{place}: anyOf {sent.get('anyOf')}"
        for keyword in taken.keys() - compared - {"then", "else", "items", "propertyNames", "anyOf"}:
            if taken[keyword] != sent.get(keyword):
                yield f"{place}: {keyword} {sent.get(keyword)}"
        # `then` and `else` mean something else where the condition does.
        if "if" in sent and sent["if"] != taken.get("if"):
            yield f"{place}: if {sent['if']}"


def _whole(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The schema with what it refers to."""
    if "$ref" not in schema:
        return schema
    target: Any = root
    for step in schema["$ref"].removeprefix("#/").split("/"):
        target = target[step]
    return _both(_whole(target, root), {name: value for name, value in schema.items() if name != "$ref"})


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A schema that asks for what both ask for."""
    both = one | other
    if "required" in one:
        both["required"] = [*one["required"], *other.get("required", ())]
    if "properties" in one and "properties" in other:
        shared = {
            n: _both(one["properties"][n], other["properties"][n])
            for n in one["properties"] & other["properties"].keys()
        }
        both["properties"] = one["properties"] | other["properties"] | shared
    if "type" in one and "type" in other:
        both["type"] = sorted(_types(one) & _types(other))
    return both


def _types(schema: dict[str, Any]) -> frozenset[str]:
    types = schema.get("type", sorted(_ALL_TYPES))
    found = frozenset([types] if isinstance(types, str) else types)
    return found | {"integer"} if "number" in found else found


def _enumerated(schema: dict[str, Any]) -> list[Any] | None:
    """The only values allowed, None for any."""
    values: list[Any] | None = [schema["const"]] if "const" in schema else schema.get("enum")
    return values


def _is_among(values: list[Any] | None, allowed: list[Any]) -> bool:
    return values is not None and all(value in allowed for value in values)


def _may_have(schema: dict[str, Any], name: str) -> bool:
    return Draft202012Validator(schema.get("propertyNames", True)).is_valid(name)


def _others(schema: dict[str, Any]) -> Schema:
    """What holds for fields that the schema does not name."""
    others: Schema = next((schema[keyword] for keyword in _CLOSED if keyword in schema), True)
    return others
