"""What imports do and what files name, where neither import-linter nor ruff sees it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import function

FUNCTION: Final = Path(function.__file__).parent
MODULES: Final = [
    ".".join(path.relative_to(FUNCTION.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(FUNCTION.rglob("*.py"))
]

SETTINGS: Final = {
    "HUAWEICLOUD_REGION": "cn-north-4",
    "OUTCOME_BUS": "rename-outcomes",
    "LEDGER_TABLE": "ledger",
    "RENAME_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/rename.fifo",
}
KEY: Final = {
    "HUAWEICLOUD_SDK_AK": "LOCALACCESSKEY",
    "HUAWEICLOUD_SDK_SK": "local-secret-key",
    "HUAWEICLOUD_SDK_PROJECT_ID": "0123456789abcdef0123456789abcdef",
}
SECRET: Final = {"HUAWEICLOUD_CREDENTIALS_SECRET": "huawei"}
KEYLESS: Final = {"HUAWEICLOUD_SDK_IDP_ID": "aws", "HUAWEICLOUD_SDK_PROJECT_ID": KEY["HUAWEICLOUD_SDK_PROJECT_ID"]}
WITHOUT_NETWORK: Final = """
import socket

def refuse(*_, **__):
    raise SystemExit("talks to a network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def _run(script: str, environment: dict[str, str]) -> str:
    """The last line that a Python process of its own prints, where nothing can connect."""
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK + script],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(FUNCTION.parent),
            # As Lambda sets them; without a key botocore looks for one.
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            **SETTINGS,
            **environment,
        },
        cwd=FUNCTION.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return (process.stdout + process.stderr).rstrip().rpartition("\n")[2]


@pytest.mark.parametrize("credentials", [KEY, SECRET, KEYLESS], ids=["key", "secret", "keyless"])
def test_nothing_connects_at_import(credentials: dict[str, str]) -> None:
    imports = "".join(f"import {module}\n" for module in MODULES)

    assert _run(f"{imports}print('imported')", credentials) == "imported"


def test_a_connection_would_be_noticed() -> None:
    assert _run("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", KEY) == "talks to a network"


def _files_that_mention(pattern: str) -> list[str]:
    """What is written for people is not deployed, and may."""
    return [
        str(path.relative_to(FUNCTION))
        for path in sorted(FUNCTION.rglob("*"))
        if path.is_file()
        and path.suffix not in (".pyc", ".md")
        and re.search(pattern, path.read_text(encoding="utf-8"))
    ]


def test_nothing_in_the_function_mentions_its_tests_or_the_command() -> None:
    assert _files_that_mention(r"\b(tests|cli)\b") == []


def test_nothing_is_imported_by_a_call() -> None:
    """import-linter sees statements. Ruff bans importlib, and cannot ban what is built in."""
    assert _files_that_mention("__import__") == []
