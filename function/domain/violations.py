"""Converts jsonschema's errors to violations."""

import json
from collections.abc import Iterator
from typing import Any, Final, cast

from jsonschema.exceptions import ValidationError

from function.domain.failures import Violation
from function.domain.strict_json import replace_lone_surrogates

MAX_PATH: Final = 200
_MESSAGES: Final = {
    "minLength": "must not be empty",
    "minimum": "must be an integer of 32 bits",
    "maximum": "must be an integer of 32 bits",
}
_WORD: Final = "must hold letters, digits, _ and - only"
# By the path of the value; extension attributes have no entry.
_PATTERN_MESSAGES: Final = {
    "/source": "must be a URI reference (RFC 3986)",
    "/time": "must be a time by RFC 3339, as in 2026-11-24T02:10:52Z",
    "/dataschema": "must be a URI (RFC 3986)",
    "/datacontenttype": "must be application/json",
    "/data/vpc_endpoint_service_id": _WORD,
    "/data/endpoint_service_name": _WORD,
    "/data/project_id": _WORD,
    "/data/region": "must hold lower-case letters, digits and - only",
    "/data/expected_name": _WORD,
}


def explain(error: ValidationError) -> Iterator[Violation]:
    """One or more violations. Unlike jsonschema's, their messages do not repeat the event."""
    path = "".join(f"/{escape_pointer(step)}" for step in error.absolute_path)
    if error.validator == "anyOf" and "propertyNames" not in error.relative_schema_path:
        both = "data" in cast("dict[str, Any]", error.instance)
        yield Violation("/data_base64", "must not come with data") if both else Violation("/data", "is missing")
        return
    members, message = _members(error)
    for name in members:
        yield Violation(f"{path}/{escape_pointer(name)}", message)
    if not message:
        yield Violation(path, _message(error, path))


def _members(error: ValidationError) -> tuple[list[str], str]:
    """The members that an error is about, and the message for them; no message if it is not about members."""
    if "propertyNames" in error.relative_schema_path:
        return [str(error.instance)], "must be a CloudEvents attribute name: up to 32 lower-case letters and digits"
    if error.validator == "required":
        # jsonschema reports each missing member separately, and names it only in the message.
        return [error.message.removesuffix(" is a required property").strip("'")], "is missing"
    if error.validator == "additionalProperties":
        known = cast("dict[str, Any]", error.schema)["properties"]
        return [name for name in cast("dict[str, Any]", error.instance) if name not in known], "is not a known field"
    return [], ""


def _message(error: ValidationError, path: str) -> str:
    rule, limit = str(error.validator), error.validator_value
    match rule:
        case "type":
            return f"must be of type {limit if isinstance(limit, str) else ' or '.join(cast('list[str]', limit))}"
        case "const":
            return f"must be {json.dumps(limit)}"
        case "maxLength":
            return f"must have at most {limit} characters"
        case "pattern":
            return _PATTERN_MESSAGES.get(path, "must hold no control characters")
        case _:
            return _MESSAGES.get(rule, f"breaks the rule {rule}: {limit}")


def escape_pointer(step: object) -> str:
    """A reference token of a JSON Pointer, truncated."""
    return replace_lone_surrogates(str(step)[:MAX_PATH]).replace("~", "~0").replace("/", "~1")
