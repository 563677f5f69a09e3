"""A local AWS: MiniStack, with template.yml deployed by the SAM CLI.

It behaves as AWS in this, so that tests may rely on it: it transforms the template, evaluates the policies
of the functions' roles, of the bus and of the queues (hence TLS, which those require), checks the signatures of HTTP
requests, signs web identity tokens, delivers FIFO messages in order, counts receives and moves dead letters.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import boto3
import botocore.session
import trustme
import urllib3
from botocore.config import Config

from tests.localcloud.issuer import Issuer

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv"
BUILD = ROOT / ".aws-sam" / "local"

ACCOUNT = "123456789012"
STARTUP_SECONDS = 60.0
DEPLOYMENT_SECONDS = 120.0
# MiniStack's key of the account's root, whom only a Deny restricts.
ROOT_USER = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
# Variables of botocore's session: the profiles of the machine may not exist, or may name a role to assume.
WITHOUT_PROFILES = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


class LocalAwsError(Exception):
    """The local cloud did not start, or the deployment failed; the text has the end of its log."""


@dataclass(frozen=True)
class Stack:
    """A deployed stack."""

    name: str
    outputs: Mapping[str, str]
    resources: Mapping[str, str]


class LocalAws:
    """MiniStack on a free port of the loopback interface, with IAM evaluation on."""

    def __init__(self, region: str = "eu-central-1") -> None:
        self.region = region
        self.issuer = Issuer()
        self._session = boto3.session.Session(botocore_session=botocore.session.Session(WITHOUT_PROFILES))
        self._clients: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> Self:
        # Removed at the end of this process, also after an interrupt, and by MiniStack if the process is killed.
        self._temporary = tempfile.TemporaryDirectory(prefix="local-aws-", ignore_cleanup_errors=True)
        self._directory = Path(self._temporary.name)
        self.log = self._directory / "ministack.log"
        self.ca = self._directory / "ca.pem"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.endpoint = f"https://127.0.0.1:{port}"
        self.issuer.write_to(self._directory / "issuer.json")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(self._directory / "server.pem")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(ENVIRONMENTS / "ministack/bin/python", Path(__file__).with_name("ministack_process.py")),
                    self._directory,
                ],
                env=self._environment(port),
                cwd=self._directory,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        self._temporary.cleanup()

    def client(self, service: str, **credentials: str) -> Any:
        """A boto3 client, with the credentials of the account's root or others (boto3's names)."""
        credentials = credentials or {name.lower(): value for name, value in ROOT_USER.items()}
        key = (service, credentials["aws_access_key_id"])
        if key not in self._clients:
            self._clients[key] = self._session.client(
                service,  # type: ignore[call-overload]
                region_name=self.region,
                endpoint_url=self.endpoint,
                verify=str(self.ca),
                config=Config(proxies={}),
                **credentials,
            )
        return self._clients[key]

    def deploy(self, parameters: Mapping[str, str], stack: str = "vpcep-rename") -> Stack:
        """Build and deploy template.yml with the SAM CLI; a second time updates the stack."""
        template = build()
        self._sam(
            "deploy",
            *("--template-file", str(template), "--stack-name", stack, "--config-file", str(ROOT / "samconfig.toml")),
            *("--no-progressbar", "--parameter-overrides"),
            *(f"{name}={value}" if value else f'{name}=""' for name, value in parameters.items()),
        )
        cloudformation = self.client("cloudformation")
        described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        resources = cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
        return Stack(
            name=stack,
            outputs={output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]},
            resources={resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources},
        )

    def kill(self, function: str) -> int:
        """SIGKILL the processes that run a function, by its name; how many there were. Needs /proc.

        They are children of MiniStack, which starts each in a directory named after its function.
        """
        killed = 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                command = (process / "cmdline").read_text()
                if int(parent) == self._process.pid and f"/ministack-lambda-{function}-" in command:
                    os.kill(int(process.name), signal.SIGKILL)
                    killed += 1
                    while (process / "cmdline").read_text():
                        time.sleep(0.005)
        return killed

    def sam_environment(self) -> dict[str, str]:
        """The environment of a SAM CLI that uses this cloud."""
        return (
            sam_environment(self._directory)
            | ROOT_USER
            | {
                "AWS_ENDPOINT_URL": self.endpoint,
                "AWS_CA_BUNDLE": str(self.ca),
                "AWS_DEFAULT_REGION": self.region,
                "SAM_CLI_POLL_DELAY": "0.1",
            }
        )

    def tail(self, lines: int = 60) -> str:
        """The end of MiniStack's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _environment(self, port: int) -> dict[str, str]:
        # Functions inherit it: it must not have variables of the caller.
        return ROOT_USER | {
            "PATH": os.environ["PATH"],
            "HOME": str(self._directory),
            "TMPDIR": str(self._directory),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "AUTH": "true",
            "USE_SSL": "1",
            "MINISTACK_SSL_CERT": str(self._directory / "server.pem"),
            "MINISTACK_SSL_KEY": str(self._directory / "server.pem"),
            "AWS_CA_BUNDLE": str(self.ca),
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": self.region,
            "DOCKER_HOST": f"unix://{self._directory}/no-docker",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "STATE_DIR": str(self._directory / "state"),
            "S3_DATA_DIR": str(self._directory / "s3"),
        }

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        with urllib3.PoolManager(ca_certs=str(self.ca), retries=False, timeout=5) as pool:
            while self._process.poll() is None and time.monotonic() < deadline:
                with suppress(urllib3.exceptions.HTTPError):
                    if pool.request("GET", f"{self.endpoint}/_ministack/ready").status == HTTPStatus.OK:
                        return
                time.sleep(0.05)
        raise LocalAwsError(f"MiniStack did not start.\n{self.tail()}")

    def _sam(self, *arguments: str) -> None:
        try:
            run_sam(*arguments, environment=self.sam_environment(), seconds=DEPLOYMENT_SECONDS)
        except LocalAwsError as error:
            raise LocalAwsError(f"{error}\n{self.tail()}") from None


def sam_environment(directory: Path) -> dict[str, str]:
    """This process's environment without its AWS settings, for a SAM CLI that does not look for newer versions.

    Its temporary files are in the directory. The loopback interface is reached without a proxy.
    """
    (directory / "sam").mkdir(exist_ok=True)
    settings = {"lastVersionCheck": time.time(), "telemetryEnabled": False}
    (directory / "sam/metadata.json").write_text(json.dumps(settings))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {
        **no_proxy_on_loopback(),
        "__SAM_CLI_APP_DIR": str(directory / "sam"),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "PYTHONIOENCODING": "utf-8",
        "TMPDIR": str(directory),
    }


def no_proxy_on_loopback() -> dict[str, str]:
    """Environment variables that add the loopback interface to the hosts without a proxy."""
    hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")  # in this order, as Python looks them up
    no_proxy = ",".join(filter(None, [hosts, "127.0.0.1", "localhost"]))
    return {"no_proxy": no_proxy, "NO_PROXY": no_proxy}


def run_sam(*arguments: str, environment: Mapping[str, str], seconds: float) -> None:
    """Run the SAM CLI in the checkout; its output is shown only where it fails.

    All processes that it has started end with it, also after an interrupt.
    """
    with subprocess.Popen(
        [ENVIRONMENTS / "sam/bin/sam", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise LocalAwsError(f"sam {arguments[0]} failed.\n{printed}")


def build() -> Path:
    """`sam build` for MiniStack, which runs functions with its own interpreter; the template's path.

    Unchanged sources are not built again.
    """
    package = package_environment()
    template = BUILD / "build" / "template.yaml"
    record = BUILD / "built-from"
    BUILD.mkdir(parents=True, exist_ok=True)
    with _locked(BUILD / "lock"), tempfile.TemporaryDirectory() as directory:
        sources = _digest() + json.dumps(package)
        if not template.exists() or not record.exists() or record.read_text() != sources:
            record.unlink(missing_ok=True)
            environment = sam_environment(Path(directory)) | package
            run_sam("build", "--build-dir", str(template.parent), environment=environment, seconds=600)
            record.write_text(sources)
    return template


def package_environment() -> dict[str, str]:
    """The environment of a make that builds for this machine."""
    package = {"PACKAGE_PYTHON": "{}.{}".format(*sys.version_info), "PYTHON": sys.executable}
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        package["PACKAGE_PLATFORM"] = ""
    return package


def _digest() -> str:
    digest = hashlib.sha256()
    sources = [path for path in (ROOT / "function").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in sorted([ROOT / "template.yml", ROOT / "Makefile", ROOT / "requirements.txt", *sources]):
        digest.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
