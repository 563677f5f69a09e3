"""docs/openapi.json against what it is made of."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from function.domain.outcomes import RENAMED
from tests.contract.bundle import BUNDLE, bundle, to_json
from tests.contract.documents import OPENAPI, members, references
from tests.contract.documents import validator as source_validator
from tests.contract.test_contract import EMITTED, INVALID, VALID, VALID_DATA, sample
from tests.fakes.events import rename_data, rename_event

DOCUMENT: Final[dict[str, Any]] = json.loads(BUNDLE.read_text(encoding="utf-8"))
COMPONENTS: Final[dict[str, Any]] = DOCUMENT["components"]["schemas"]
OPERATION: Final[dict[str, Any]] = DOCUMENT["paths"]["/rename-events"]["post"]


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema | {"components": DOCUMENT["components"]})


def component(name: str) -> Draft202012Validator:
    return validator({"$ref": f"#/components/schemas/{name}"})


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    for media_type, content in OPERATION["requestBody"]["content"].items():
        yield f"request {media_type}", content
    for status, response in OPERATION["responses"].items():
        for media_type, content in response["content"].items():
            yield f"{status} {media_type}", content


CONTENTS: Final = dict(contents())


def test_published_openapi_is_up_to_date() -> None:
    """If this fails: make contract"""
    assert BUNDLE.read_text(encoding="utf-8") == to_json(bundle())


# ---- What tools accept


def test_published_openapi_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(DOCUMENT)] == []
    for schema in COMPONENTS.values():
        Draft202012Validator.check_schema(schema)


def test_published_openapi_has_only_keywords_that_common_tools_read() -> None:
    found = {name for _, name, _ in members(DOCUMENT)}

    assert found.isdisjoint(
        {"$id", "$schema", "$defs", "$comment", "allOf", "if", "then", "else", "unevaluatedProperties"}
    )
    assert not [name for name in found if name.startswith("x-a")]
    assert "(?!" not in BUNDLE.read_text(encoding="utf-8")


def test_published_openapi_refers_to_each_component_and_to_nothing_else() -> None:
    assert set(references(DOCUMENT)) == {f"#/components/schemas/{name}" for name in COMPONENTS}


# ---- The same as the sources


def test_published_operation_is_that_of_openapi_yaml() -> None:
    source = json.loads(json.dumps(OPENAPI["paths"]["/rename-events"]["post"]))
    del source["x-amazon-apigateway-integration"]
    copy = json.loads(json.dumps(OPERATION))
    for content in (copy["requestBody"], *copy["responses"].values()):
        for media_type in content["content"].values():
            del media_type["examples"]

    assert copy == source


def base64_event(**members: Any) -> dict[str, Any]:
    event = rename_event(data_base64=base64.b64encode(json.dumps(rename_data()).encode()).decode()) | members
    del event["data"]
    return event


REQUESTS: Final[dict[str, Any]] = {
    **{
        name: json.loads(sample(name))
        for name in (*VALID, *VALID_DATA, *(INVALID.keys() - {"invalid-duplicate-key.json"}))
    },
    "base64": base64_event(),
    "base64 of another type": base64_event(data_base64=1),
    "base64 and an extension": base64_event(team="shop"),
    "data and base64": base64_event() | rename_event(),
    "data of another type and base64": base64_event() | rename_event(data="x"),
    "neither": {name: value for name, value in rename_event().items() if name != "data"},
    "extensions": rename_event(team="shop", priority=1, urgent=True),
    "an extension of another type": rename_event(priority=1.5),
    "an extension out of range": rename_event(priority=2**31),
    "an extension by another name": rename_event(Team="shop"),
    "an extension with a long name": rename_event(**{"x" * 33: "shop"}),
    "too many attributes": rename_event(**{f"x{number}": 1 for number in range(33)}),
    "any trace": rename_event(traceparent=[1]),
    "every field": rename_event(data=rename_data(project_id="p", region="cn-north-4", expected_name="billing")),
    "an unknown field": rename_event(data=rename_data(name="orders")),
    "a region in capitals": rename_event(data=rename_data(region="CN-NORTH-4")),
    "a long name": rename_event(data=rename_data(endpoint_service_name="x" * 17)),
    "no object": [],
    **{f"no {name}": {n: v for n, v in rename_event().items() if n != name} for name in rename_event()},
}


@pytest.mark.parametrize("name", sorted(REQUESTS))
@pytest.mark.parametrize("media_type", OPERATION["requestBody"]["content"])
def test_request_is_valid_by_the_published_schema_exactly_if_by_the_source(name: str, media_type: str) -> None:
    schema = OPENAPI["paths"]["/rename-events"]["post"]["requestBody"]["content"][media_type]["schema"]

    published = validator(OPERATION["requestBody"]["content"][media_type]["schema"])

    assert published.is_valid(REQUESTS[name]) == source_validator("openapi.yaml", schema).is_valid(REQUESTS[name])


def test_some_of_these_requests_are_valid_and_some_are_not() -> None:
    assert {component("RenameEventOrData").is_valid(request) for request in REQUESTS.values()} == {True, False}


@pytest.mark.parametrize("name", sorted(EMITTED))
def test_outcome_is_valid_by_its_published_component_and_no_other(name: str) -> None:
    outcome = json.loads(EMITTED[name]().to_json())
    success = outcome["type"] == RENAMED

    assert component("Renamed").is_valid(outcome) == success
    assert component("RenameFailed").is_valid(outcome) != success


@pytest.mark.parametrize("name", ["Renamed", "RenameFailed"])
def test_published_component_requires_each_field_of_an_outcome(name: str) -> None:
    outcome = json.loads(EMITTED["success" if name == "Renamed" else "unknown service"]().to_json())
    optional = {"traceparent"} | ({"subject"} if name == "RenameFailed" else set())

    lacking = [{n: v for n, v in outcome.items() if n != attribute} for attribute in outcome.keys() - optional]
    data = outcome["data"]
    lacking += [
        outcome | {"data": {n: v for n, v in data.items() if n != field}} for field in data.keys() - {"follows"}
    ]

    assert not [copy for copy in lacking if component(name).is_valid(copy)]


# ---- For readers


@pytest.mark.parametrize("name", CONTENTS)
def test_published_examples_of_a_body_are_valid(name: str) -> None:
    examples = [example["value"] for example in CONTENTS[name]["examples"].values()]

    assert examples
    for example in examples:
        validator(CONTENTS[name]["schema"]).validate(example)


@pytest.mark.parametrize("name", ["renamed", "queued", "another-type", "no-answer"])
def test_published_schema_of_a_reply_takes_fields_of_later_versions(name: str) -> None:
    [(example, schema)] = [
        (content["examples"][name]["value"], content["schema"])
        for content in CONTENTS.values()
        if name in content["examples"]
    ]

    validator(schema).validate(example | {"later": 1})


@pytest.mark.parametrize("name", COMPONENTS)
def test_published_component_and_its_fields_are_described_in_sentences(name: str) -> None:
    schema = COMPONENTS[name]
    described = [schema, *schema.get("properties", {}).values()]
    if name.startswith("RenameEventWith"):
        described.remove(schema)  # RenameEvent has it
    descriptions = [str(part.get("description", "")) for part in described if "$ref" not in part]

    assert [text for text in descriptions if not text[:1].isupper() or text.startswith("Must ")] == []
