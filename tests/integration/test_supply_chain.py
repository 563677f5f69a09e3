"""Where the package comes from: the same bytes from the same commit, and a list of what is in it that is true."""

import ast
import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest

from tests import third_party
from tests.commands import run
from tests.localcloud.aws import ENVIRONMENTS, ROOT, build, package_environment

FUNCTION = "RenameFromQueue"
WHAT_MAKE_READS = (
    *("Makefile", "pyproject.toml", "requirements.txt"),
    *("scripts/note_left_out.py", "tests/localcloud/requirements-sam.txt", "tests/requirements-audit.txt"),
)

# Locked for a package that asks for it, and deployed nowhere: no import leads to it.
LEFT_OUT = {"dnspython"}

# Modules that import what is left out, and why they may.
IMPORTERS = {
    # For objects of Pydantic, which is not deployed.
    "aws_lambda_powertools.shared.functions": {"aws_lambda_powertools.event_handler.openapi.compat"},
    # Gets a namespace package, from which the function takes no model.
    "huaweicloudsdkvpcep.v1.vpcep_client": {"huaweicloudsdkvpcep.v1.model"},
}

# Takes the bill of materials for what its specification says.
VALID = """
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(pathlib.Path(sys.argv[1]).read_text())
sys.exit(error and str(error)[:2000])
"""

# A new one is to be looked at.
LICENCES = {"MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "PSF-2.0", "MPL-2.0", "MIT OR AFL-2.1"}

# Prints what the SAM CLI uploads: its key in the bucket, and the zip's entries, which come in the file system's order.
UPLOADS = """
import sys, zipfile
from samcli.lib.package.utils import make_zip_with_lambda_permissions, zip_folder
for directory in sys.argv[1:]:
    with zip_folder(directory, make_zip_with_lambda_permissions) as (path, key), zipfile.ZipFile(path) as archive:
        entries = [(e.filename, e.date_time, e.external_attr, e.CRC, e.compress_size) for e in archive.infolist()]
        print(key, *sorted(entries))
"""


def make(*arguments: str, directory: Path, environment: dict[str, str], umask: int = -1) -> None:
    subprocess.run(
        ["make", "-s", *arguments],  # noqa: S607 - the one that runs these tests
        cwd=directory,
        env=os.environ | package_environment() | environment,
        umask=umask,
        timeout=180,
        check=True,
    )


@pytest.fixture(scope="module")
def package() -> Path:
    return build().parent / FUNCTION


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second checkout with other modes, times and settings, and what is built from it in ``package``."""
    checkout = tmp_path_factory.mktemp("checkout")
    for file in WHAT_MAKE_READS:
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, checkout / file)
    shutil.copytree(ROOT / "function", checkout / "function", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (checkout / "function").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    (checkout / ".venv").symlink_to(ENVIRONMENTS)
    (checkout / "package").mkdir()
    # The environments are those of `make test`: set up from here, they would name this directory.
    as_they_are = (argument for name in ("audit", "sam") for argument in ("-o", f".venv/{name}/.installed"))
    make(
        *as_they_are,
        *(f"build-{FUNCTION}", "sbom", f"ARTIFACTS_DIR={checkout}/package"),
        directory=checkout,
        environment={"PYTHONHASHSEED": "1", "TZ": "Asia/Shanghai"},
        umask=0o077,
    )
    return checkout


@pytest.fixture(scope="module")
def metadata(checkout: Path) -> Path:
    [metadata] = (checkout / ".build").glob("*-metadata")
    return metadata


@pytest.fixture(scope="module")
def sbom(checkout: Path) -> dict[str, Any]:
    [sbom] = (checkout / ".build").glob("*.cdx.json")
    parsed: dict[str, Any] = json.loads(sbom.read_bytes())
    return parsed


def test_two_builds_of_one_commit_have_the_same_files_and_modes(package: Path, checkout: Path) -> None:
    first, second = contents(package), contents(checkout / "package")

    assert first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path]] == []


def test_two_builds_of_one_commit_are_uploaded_as_the_same_object(package: Path, checkout: Path) -> None:
    done = run(ENVIRONMENTS / "sam/bin/python", "-c", UPLOADS, package, checkout / "package")
    first, second = done.stdout.splitlines()

    assert first == second
    assert "function/app.py', (1980, 1, 1, 0, 0, 0)" in first


def test_two_builds_of_one_commit_have_the_same_bill_of_materials(checkout: Path) -> None:
    [second] = (checkout / ".build").glob("*.cdx.json")
    make("sbom", directory=ROOT, environment={})

    assert (ROOT / ".build" / second.name).read_bytes() == second.read_bytes()


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in directory.rglob("*")
    }


def test_bill_of_materials_names_the_locked_packages(sbom: dict[str, Any]) -> None:
    locked = re.findall(r"^([^ #]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)

    assert {component["purl"] for component in sbom["components"]} == {
        f"pkg:pypi/{name}@{version}" for name, version in locked if name not in LEFT_OUT
    }


def test_bill_of_materials_is_of_the_packages_that_are_deployed(
    sbom: dict[str, Any], metadata: Path, package: Path
) -> None:
    built = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    built = {file for file in built if not file.startswith("function/") and "__pycache__" not in file}
    brought = {found.name: set(recorded(found)) & built for found in distributions(path=[str(metadata)])}

    assert set().union(*brought.values()) == built
    assert [name for name, files in brought.items() if not files] == []
    assert brought.keys() == {component["name"] for component in sbom["components"]}


def test_bill_of_materials_has_the_dependencies_of_each_package(sbom: dict[str, Any]) -> None:
    wanted = {entry["ref"]: entry.get("dependsOn", []) for entry in sbom["dependencies"]}

    assert {name.split("==")[0] for name in wanted["root-component"]} == {
        *("aws_lambda_powertools", "huaweicloudsdkcore", "huaweicloudsdkvpcep", "jsonschema")
    }
    assert any(name.startswith("rpds-py==") for ref in wanted if ref.startswith("jsonschema==") for name in wanted[ref])


def test_bill_of_materials_is_valid_cyclonedx(checkout: Path) -> None:
    [path] = (checkout / ".build").glob("*.cdx.json")

    run(ENVIRONMENTS / "audit/bin/python", "-c", VALID, path)


def test_bill_of_materials_notes_the_files_that_are_left_out(
    sbom: dict[str, Any], metadata: Path, package: Path
) -> None:
    noted = {component["name"]: notes(component) for component in sbom["components"]}
    found = {each.name: left_out(each, package) for each in distributions(path=[str(metadata)])}

    for name, files in found.items():
        assert [file for file in files if not file.startswith(noted[name])] == [], name
        assert [note for note in noted[name] if (package / note).exists()] == [], name
    assert "huaweicloudsdkvpcep/v1/__init__.py" in noted["huaweicloudsdkvpcep"]


def test_files_that_are_left_out_are_imported_by_no_module(metadata: Path, package: Path) -> None:
    """Nowhere, not even in a function that is not called."""
    missing = {
        module(file)
        for found in distributions(path=[str(metadata)])
        for file in left_out(found, package)
        if file.endswith(".py")
    }
    imports = {module(str(path.relative_to(package))): set(names(path, package)) for path in package.rglob("*.py")}

    assert {importer: wanted & missing for importer, wanted in imports.items() if wanted & missing} == IMPORTERS


def recorded(distribution: Distribution) -> list[str]:
    return [path for path, *_ in csv.reader((distribution.read_text("RECORD") or "").splitlines())]


def left_out(distribution: Distribution, package: Path) -> list[str]:
    """Files of it that are not in the package. Bytecode, metadata and scripts of an environment are none of it."""
    aside = re.compile(r"\.\./|bin/|[^/]+\.dist-info/")
    return [file for file in recorded(distribution) if not aside.match(file) and not (package / file).exists()]


def notes(component: dict[str, Any]) -> tuple[str, ...]:
    text = component.get("pedigree", {"notes": ""})["notes"]
    return tuple(text.removeprefix("Left out: ").split(", ")) if text else ()


def module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def names(path: Path, package: Path) -> Iterator[str]:
    """Of all that a module may import, and each of its texts, for a module may be imported by its name."""
    within = path.relative_to(package).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Import(aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(start, aliases, level):
                origin = ".".join([*(within[:-level] if level else ()), *([start] if start else [])])
                yield from (origin, *(f"{origin}.{alias.name}" for alias in aliases))
            case ast.Constant(str(text)):
                yield text


def test_licences_are_listed_in_third_party_md(metadata: Path) -> None:
    assert third_party.document(metadata) == (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")


def test_licences_are_all_known(metadata: Path) -> None:
    assert set(third_party.licences(metadata).values()) == LICENCES
