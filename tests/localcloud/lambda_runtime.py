"""A built package in the Lambda runtime: the interface emulator of the SAM CLI, and Lambda's own Python client.

MiniStack calls a handler from a worker of its own; here the package is loaded, initialised and invoked as on Lambda,
with no other packages than those of Lambda's runtime.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import urllib3

from tests.localcloud.aws import ENVIRONMENTS

EMULATOR = "lib/python{}.{}/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64"
STARTUP_SECONDS = 10.0

# The interpreter of the virtual environments, which have packages that a deployed function has not.
BASE_PYTHON: str = sys._base_executable  # type: ignore[attr-defined]

# The packages of Lambda's Python runtime: boto3 and the runtime's client, with their dependencies.
_RUNTIME_PACKAGES = (
    *("awslambdaric", "snapshot_restore_py", "runtime_client", "simplejson"),
    *("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3"),
)


class LambdaRuntimeError(Exception):
    """The runtime did not start or did not answer; the text has its log."""


class LambdaRuntime:
    """One execution environment. The first invocation is a cold start, as on Lambda."""

    def __init__(self, package: Path, environment: Mapping[str, str], timeout: int, handler: str) -> None:
        self._package = package
        self._environment = environment
        self._timeout = timeout
        self._handler = handler

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="lambda-runtime-"))
        self._log = self._directory / "runtime.log"
        address, api = _free_address(), _free_address()
        emulator = ENVIRONMENTS / "sam" / EMULATOR.format(*sys.version_info)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(emulator, "--runtime-interface-emulator-address", address, "--runtime-api-address", api),
                    # Without site-packages, and writing no bytecode: /var/task is read-only.
                    *(BASE_PYTHON, "-S", "-B", "-m", "awslambdaric", self._handler),
                ],
                cwd=self._package,
                env=self._whole_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._url = f"http://{address}/2015-03-31/functions/function/invocations"
        _wait_for(address)
        return self

    def __exit__(self, *exception: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)

    def invoke(self, event: Mapping[str, Any]) -> Any:
        """The handler's response. Raises an error of the runtime or of the function."""
        reply = urllib3.request("POST", self._url, json=event, timeout=self._timeout + 5, retries=False)
        answer = reply.json()
        if reply.status != 200 or (isinstance(answer, dict) and "errorType" in answer):
            raise LambdaRuntimeError(f"{reply.status} {json.dumps(answer)}\n{self.log()[-4000:]}")
        return answer

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _whole_environment(self) -> dict[str, str]:
        runtime = runtime_packages(self._directory)
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(runtime),
            "LAMBDA_TASK_ROOT": str(self._package),
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(self._timeout),
            "AWS_LAMBDA_FUNCTION_NAME": "function",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            **self._environment,
        }


def runtime_packages(directory: Path) -> Path:
    """A new directory in this one, with the packages of Lambda's runtime."""
    runtime = directory / "runtime"
    runtime.mkdir()
    for package in _RUNTIME_PACKAGES:
        spec = find_spec(package)
        if spec and spec.origin:
            origin = Path(spec.origin)
            origin = origin.parent if origin.name == "__init__.py" else origin
            (runtime / origin.name).symlink_to(origin)
    return runtime


def _free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def _wait_for(address: str) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + STARTUP_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        if time.monotonic() > deadline:
            raise LambdaRuntimeError("The Lambda runtime interface emulator did not start.")
        time.sleep(0.02)
