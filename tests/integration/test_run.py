"""`make run` on any machine: whatever its environment has, however its user ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.localcloud.aws import ROOT, build

DEAD_PROXY = "http://127.0.0.1:9"
HOSTILE = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"), DEAD_PROXY),
    "no_proxy": "example.com",
    "AWS_PROFILE": "gone",
    "AWS_CONFIG_FILE": "/gone",
    "LC_ALL": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "ascii",
}


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """Packages could not be downloaded through the dead proxy."""
    build()


@contextmanager
def started(target: str, directory: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A target of make, with temporary files in the directory, and no key of Huawei Cloud but a given one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HUAWEICLOUD_", "MAKE"))}
    with subprocess.Popen(
        # The environments are those of `make test`; the targets need nothing else.
        ["make", "-o", "environments", target],  # noqa: S607 - the one that runs these tests
        cwd=ROOT,
        env=kept | {"TMPDIR": str(directory), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"the output ended without {text!r}")


def left_behind(directory: Path, seconds: float = 0.0) -> list[Path]:
    """Files that are still there after a while."""
    deadline = time.monotonic() + seconds
    while (found := list(directory.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_make_run_works_with_a_dead_proxy_a_missing_profile_and_an_ascii_terminal(tmp_path: Path) -> None:
    with started("run", tmp_path, **HOSTILE) as process:
        output, errors = process.communicate(timeout=120)

    assert (process.returncode, errors) == (0, "")
    assert output.isascii()
    assert re.search(r"VPCEP +PUT .*/name \? 200", output)
    assert output.endswith("\nEverything arrived as expected.\n")
    assert left_behind(tmp_path) == []


def test_make_run_ends_quietly_on_an_interrupt(tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of the terminal, make among them."""
    with started("run", tmp_path) as process:
        read_until(process, "Building and deploying")
        time.sleep(1.0)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=20)

    assert (output, errors) == ("", "")
    assert process.returncode == -signal.SIGINT
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("stage", ["local AWS", "Building and deploying", "Ready"])
def test_terminated_make_run_leaves_no_directory_behind(tmp_path: Path, stage: str) -> None:
    with started("run", tmp_path) as process:
        read_until(process, stage)
        time.sleep(0.3)
        process.terminate()
        process.communicate(timeout=20)

    assert process.returncode == -signal.SIGTERM
    assert left_behind(tmp_path) == []


def test_killed_make_run_leaves_no_cloud_behind(tmp_path: Path) -> None:
    with started("run", tmp_path) as process:
        read_until(process, "1. A rename")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)

    assert left_behind(tmp_path, seconds=10) == []


def test_make_run_ends_quietly_when_its_output_is_closed(tmp_path: Path) -> None:
    with started("run", tmp_path) as process:
        assert process.stdout
        assert process.stderr
        assert "Huawei Cloud" in process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert (process.returncode, errors) == (0, "")
    assert left_behind(tmp_path) == []
