"""The contract's documents, and the schemas in them as their readers find them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

import function

CONTRACT: Final = Path(function.__file__).parent / "contract"
# Relative references of the documents are resolved against it.
BASE: Final = "https://contract.invalid/"


def load(name: str) -> dict[str, Any]:
    text = (CONTRACT / name).read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text)
    return content


OPENAPI: Final = load("openapi.yaml")
ASYNCAPI: Final = load("asyncapi.yaml")
DOCUMENTS: Final = {"openapi.yaml": OPENAPI, "asyncapi.yaml": ASYNCAPI}
RENAME_EVENT: Final = Draft202012Validator(load("rename-event.schema.json"))
OUTCOME: Final = Draft202012Validator(load("outcome.schema.json"))
REGISTRY: Final[Registry[Any]] = Registry().with_resources(
    (f"{BASE}{path.name}", DRAFT202012.create_resource(load(path.name))) for path in CONTRACT.iterdir()
)


def validator(document: str, schema: dict[str, Any]) -> Draft202012Validator:
    """For a schema that stands in the document."""
    # A reference within the document is one within it from anywhere.
    located = json.loads(re.sub(r'("\$ref": ")', rf"\1{BASE}", re.sub('"#/', f'"{document}#/', json.dumps(schema))))
    return Draft202012Validator(located, registry=REGISTRY)


def members(content: object, place: str = "") -> Iterator[tuple[str, str, Any]]:
    """Each member of each object within: the object's place, the member's name and its value."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield place, name, value
            yield from members(value, f"{place}/{name}")
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from members(value, f"{place}/{number}")


def references(content: object) -> Iterator[str]:
    return (value for _, name, value in members(content) if name == "$ref")
