"""The command as a wheel: what is in it, and that it runs with its own dependencies alone, as pipx installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.commands import run
from tests.localcloud.aws import ENVIRONMENTS, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for setuptools leaves files in the directory that it builds from."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    source.mkdir()
    shutil.copy2(ROOT / "pyproject.toml", source)
    for package in ("cli", "function"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "tests").mkdir()
    (source / "tests" / "__init__.py").touch()
    # The SAM CLI's environment has setuptools.
    run(
        *(ENVIRONMENTS / "sam/bin/python", "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
        *("--no-index", "--wheel-dir", directory, source),
        seconds=120,
    )
    [wheel] = directory.glob("*.whl")
    return wheel


def test_wheel_has_the_command_and_the_function_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}

    wanted = {
        str(path.relative_to(ROOT))
        for package in ("cli", "function")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".json", ".yaml")
    }
    assert found == wanted


def test_command_runs_with_its_own_dependencies_only(wheel: Path, tmp_path: Path) -> None:
    """With what its lock names and nothing else, out of the packages that are installed for tests."""
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "cli" / "requirements.txt").read_text(), re.MULTILINE)
    packages = tmp_path / "packages"
    script = (
        "import importlib.metadata as m, os, pathlib, shutil, sys\n"
        "for name in sys.argv[2:]:\n"
        "    try: found = m.distribution(name)\n"
        "    except m.PackageNotFoundError: continue\n"
        "    for file in found.files:\n"
        "        if '..' not in file.parts and '__pycache__' not in file.parts:\n"
        "            to = pathlib.Path(sys.argv[1], file); to.parent.mkdir(parents=True, exist_ok=True)\n"
        "            shutil.copy2(file.locate(), to)\n"
    )
    run(sys.executable, "-c", script, packages, *locked, seconds=120)
    run(
        *(ENVIRONMENTS / "sam/bin/python", "-m", "pip", "install", "-q", "--no-deps", "--no-index"),
        *("--target", packages, wheel),
        seconds=120,
    )

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(packages)}
        program = (sys.executable, "-S", packages / "bin" / "vpcep-rename")
        return run(*program, *arguments, cwd=tmp_path, env=environment, check=False)

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert command("--version").stdout == f"vpcep-rename, version {version}\n"
    # Directly, and through a stack: both import all that they need before they find out what is missing.
    assert "Not set: HUAWEICLOUD_REGION" in command("list").stderr
    through_stack = command(
        "rename", "one", "orders", "--api-url", "https://api.execute-api.eu-central-1.amazonaws.com/v1"
    )
    assert "There are no AWS credentials" in through_stack.stderr


def test_requirements_of_the_function_are_locked_from_their_own_group() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)[1:]
    direct = {entry.split(" ", 1)[0] for entry in entries if "vpcep-rename (pyproject.toml)" in entry}

    assert direct == set(groups["function"])
    assert {"click", "rich", "boto3", "botocore"}.isdisjoint(entry.split("==")[0] for entry in entries)
