"""The rules of the house: which room knows which. Read off the source, so that no path has to be run to break one."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import function

FUNCTION: Final = Path(function.__file__).parent

CLOUD_CLIENTS: Final = ("boto3", "botocore", "mypy_boto3_*", "huaweicloudsdk*")
TRIGGERS: Final = ("triggers.*",)
WIRING: Final = {"app", "bootstrap"}


class House:
    """The rooms of a package, by their names within it (``triggers.sqs``), and what each imports anywhere in it."""

    def __init__(self, package: Path) -> None:
        self.trees = {
            self._room(path.relative_to(package)): ast.parse(path.read_text(encoding="utf-8"), str(path))
            for path in sorted(package.rglob("*.py"))
        }
        self._package = package.name
        self.imports = {room: set(self._imports(tree)) for room, tree in self.trees.items()}

    @staticmethod
    def _room(path: Path) -> str:
        return ".".join(path.with_suffix("").parts).removesuffix("__init__").rstrip(".")

    def _imports(self, tree: ast.Module) -> Iterator[str]:
        """Full names, those within functions and for type checkers included."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                if node.level:
                    message = f"line {node.lineno}: a relative import hides which room it means"
                    raise ValueError(message)
                yield from (self._named_by(node.module or "", alias.name) for alias in node.names)

    def _named_by(self, module: str, name: str) -> str:
        """``from function import bus`` imports a room, ``from function.bus import EventBridge`` imports from one."""
        room = self._within(f"{module}.{name}")
        return f"{module}.{name}" if room in self.trees else module

    def _within(self, module: str) -> str | None:
        if module == self._package:
            return ""
        return module.removeprefix(f"{self._package}.") if module.startswith(f"{self._package}.") else None

    def rooms(self, *names: str) -> set[str]:
        """Those of these names; ``triggers.*`` is every room of ``triggers``."""
        found = {room for room in self.trees for name in names if _is_named(room, name) and room}
        if not found:
            message = f"there is no room {names}"
            raise ValueError(message)
        return found

    def known_to(self, room: str) -> set[str]:
        """The rooms that ``room`` imports, directly or through others."""
        known: set[str] = set()
        ahead = [room]
        while ahead:
            for module in self.imports[ahead.pop()]:
                other = self._within(module)
                if other is not None and other not in known:
                    known.add(other)
                    ahead.append(other)
        return known

    def strangers_known_to(self, room: str, *names: str) -> set[tuple[str, str]]:
        """Each room known to ``room`` (itself included) with each module of these names that it imports."""
        return {
            (other, module)
            for other in {room, *self.known_to(room)}
            for module in self.imports[other]
            for name in names
            if _is_named(module, name)
        }


def _is_named(module: str, name: str) -> bool:
    """``boto3`` names itself and all below it; ``huaweicloudsdk*`` all that start so."""
    if name.endswith("*"):
        return module.startswith(name[:-1])
    return module == name or module.startswith(f"{name}.")


HOUSE: Final = House(FUNCTION)
PACKAGES: Final = {"", "adapters", "adapters.aws", "adapters.huawei", "domain", "triggers"}
CORE: Final = sorted(HOUSE.rooms("domain.*") - PACKAGES)
ADAPTERS: Final = sorted(HOUSE.rooms("adapters.*") - PACKAGES)


# ---- Who knows whom


@pytest.mark.parametrize("room", CORE)
def test_the_decision_and_the_contract_know_no_cloud_and_no_powertools(room: str) -> None:
    assert HOUSE.strangers_known_to(room, *CLOUD_CLIENTS, "aws_lambda_powertools") == set()


@pytest.mark.parametrize("room", CORE)
def test_the_decision_and_the_contract_know_each_other_only(room: str) -> None:
    assert HOUSE.known_to(room) - PACKAGES <= set(CORE)


@pytest.mark.parametrize("trigger", sorted(HOUSE.rooms(*TRIGGERS)))
def test_a_trigger_knows_no_cloud_client(trigger: str) -> None:
    assert HOUSE.strangers_known_to(trigger, *CLOUD_CLIENTS) == set()
    assert HOUSE.known_to(trigger).isdisjoint(ADAPTERS)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_knows_no_trigger_and_no_other_cloud(adapter: str) -> None:
    known = HOUSE.known_to(adapter)

    assert known.isdisjoint(HOUSE.rooms(*TRIGGERS))
    if adapter.startswith("adapters.aws."):
        assert not [room for room in known if room.startswith("adapters.huawei.")]
    if adapter.startswith("adapters.huawei."):
        assert not [room for room in known if room.startswith("adapters.aws.")]


def test_only_the_wiring_knows_a_trigger_and_an_adapter() -> None:
    triggers = HOUSE.rooms(*TRIGGERS)

    both = {
        room
        for room in HOUSE.trees
        if not HOUSE.known_to(room).isdisjoint(triggers) and not HOUSE.known_to(room).isdisjoint(ADAPTERS)
    }

    assert both == WIRING


def test_nobody_knows_the_wiring() -> None:
    assert [room for room in HOUSE.trees if WIRING & HOUSE.known_to(room)] == ["app"]


def test_every_room_that_talks_to_a_cloud_is_known_as_an_adapter() -> None:
    talk = {
        room
        for room, imports in HOUSE.imports.items()
        if any(_is_named(module, name) for module in imports for name in CLOUD_CLIENTS)
    }

    assert talk <= {*ADAPTERS}


def test_nobody_imports_what_cannot_be_read_off_the_source() -> None:
    dynamic = {
        (room, module)
        for room, imports in HOUSE.imports.items()
        for module in imports
        if _is_named(module, "importlib")
    }
    called = {(room, name) for room, tree in HOUSE.trees.items() for name in _names(tree) if name == "__import__"}

    assert (dynamic, called) == (set(), set())


def _mentions_of_tests(package: Path) -> list[str]:
    """The files that name them. What is written for people is not deployed, and may."""
    return [
        str(path.relative_to(package))
        for path in sorted(package.rglob("*"))
        if path.is_file()
        and path.suffix not in (".pyc", ".md")
        and re.search(r"\btests\b", path.read_text(encoding="utf-8"))
    ]


def test_nothing_in_the_function_mentions_its_tests() -> None:
    assert _mentions_of_tests(FUNCTION) == []


# ---- The environment


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def _readers_of_the_environment(house: House) -> list[str]:
    """The rooms that touch the environment, each as often as it does."""
    ways = ("environ", "environb", "getenv", "getenvb")
    return [room for room, tree in house.trees.items() for name in _names(tree) if name in ways]


def test_the_environment_is_read_in_one_line_of_the_settings() -> None:
    assert _readers_of_the_environment(HOUSE) == ["settings"]


def test_the_settings_know_nobody() -> None:
    assert HOUSE.known_to("settings") == set()


# ---- Chance


def _dice_of_the_process(house: House) -> list[str]:
    """The rooms that import from ``random`` what is seeded once a process; all that come from one snapshot share it."""
    return [
        room
        for room, tree in house.trees.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "random"
            and any(alias.name != "SystemRandom" for alias in node.names)
        )
    ]


def test_chance_is_the_kernels() -> None:
    assert _dice_of_the_process(HOUSE) == []


@pytest.mark.parametrize("source", ["import random", "from random import uniform", "from random import Random as R"])
def test_other_dice_would_be_found(tmp_path: Path, source: str) -> None:
    assert _dice_of_the_process(_house(tmp_path, {"bus": f"{source}\nfrom random import SystemRandom"})) == ["bus"]


# ---- Input checks


def _asserts(house: House) -> list[str]:
    return [
        f"{room}:{node.lineno}"
        for room, tree in house.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]


def test_nothing_is_checked_by_a_statement_that_python_may_leave_out() -> None:
    assert _asserts(HOUSE) == []


# ---- Import

COMPLETE: Final = {
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
    """What a Python process of its own says at its end, where nothing can connect."""
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK + script],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(FUNCTION.parent),
            # As Lambda sets them; without a key boto3 goes looking for one.
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            **COMPLETE,
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
    imports = "".join(f"import function.{room}\n" for room in HOUSE.trees if room)

    assert _run(f"{imports}print('imported')", credentials) == "imported"


def test_something_that_connected_would_be_noticed() -> None:
    assert _run("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", KEY) == "talks to a network"


# ---- These tests find what they look for


def _house(root: Path, rooms: dict[str, str]) -> House:
    for name, source in {"__init__": "", **rooms}.items():
        path = root / "function" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return House(root / "function")


@pytest.mark.parametrize(
    "source",
    [
        "import boto3",
        "import boto3.session as session",
        "from boto3 import client",
        "from botocore.config import Config",
        "import huaweicloudsdkvpcep.v1",
        "from huaweicloudsdkcore.region.region import Region",
        "def f():\n    import boto3",
        "class A:\n    def f(self):\n        from boto3.session import Session",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mypy_boto3_sqs import SQSClient",
        "try:\n    import boto3\nexcept ImportError:\n    pass",
    ],
)
def test_a_cloud_client_is_found_wherever_it_is_imported(tmp_path: Path, source: str) -> None:
    house = _house(tmp_path, {"events": source})

    assert house.strangers_known_to("events", *CLOUD_CLIENTS)


@pytest.mark.parametrize("source", ["import function.bus", "from function import bus", "from function.bus import Bus"])
def test_a_room_is_found_behind_another(tmp_path: Path, source: str) -> None:
    house = _house(tmp_path, {"rename": "from function.events import A", "events": source, "bus": "import boto3"})

    assert house.known_to("rename") == {"events", "bus"} | ({""} & house.known_to("rename"))
    assert house.strangers_known_to("rename", *CLOUD_CLIENTS) == {("bus", "boto3")}


def test_rooms_of_a_package_are_told_from_the_package(tmp_path: Path) -> None:
    house = _house(
        tmp_path,
        {"triggers/__init__": "", "triggers/sqs": "", "app": "from function.triggers.sqs import A", "bus": ""},
    )

    assert house.rooms("triggers.*") == {"triggers.sqs"}
    assert house.known_to("app") == {"triggers.sqs"}


def test_a_module_that_only_sounds_alike_is_not_found(tmp_path: Path) -> None:
    house = _house(tmp_path, {"events": "import boto3000\nfrom functionality import bus"})

    assert house.strangers_known_to("events", *CLOUD_CLIENTS) == set()
    assert house.known_to("events") == set()


def test_a_relative_import_is_not_let_through(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="relative"):
        _house(tmp_path, {"events": "from .bus import Bus", "bus": ""})


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['A']",
        "import os\nos.getenv('A')",
        "from os import environ",
        "from os import getenv as read",
        "import os as o\nprint(o.environ)",
        "def f():\n    import os\n    return os.environ.get('A')",
    ],
)
def test_a_reader_of_the_environment_is_found(tmp_path: Path, source: str) -> None:
    assert set(_readers_of_the_environment(_house(tmp_path, {"bus": source}))) == {"bus"}


@pytest.mark.parametrize("name", ["bus.py", "contract/openapi.yaml", "triggers/sqs.py"])
def test_a_mention_of_the_tests_is_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("# see tests/unit\n", encoding="utf-8")
    (tmp_path / "harmless.py").write_text("# contests\n", encoding="utf-8")

    assert _mentions_of_tests(tmp_path) == [name]


def test_an_assert_statement_is_found(tmp_path: Path) -> None:
    assert _asserts(_house(tmp_path, {"bus": "def f(a):\n    assert a"})) == ["bus:2"]
