"""docs/openapi.json: the HTTP API in one file, for documentation viewers and client generators.

API Gateway imports function/contract/openapi.yaml, whose schemas are the files that the function validates by. Many
tools follow neither references to other files nor conditions in a schema. Here each schema is a component without
either, each request and reply has an example of tests/events, and what only API Gateway reads is left out. Schemas of
replies are open, so that a generated client takes fields that a later version adds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.contract.documents import BASE, OPENAPI, REGISTRY, references

ROOT: Final = Path(__file__).parents[2]
BUNDLE: Final = ROOT / "docs" / "openapi.json"
SAMPLES: Final = ROOT / "tests" / "events"
REPLIES: Final[dict[str, Any]] = json.loads((SAMPLES / "http-replies.json").read_text(encoding="utf-8"))
REQUESTS: Final = {
    "application/cloudevents+json": ("rename-structured", "rename-with-precondition"),
    "application/json": ("rename-binary", "rename-structured"),
}
_COMPONENTS: Final = "#/components/schemas/"
_LEFT_OUT: Final = {"$schema", "$id", "$defs", "$comment"}
# By ECMA-262, which JSON Schema asks for, `$` does not match before a final line feed; by Python's re it does.
_NO_LINE_FEED: Final = "(?!\\n)"

Schema = dict[str, Any]


def bundle() -> dict[str, Any]:
    """The whole document."""
    document: dict[str, Any] = _without_extensions(OPENAPI)
    document["openapi"] = "3.1.0"
    document["info"]["license"] = {"name": "MIT", "identifier": "MIT"}
    document["components"]["schemas"] = _components()
    for path in document["paths"].values():
        for operation in path.values():
            _add_examples(operation)
    return document


def to_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _without_extensions(content: Any) -> Any:
    if isinstance(content, dict):
        return {n: _without_extensions(value) for n, value in content.items() if not str(n).startswith("x-")}
    return [_without_extensions(value) for value in content] if isinstance(content, list) else content


def _add_examples(operation: dict[str, Any]) -> None:
    for media_type, names in REQUESTS.items():
        operation["requestBody"]["content"][media_type]["examples"] = {
            name: {"value": json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))} for name in names
        }
    for name, reply in REPLIES.items():
        content = operation["responses"][str(reply["status"])]["content"][reply["headers"]["content-type"]]
        content.setdefault("examples", {})[name] = {"value": reply["body"]}


def _components() -> dict[str, Schema]:
    resolver = REGISTRY.resolver(f"{BASE}openapi.yaml")
    requests = {reference.removeprefix(_COMPONENTS) for reference in _request_references()}
    components: dict[str, Schema] = {}
    for name, schema in OPENAPI["components"]["schemas"].items():
        flat = _flat(schema, resolver)
        named = _named(flat if name in requests else _open(flat), components)
        components[name] = {keyword: value for keyword, value in named.items() if keyword != "title"}
    return dict(sorted(components.items()))


def _request_references() -> Iterator[str]:
    for path in OPENAPI["paths"].values():
        for operation in path.values():
            yield from references(operation["requestBody"])


def _flat(schema: Any, resolver: Any) -> Any:
    """The schema with what it refers to, without conditions."""
    if isinstance(schema, list):
        return [_flat(value, resolver) for value in schema]
    if isinstance(schema, str):
        return schema.removesuffix(_NO_LINE_FEED)
    if not isinstance(schema, dict):
        return schema
    flat = {name: _flat(value, resolver) for name, value in schema.items() if name not in {"$ref", *_LEFT_OUT}}
    if "$ref" in schema:
        found = resolver.lookup(schema["$ref"])
        flat = _both(_flat(found.contents, found.resolver), flat)
    for part in flat.pop("allOf", ()):
        flat = _both(flat, part)
    if "unevaluatedProperties" in flat:
        flat["additionalProperties"] = flat.pop("unevaluatedProperties")
    return _each_choice(_decided(flat))


def _both(one: Schema, other: Schema) -> Schema:
    """A schema that asks for what both ask for, where the other one asks for more."""
    both = one | other
    properties, others = one.get("properties", {}), other.get("properties", {})
    if required := {*one.get("required", ()), *other.get("required", ())}:
        both["required"] = [name for name in (*properties, *others) if name in required]
        both["required"] = [*dict.fromkeys(both["required"])]
    if properties and others:
        shared = {name: _both(properties[name], others[name]) for name in properties.keys() & others.keys()}
        both["properties"] = {name: shared.get(name, value) for name, value in (properties | others).items()}
    return both


def _decided(schema: Schema) -> Schema:
    """With the branch that applies, where the condition is on a property of one value."""
    if "if" not in schema:
        return schema
    [(name, condition)] = schema["if"]["properties"].items()
    values = schema["properties"][name]["enum"]
    if len(values) > 1:
        return schema
    branch = "then" if values == [condition["const"]] else "else"
    rest = {keyword: value for keyword, value in schema.items() if keyword not in {"if", "then", "else"}}
    return _both(rest, schema[branch])


def _each_choice(schema: Schema) -> Schema:
    """A choice between properties of one object as a choice between objects, each with a title."""
    if not ("properties" in schema and all("properties" in choice for choice in schema.get("anyOf", [{}]))):
        return schema
    titled = {"title": schema["title"], "description": schema["description"]}
    rest = {keyword: value for keyword, value in schema.items() if keyword not in {"anyOf", *titled}}
    choices = []
    for choice in schema["anyOf"]:
        absent = [name for name, value in choice["properties"].items() if value is False]
        properties = {name: value for name, value in rest["properties"].items() if name not in absent}
        without = {"properties": {name: {} for name in absent}, "required": absent}
        whole = _both(rest | {"properties": properties}, {"required": choice["required"], "not": without})
        choices.append({"title": f"{schema['title']} with {' '.join(choice['required'])}"} | whole)
    return titled | {"anyOf": choices}


def _open(schema: Any) -> Any:
    if isinstance(schema, dict):
        closed = schema.get("additionalProperties") is False
        return {n: _open(value) for n, value in schema.items() if not (closed and n == "additionalProperties")}
    return schema


def _named(schema: Any, components: dict[str, Schema]) -> Any:
    """With a reference to a component in place of each schema within that has a title."""
    if isinstance(schema, list):
        return [_reference(value, components) for value in schema]
    if isinstance(schema, dict):
        return {name: _reference(value, components) for name, value in schema.items()}
    return schema


def _reference(schema: Any, components: dict[str, Schema]) -> Any:
    named = _named(schema, components)
    if not (isinstance(schema, dict) and isinstance(schema.get("title"), str)):
        return named
    name = "".join(word[0].upper() + word[1:] for word in re.split("[ _]", named.pop("title")))
    assert components.setdefault(name, named) == named, f"two schemas are called {name}"
    return {"$ref": f"{_COMPONENTS}{name}"}


if __name__ == "__main__":
    BUNDLE.write_text(to_json(bundle()), encoding="utf-8")
