"""What imports do and what files name, where neither import-linter nor ruff sees it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

import function
from tests.fakes.environment import ENVIRONMENT, KEYLESS, SECRET
from tests.fakes.process import run_python

FUNCTION: Final = Path(function.__file__).parent
MODULES: Final = [
    ".".join(path.relative_to(FUNCTION.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(FUNCTION.rglob("*.py"))
]
SETTINGS: Final = ENVIRONMENT | {
    "LEDGER_TABLE": "ledger",
    "RENAME_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/rename.fifo",
}
WITHOUT_NETWORK: Final = """
import socket

def refuse(*_, **__):
    raise SystemExit("talks to a network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def last_line(script: str, **environment: str) -> str:
    """What a process prints last in which nothing can connect."""
    process = run_python(WITHOUT_NETWORK + script, SETTINGS | environment)
    return (process.stdout + process.stderr).rstrip().rpartition("\n")[2]


@pytest.mark.parametrize("credentials", [{}, SECRET, KEYLESS], ids=["key", "secret", "keyless"])
def test_no_module_connects_when_it_is_imported(credentials: dict[str, str]) -> None:
    imports = "".join(f"import {module}\n" for module in MODULES)

    assert last_line(f"{imports}print('imported')", **credentials) == "imported"


def test_connection_at_import_would_be_noticed() -> None:
    assert last_line("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')") == "talks to a network"


def _files_that_mention(pattern: str) -> list[str]:
    """Documents are not deployed, and may."""
    return [
        str(path.relative_to(FUNCTION))
        for path in sorted(FUNCTION.rglob("*"))
        if path.is_file()
        and path.suffix not in (".pyc", ".md")
        and re.search(pattern, path.read_text(encoding="utf-8"))
    ]


def test_no_file_of_the_function_mentions_its_tests_or_the_command() -> None:
    assert _files_that_mention(r"\b(tests|cli)\b") == []


def test_no_module_is_imported_by_a_call() -> None:
    """import-linter sees statements. Ruff bans importlib, and cannot ban what is built in."""
    assert _files_that_mention("__import__") == []
