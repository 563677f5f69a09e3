"""I-JSON (RFC 7493): JSON that every parser understands in the same way.

Rename events are parsed only here. Rejected are duplicate members, numbers that are too large, lone surrogates, and
nesting that would end in a RecursionError.
"""

import json
import math
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 16

_MAX_INTEGER_DIGITS: Final = 19


class NotJsonError(ValueError):
    """The text is not I-JSON. The message says why, and does not repeat the text."""


def load(text: str) -> object:
    """Parse a text, which may begin with a byte order mark.

    Raises:
        NotJsonError: it is not I-JSON.
    """
    try:
        content = json.loads(
            text.removeprefix("\ufeff"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
        json.dumps(content, ensure_ascii=False).encode("utf-8")
        _check_depth(content)
    except json.JSONDecodeError as error:
        raise NotJsonError(f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise NotJsonError(f"must be nested at most {MAX_DEPTH} deep") from None
    except UnicodeEncodeError:
        raise NotJsonError("holds a lone surrogate") from None
    return content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise NotJsonError("is not JSON: an object has two members of one name")
    return content


def _refuse_constant(_: str) -> NoReturn:
    raise NotJsonError("is not JSON: NaN and Infinity are no numbers")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotJsonError("holds a number that is too large")
    return number


def _bounded(text: str) -> int:
    if len(text) > _MAX_INTEGER_DIGITS:
        raise NotJsonError("holds a number that is too large")
    return int(text)


def _check_depth(content: object, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(content, dict | list):
        for child in content.values() if isinstance(content, dict) else content:
            _check_depth(child, depth + 1)


def replace_lone_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, with question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def to_ascii(value: object) -> str:
    """JSON in ASCII with sorted keys, for a digest. Lone surrogates are escaped."""
    return json.dumps(value, sort_keys=True)


def to_json(value: object) -> str:
    """Compact JSON without ASCII escapes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def is_encodable(text: str) -> bool:
    return replace_lone_surrogates(text) == text
