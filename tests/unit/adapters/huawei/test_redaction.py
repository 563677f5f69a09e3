"""What is redacted in the texts of replies: each secret in each form, and nothing else."""

from __future__ import annotations

import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import quote

import pytest

from function.adapters.huawei.redaction import Redactor

ACCESS_KEY: Final = "HPUAXZ7Q0LOCALACCESS"
SECRET_KEY: Final = "s3cr/et+K3y~with?all=of>it&more=="
TOKEN: Final = "ggpjbi1ub3J0aC00T0" * 100 + "=="
SECRETS: Final = {"access key": ACCESS_KEY, "secret key": SECRET_KEY, "token": TOKEN}


def percent(text: str) -> str:
    return "".join(f"%{ord(character):02x}" for character in text)


def json_escaped(text: str) -> str:
    return "".join(f"\\u{ord(character):04X}" for character in text)


def within_base64(before: int, after: int, secret: str) -> str:
    return b64encode(b"<:>"[:before] + secret.encode() + b"xyz"[:after]).decode()


FORMS: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "lower case": str.lower,
    "upper case": str.upper,
    "percent-encoded": lambda secret: quote(secret, safe=""),
    "percent-encoded in lower case": lambda secret: quote(secret, safe="").lower(),
    "percent-encoded throughout": percent,
    "percent-encoded twice": lambda secret: quote(percent(secret)),
    "percent-encoded five times": lambda secret: quote(quote(quote(quote(percent(secret))))),
    "escaped as in JSON": json_escaped,
    "escaped as in JSON twice": lambda secret: json.dumps(json_escaped(secret))[1:-1],
    "JSON in JSON": lambda secret: json.dumps(json.dumps(secret)),
    "with escaped slashes": lambda secret: secret.replace("/", "\\/"),
    "with slashes escaped twice": lambda secret: secret.replace("/", "\\\\\\/"),
    "percent-encoded within JSON escapes": lambda secret: json_escaped(percent(secret)),
    "JSON escapes percent-encoded": lambda secret: percent(json_escaped(secret)),
    "in HTML": lambda secret: "".join(f"&#{ord(character)};" for character in secret),
    "in HTML by hexadecimals": lambda secret: "".join(f"&#x{ord(character):X};" for character in secret),
    "half encoded": lambda secret: secret[:5] + percent(secret[5:10]) + secret[10:],
    **{
        f"base64 from {before} to {after}": partial(within_base64, before, after)
        for before in range(4)
        for after in range(4)
    },
    "base64 for URLs": lambda secret: urlsafe_b64encode(secret.encode()).decode(),
    "base64 percent-encoded": lambda secret: quote(b64encode(secret.encode()).decode(), safe=""),
}


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    return Redactor((ACCESS_KEY, SECRET_KEY, TOKEN))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", SECRETS)
def test_secret_is_redacted_and_the_text_around_it_is_kept(redactor: Redactor, secret: str, form: str) -> None:
    # An escape of a character that is not ASCII must not end the search.
    before, after = "Get secretKey of caf%C3%A9 failed,ak:", ", and so on."

    cleaned = redactor.clean(f"{before}{FORMS[form](SECRETS[secret])}{after}", 1_000)

    assert cleaned.startswith(before)
    assert cleaned.endswith(after)
    assert "***" in cleaned
    # then: of base64 at most what the beginning and the end share with their neighbours
    assert len(cleaned) - len(f"{before}***{after}") <= 12


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("length", [128, 1_000])
def test_secret_across_the_maximum_length_is_redacted_before_the_text_is_truncated(
    redactor: Redactor, secret: str, length: int
) -> None:
    for before in range(length - 30, length + 1):
        assert redactor.clean("." * before + SECRETS[secret], length) == ("." * before + "***")[:length]


def test_secret_across_the_end_of_the_examined_text_leaves_no_part_of_it(redactor: Redactor) -> None:
    text = "".join(percent(TOKEN) for _ in range(40))

    assert redactor.clean(text, 100_000).replace("*", "") == ""


def test_secrets_that_overlap_or_repeat_are_redacted() -> None:
    redactor = Redactor(("secret", "secret-and-more", None, ""))

    assert redactor.clean("secret-and-more, secretsecret, SECRET", 100) == "***, ******, ***"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The endpoint service does not exist.",
        "100 % of it, %zz, %, \\ and \\u12, &#; and &#9999999;",
        "%E5%90%8D%E5%89%8D \\u540d \u540d\u524d",
        "a%20b\\/c",
        "\ud800 \x00",
        ACCESS_KEY[:-1],
    ],
)
def test_text_without_a_secret_is_unchanged(redactor: Redactor, text: str) -> None:
    assert redactor.clean(text, 1_000) == text


def test_secret_that_is_too_short_is_not_redacted() -> None:
    assert Redactor(("a", "abc")).clean("abcabc", 100) == "abcabc"


@pytest.mark.parametrize(
    "unit", ["x", "%41", "\\", "\\u0041", "&#0", "&#x41;", "%25", "%", SECRET_KEY, "ab" + TOKEN[:9]]
)
def test_text_of_a_megabyte_is_redacted_within_a_second(redactor: Redactor, unit: str) -> None:
    began = time.process_time()

    redactor.clean(unit * (1_048_576 // len(unit)), 1_000)

    assert time.process_time() - began < 1.0


def test_text_that_is_encoded_too_often_is_left_out(redactor: Redactor) -> None:
    text = "%" + "25" * 1_000 + "41"

    assert redactor.clean(text, 1_000) == "***"
