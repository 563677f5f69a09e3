"""What contributors need in addition to the code: targets of make, hooks, locked requirements, a change log."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.commands import run
from tests.template import ROOT

MAKEFILE: Final = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKED: Final = re.findall(r"\$\(LOCK\) .* -o (\S+)", MAKEFILE)
PHONY: Final = set(re.search(r"^\.PHONY:((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)[1].replace("\\", "").split())  # type: ignore[index]
# `sam build` and other targets call these.
INTERNAL: Final = {"environments", "build-RenameFromQueue", "build-RenameFromHttp", "build-SettleDeadLetters"}


def test_make_without_a_target_lists_each_target_with_what_it_does() -> None:
    alone = run("make").stdout

    _, *lines = alone.splitlines()

    listed = dict(line.strip().split(maxsplit=1) for line in lines)
    assert listed.keys() == PHONY - INTERNAL
    assert run("make", "help").stdout == alone


@pytest.mark.parametrize(
    "document", ["CONTRIBUTING.md", "README.md", ".pre-commit-config.yaml", ".ci/run", ".github/workflows/ci.yml"]
)
def test_make_target_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")

    named = set(re.findall(r"(?:^|`|entry: |run: |  )make ([a-z][a-z-]*)", text, re.MULTILINE))

    assert named
    assert named <= PHONY


def test_sizes_of_environments_in_the_makefile_are_right_within_a_fifth() -> None:
    sizes = {
        name: (int(download), int(disk))
        for name, download, disk in re.findall(r"^SIZE_(\w+) := (\d+) (\d+)$", MAKEFILE, re.MULTILINE)
    }
    environments = {path.name for path in (ROOT / ".venv").iterdir()} | {"dev", "sam", "ministack"}
    assert environments <= sizes.keys()

    for name in ("dev", "sam", "ministack"):
        files = (path for path in (ROOT / ".venv" / name).rglob("*") if "__pycache__" not in path.parts)
        megabytes = sum(path.lstat().st_blocks * 512 for path in files) / 2**20
        download, disk = sizes[name]
        assert 0.8 * disk < megabytes < 1.2 * disk, name
        assert 0 < download < disk


def test_locked_requirements_have_hashes_and_name_no_host() -> None:
    assert "requirements.txt" in LOCKED

    for path in LOCKED:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not re.search(r"://|^\s*--(?!hash)|^-", text, re.MULTILINE), path
        packages = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in package for package in packages), path


def test_change_log_has_an_entry_for_the_version_of_the_project() -> None:
    change_log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    headings = re.findall(r"^## (.*)$", change_log, re.MULTILINE)

    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(PROJECT['project']['version'])}\] - \d{{4}}-\d\d-\d\d", headings[1])
    kinds = set(re.findall(r"^### (.*)$", change_log, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_pre_commit_hooks_call_make() -> None:
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]

    assert repository["repo"] == "local"
    assert all(hook["entry"].startswith("make ") and hook["language"] == "system" for hook in repository["hooks"])


def test_editorconfig_agrees_with_ruff_and_with_line_ends_of_the_files() -> None:
    editor = (ROOT / ".editorconfig").read_text(encoding="utf-8")

    assert f"max_line_length = {PROJECT['tool']['ruff']['line-length']}\n" in editor
    for path in _text_files():
        text = path.read_bytes()
        assert not text or text.endswith(b"\n"), path
        assert b"\r\n" not in text, path


def _text_files() -> list[Path]:
    patterns = ("*.py", "*.md", "*.yml", "*.yaml", "*.toml", "Makefile")
    return [
        path
        for directory in (ROOT, ROOT / "docs", ROOT / ".github", ROOT / "function", ROOT / "tests/localcloud")
        for pattern in patterns
        for path in directory.glob(pattern)
    ]
