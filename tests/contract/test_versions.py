"""A released version of a schema is kept: a change that would break a producer or consumer needs a new one.

``released/`` holds the schemas as they were released, one file a version. Producers hold to the rename event, so the
function must go on taking whatever was right. Consumers hold to the outcome, so it must stay what they were promised;
they ignore fields that they do not know, as docs/events.md asks them to.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from tests.contract.compatibility import refusals
from tests.contract.documents import load
from tests.contract.test_contract import SCHEMAS

RELEASED: Final = Path(__file__).parent / "released"

Content = dict[str, Any]
Change = Callable[[Content], object]


def released(name: str) -> Content:
    content: Content = json.loads((RELEASED / name).read_text(encoding="utf-8"))
    return content


def version(content: Content) -> str:
    return str(content["$id"]).rpartition(":")[2]


def current(name: str) -> Content:
    """The released schema of the version that the schema says it has."""
    return released(name.replace(".schema.json", f".{version(load(name))}.schema.json"))


def broken_for_producers(now: Content) -> list[str]:
    return refusals(reader=now, writer=current("rename-event.schema.json"))


def broken_for_consumers(now: Content) -> list[str]:
    return refusals(reader=current("outcome.schema.json"), writer=now, consumer=True)


# ---- The schemas as they are


def test_schema_of_rename_events_breaks_no_producer_of_the_released_one() -> None:
    assert broken_for_producers(load("rename-event.schema.json")) == []


def test_schema_of_outcomes_breaks_no_consumer_of_the_released_one() -> None:
    assert broken_for_consumers(load("outcome.schema.json")) == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_has_the_version_of_its_event_types(name: str) -> None:
    types = load(name)["properties"]["type"]
    versions = {event_type.rpartition(".")[2] for event_type in types.get("enum", [types.get("const")])}

    assert versions == {version(load(name))}
    assert versions == {version(current(name))}


def test_released_schema_has_the_version_of_its_file_name() -> None:
    for path in RELEASED.iterdir():
        kind, number = re.fullmatch(r"([a-z-]+)\.(v[0-9]+)\.schema\.json", path.name).groups()  # type: ignore[union-attr]
        assert released(path.name)["$id"] == f"urn:vpcep-rename:schema:{kind}:{number}"
        Draft202012Validator.check_schema(released(path.name))


# ---- Changes


def changed(name: str, change: Change) -> Content:
    content = copy.deepcopy(current(name))
    change(content)
    return content


def part(*path: str) -> Callable[[Content], Content]:
    """Leads from a schema to the part of it at a path."""

    def found(content: Content) -> Content:
        for name in path:
            content = content[name]
        return content

    return found


root, data, common, failed = part(), part("$defs", "data"), part("$defs", "common"), part("$defs", "rename_failed")
error = part("$defs", "rename_failed", "properties", "error")


def field(of: Callable[[Content], Content], name: str, **keywords: Any) -> Change:
    return lambda content: of(content)["properties"][name].update(keywords)


BREAKS_PRODUCERS: Final[dict[str, Change]] = {
    "an attribute is required": lambda s: s["required"].append("subject"),
    "a field is required": lambda s: data(s)["required"].append("region"),
    "a new field is required": lambda s: (
        data(s)["properties"].update(ticket={"type": "string"}),
        data(s)["required"].append("ticket"),
    ),
    "a field is removed": lambda s: data(s)["properties"].pop("expected_name"),
    "a field is renamed": lambda s: data(s)["properties"].update(zone=data(s)["properties"].pop("region")),
    "a field is retyped": field(data, "endpoint_service_name", type="integer"),
    "a type is narrowed": lambda s: s["additionalProperties"].update(type=["string", "boolean"]),
    "a pattern is changed": field(data, "region", pattern="^[a-z]*$(?!\\n)"),
    "a pattern is new": field(root, "specversion", pattern="^2"),
    "a maximum is lower": field(data, "endpoint_service_name", maxLength=15),
    "a maximum is new": lambda s: data(s).update(maxProperties=4),
    "a minimum is higher": field(data, "vpc_endpoint_service_id", minLength=2),
    "a minimum is new": field(data, "endpoint_service_name", minLength=1),
    "a constant is changed": field(root, "type", const="vpcep.endpoint_service.rename_requested.v2"),
    "values are enumerated": field(data, "region", enum=["cn-north-4"]),
    "fewer attributes": lambda s: s.update(maxProperties=10),
    "extensions are refused": lambda s: s.update(additionalProperties=False),
    "an extension is taken for another type": lambda s: s["properties"].update(team={"type": "integer"}),
    "names of attributes are narrowed": lambda s: s["propertyNames"].update(pattern="^[a-z]{1,20}$(?!\\n)"),
    "another reference": lambda s: (
        s["properties"].update(data={"$ref": "#/$defs/other"})
        or s["$defs"].update(other=data(s) | {"required": [*data(s)["required"], "region"]})
    ),
    "a condition is new": lambda s: s.update({"if": {"required": ["subject"]}, "then": {"required": ["dataschema"]}}),
    "one choice is gone": lambda s: s["anyOf"].pop(),
    "each choice asks for more": lambda s: [choice["required"].append("time") for choice in s["anyOf"]],
    "a choice is new": lambda s: data(s).update(anyOf=[{"required": ["region"]}, {"required": ["project_id"]}]),
    "what is dropped is refused": field(root, "traceparent", pattern="^00-"),
    "a keyword that the comparison does not know": lambda s: data(s).update(
        dependentRequired={"region": ["project_id"]}
    ),
}
HARMLESS_FOR_PRODUCERS: Final[dict[str, Change]] = {
    "nothing": lambda _: None,
    "a choice that is sent already": lambda s: data(s).update(
        anyOf=[{"required": ["region"]}, {"required": ["endpoint_service_name"]}]
    ),
    "a field is refused that has never been a name": lambda s: s["properties"].update(Team=False),
    "a new optional field": lambda s: data(s)["properties"].update(ticket={"type": "string"}),
    "an optional requirement is dropped": lambda s: data(s)["required"].remove("endpoint_service_name"),
    "a maximum is higher": field(data, "endpoint_service_name", maxLength=64),
    "a maximum is dropped": lambda s: data(s)["properties"]["region"].pop("maxLength"),
    "a minimum is lower": field(data, "project_id", minLength=0),
    "a type is widened": field(data, "expected_name", type=["string", "null"]),
    "a constant becomes one of several": lambda s: s["properties"].update(
        type={"enum": ["vpcep.endpoint_service.rename_requested.v1", "another"]}
    ),
    "another description": field(data, "region", description="where"),
    "more attributes": lambda s: s.update(maxProperties=64),
}
BREAKS_CONSUMERS: Final[dict[str, Change]] = {
    "a field may be missing": lambda s: common(s)["required"].remove("attempts"),
    "a required field is removed": lambda s: (
        common(s)["required"].remove("attempts"),
        common(s)["properties"].pop("attempts"),
    ),
    "an attribute may be missing": lambda s: s["required"].remove("time"),
    "the subject of a success may be missing": lambda s: s["then"].pop("required"),
    "the code may be missing": lambda s: error(s)["required"].remove("code"),
    "a type is new": lambda s: s["properties"]["type"]["enum"].append("vpcep.endpoint_service.rename_skipped.v1"),
    "a kind is new": lambda s: error(s)["properties"]["kind"]["enum"].append("paused"),
    "a kind is any": lambda s: error(s)["properties"].update(kind={"type": "string"}),
    "a trigger is new": lambda s: common(s)["properties"]["trigger"]["enum"].append("events"),
    "a field is retyped": field(common, "attempts", type="string"),
    "a field may be null": field(common, "region", type=["string", "null"]),
    "a success has no id": lambda s: s["$defs"]["renamed"]["properties"].pop("vpc_endpoint_service_id"),
    "an optional field is gone": lambda s: failed(s)["properties"].pop("superseded_by"),
    "an optional field is retyped": field(common, "follows", type="integer"),
    "a status has no maximum": lambda s: error(s)["properties"]["http_status"].pop("maximum"),
    "a status has a lower minimum": field(error, "http_status", minimum=0),
    "an id may have another form": field(root, "id", pattern="^[0-9a-f-]*$(?!\\n)"),
    "a time may have another form": lambda s: s["properties"]["time"].pop("pattern"),
    "another source": field(root, "source", const="vpcep"),
    "violations are strings": lambda s: error(s)["properties"]["violations"].update(items={"type": "string"}),
    "a violation may have no path": lambda s: error(s)["properties"]["violations"]["items"]["required"].remove("path"),
    "failures and successes change places": lambda s: s.update({"then": s["else"], "else": s["then"]}),
    "another condition": lambda s: s.update({"if": {"required": ["subject"]}}),
    "outcomes are open": lambda s: s.update(additionalProperties={"type": "string"}),
}
HARMLESS_FOR_CONSUMERS: Final[dict[str, Change]] = {
    "nothing": lambda _: None,
    "a new field": lambda s: common(s)["properties"].update(duration_ms={"type": "integer"}),
    "a new field that is always there": lambda s: (
        common(s)["properties"].update(duration_ms={"type": "integer"}),
        common(s)["required"].append("duration_ms"),
    ),
    "a new attribute": lambda s: s["properties"].update(tracestate={"type": "string"}),
    "an optional field is always there": lambda s: s["required"].append("subject"),
    "a kind is gone": lambda s: error(s)["properties"]["kind"]["enum"].remove("internal"),
    "a type is narrowed": field(common, "project_id", type="string"),
    "a minimum is higher": field(common, "attempts", minimum=1),
    "another description": field(common, "attempts", description="calls"),
}


@pytest.mark.parametrize("change", BREAKS_PRODUCERS.values(), ids=BREAKS_PRODUCERS)
def test_change_that_breaks_producers_is_found(change: Change) -> None:
    assert broken_for_producers(changed("rename-event.schema.json", change))


@pytest.mark.parametrize("change", HARMLESS_FOR_PRODUCERS.values(), ids=HARMLESS_FOR_PRODUCERS)
def test_change_that_breaks_no_producer_is_allowed(change: Change) -> None:
    assert broken_for_producers(changed("rename-event.schema.json", change)) == []


@pytest.mark.parametrize("change", BREAKS_CONSUMERS.values(), ids=BREAKS_CONSUMERS)
def test_change_that_breaks_consumers_is_found(change: Change) -> None:
    assert broken_for_consumers(changed("outcome.schema.json", change))


@pytest.mark.parametrize("change", HARMLESS_FOR_CONSUMERS.values(), ids=HARMLESS_FOR_CONSUMERS)
def test_change_that_breaks_no_consumer_is_allowed(change: Change) -> None:
    assert broken_for_consumers(changed("outcome.schema.json", change)) == []
