"""Removes credentials from Huawei Cloud's replies, in several encodings.

An error reply may repeat the key, and outcomes, which many can read, contain texts of replies.
Separate from the transport, because it does not depend on HTTP.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Final

REDACTED: Final = "***"
# How much of a text is searched; a message may be as long as its reply.
_MAX_TEXT: Final = 65_536
# Shorter ones are not credentials of Huawei Cloud, and would be found in every text.
_MIN_SECRET: Final = 4
# A text with more levels of encoding is suspicious, and replaced as a whole.
_MAX_PASSES: Final = 8
# Percent-encoding, also nested; JSON escapes; numeric character references of HTML. Each repetition is bounded, because
# otherwise the run time could be quadratic in the length of the text.
_ESCAPE: Final = re.compile(
    r"%(?:25){0,16}([0-9a-f]{2})|\\{1,16}u([0-9a-f]{4})|\\{1,16}(/)|&\#x([0-9a-f]{1,6});|&\#([0-9]{1,6});",
    re.IGNORECASE,
)
_BASES: Final = (16, 16, None, 16, 10)
_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class Redactor:
    """Replaces secrets in texts: plain, percent-encoded, escaped as in JSON or HTML, or in base64. Ignores case."""

    def __init__(self, secrets: Iterable[str | None]) -> None:
        known = [secret for secret in secrets if secret and len(secret) >= _MIN_SECRET]
        self._needles = {form for secret in known for form in _forms(secret)}

    def clean(self, text: str, length: int) -> str:
        """Replace the secrets, then truncate to a length. A text that cannot be decoded is replaced as a whole."""
        window = text[:_MAX_TEXT]
        decoded = _decode(window)
        if decoded is None:
            return REDACTED[:length]
        plain, places = decoded
        plain = plain.translate(_LOWER)
        spans = sorted(self._spans(plain, places))
        cleaned, end = [], 0
        for start, stop in spans:
            if start >= end:
                cleaned += [window[end:start], REDACTED]
            end = max(end, stop)
        if len(text) > len(window):
            # The window may end with the beginning of a secret.
            tail = max(map(len, self._needles), default=0)
            window = window[: places[max(0, len(plain) - tail)]]
        cleaned.append(window[end:])
        return "".join(cleaned)[:length]

    def _spans(self, plain: str, places: "range | list[int]") -> Iterable[tuple[int, int]]:
        for needle in self._needles:
            at = plain.find(needle)
            while at >= 0:
                yield places[at], places[at + len(needle)]
                at = plain.find(needle, at + len(needle))


def _forms(secret: str) -> Iterable[str]:
    """The strings to search for, in lower case: the secret, and its base64 at any position in an encoded text."""
    yield secret.translate(_LOWER)
    for before in range(3):
        encoded = b64encode(b"\0" * before + secret.encode()).decode().rstrip("=")
        # The characters at both ends also contain bits of the text around the secret.
        whole = encoded[-(-8 * before // 6) : (before + len(secret.encode())) * 8 // 6]
        for core in {whole, whole.replace("+", "-").replace("/", "_")}:
            yield core.translate(_LOWER)


def _decode(text: str) -> "tuple[str, range | list[int]] | None":
    """The decoded text, and the original position of each of its characters and of its end. None if nested too deep."""
    places: range | list[int] = range(len(text) + 1)
    for _ in range(_MAX_PASSES):
        plain: list[str] = []
        moved: list[int] = []
        end = 0
        for escape in _ESCAPE.finditer(text):
            character = _character(escape)
            if character is None:
                continue
            plain += [text[end : escape.start()], character]
            moved += places[end : escape.start() + 1]
            end = escape.end()
        if not plain:
            return text, places
        plain.append(text[end:])
        moved += places[end:]
        text, places = "".join(plain), moved
    return None


def _character(escape: re.Match[str]) -> str | None:
    """The character of an escape. None if it is not ASCII: credentials contain only ASCII."""
    for digits, base in zip(escape.groups(), _BASES, strict=True):
        if digits is not None:
            code = ord(digits) if base is None else int(digits, base)
            return chr(code) if code < 128 else None  # noqa: PLR2004 - the end of ASCII
    return None
