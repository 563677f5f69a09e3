"""`make up` as a person uses it: what it prints is typed into another shell, and what happens is seen in its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import urllib3

from tests.documents import block
from tests.integration.test_run import HOSTILE, left_behind, read_until, started
from tests.localcloud import up
from tests.localcloud.aws import ENVIRONMENTS, ROOT, build
from tests.localcloud.monitor import FAULTS

REAL_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "AKIAREAL",
    "AWS_SECRET_ACCESS_KEY": "real-secret",
    "AWS_SESSION_TOKEN": "real-token",
    "HUAWEICLOUD_SDK_AK": "REAL",
    "HUAWEICLOUD_SDK_SK": "real-secret",
    "HUAWEICLOUD_SDK_SECURITY_TOKEN": "real-token",
    "HUAWEICLOUD_REGION": "eu-west-101",
    "HUAWEICLOUD_CREDENTIALS_SECRET": "real",
}
READY: Final = "until Ctrl-C"
SECONDS: Final = 60.0


class MakeUp:
    """The command, and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._read = threading.Condition()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._read:
                self.lines.append(line.rstrip("\n"))
                self._read.notify_all()

    def wait_for(self, pattern: str, after: int = 0, seconds: float = SECONDS) -> str:
        """The first line, of those after so many, in which the pattern is found."""

        def found() -> list[str]:
            return [line for line in self.lines[after:] if re.search(pattern, line)]

        with self._read:
            if self._read.wait_for(found, timeout=seconds):
                return found()[0]
        pytest.fail(f"no {pattern!r} in {seconds:.0f} s, but:\n" + "\n".join(self.lines[after:]))

    def printed_command(self, start: str) -> str:
        [command] = [line.strip() for line in self.lines if line.startswith(f"  {start}")]
        return command

    @property
    def environment_file(self) -> str:
        return self.printed_command(". ").removeprefix(". ")

    def type(self, *commands: str, shell: str = "bash") -> str:
        """Type the line that sources the file and commands into another shell; what those printed."""
        environment = {"PATH": f"{ENVIRONMENTS / 'awscli/bin'}:/usr/bin:/bin", "HOME": "/gone"} | HOSTILE | REAL_KEYS
        done = subprocess.run(
            [shell, "-euc", "\n".join([self.printed_command(". "), *commands])],
            cwd=ROOT,
            env=environment | {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )
        # curl shows its progress, for what it prints is no terminal.
        errors = [line for line in done.stderr.splitlines() if not re.match(r" +% Total| +Dload| *\d+ |$", line)]
        assert (done.returncode, errors) == (0, [])
        return done.stdout

    def command_fault(self, name: str) -> None:
        self.type(self.printed_command("curl -d outage ").replace("outage", name))


@contextmanager
def make_up(directory: Path, **environment: str) -> Iterator[MakeUp]:
    with started("up", directory, **environment) as process:
        yield MakeUp(process)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeUp]:
    """One for all tests that only use it, with keys of real clouds and a hostile environment around it."""
    build()  # packages could not be downloaded through the dead proxy
    with make_up(tmp_path_factory.mktemp("up"), **HOSTILE, **REAL_KEYS) as running:
        running.wait_for(READY)
        yield running
        running.process.terminate()
        running.process.wait(20)


def without_times(lines: list[str]) -> list[str]:
    return [re.sub(r"^\d\d:\d\d:\d\d", "", line) for line in lines]


def ended_by(running: MakeUp, number: int) -> tuple[int, str]:
    """Its exit status and what it wrote to standard error, after a signal to all of the terminal's processes."""
    os.killpg(running.process.pid, number)
    assert running.process.stderr
    errors = running.process.stderr.read()
    return running.process.wait(20), errors


@pytest.mark.parametrize(
    ("start", "service", "name"),
    [("aws sqs send-message ", "SERVICE_ID_1", "orders"), ('curl "$RENAME_API_URL" ', "SERVICE_ID_2", "find")],
)
@pytest.mark.parametrize(
    "shell",
    ["bash", pytest.param("zsh", marks=pytest.mark.skipif(not shutil.which("zsh"), reason="this machine has no zsh"))],
)
def test_command_that_make_up_prints_renames_a_service(
    running: MakeUp, shell: str, start: str, service: str, name: str
) -> None:
    before = len(running.lines)

    replied = running.type(running.printed_command(start), shell=shell)

    assert '"MessageId"' in replied or ".renamed.v1" in replied
    service_id = running.type(f'echo "${service}"').strip()
    assert running.wait_for("outcome", before).endswith(f".renamed.v1: {service_id} is named '{name}'")
    # The previous name is read first.
    _, call = [line for line in running.lines[before:] if "VPCEP" in line]
    assert call.endswith(f"VPCEP    PUT /v1/{{project_id}}/vpc-endpoint-services/{service_id}/name '{name}' ? 200")


def test_command_that_make_up_prints_reads_outcomes(running: MakeUp) -> None:
    before = len(running.lines)
    running.type(running.printed_command("aws sqs send-message "))
    running.wait_for("outcome", before)

    outcomes = json.loads(running.type(running.printed_command("aws sqs receive-message ")))

    details = [json.loads(outcome)["detail"] for outcome in outcomes]
    assert {detail["type"] for detail in details} == {"vpcep.endpoint_service.renamed.v1"}


def test_make_up_shows_log_lines_on_demand(running: MakeUp) -> None:
    before = len(running.lines)
    log_lines = running.printed_command("curl -d on ")

    assert running.type(log_lines) == "Log lines are on.\n"
    running.type(running.printed_command("aws sqs send-message "))

    running.wait_for(r'log +RenameFromQueue: \{.*"message":"rename event handled"', before)
    assert running.type(log_lines.replace("-d on ", "-d off ")) == "Log lines are off.\n"


def test_make_up_shows_an_outage_and_its_end(running: MakeUp) -> None:
    before = len(running.lines)

    try:
        running.command_fault("outage")
        running.type(running.printed_command("aws sqs send-message "))
        running.wait_for(r"VPCEP .* \? 503 APIGW.0613", before)
    finally:
        running.command_fault("none")
    running.wait_for(r"outcome .* is named 'orders'", before, seconds=120)

    documented = block("README.md", "22:06:31  fault ").replace("→", "?")  # the terminal knows ASCII only
    assert [line for line in without_times(documented.splitlines()) if line not in without_times(running.lines)] == []


def test_make_up_prints_the_documented_commands(running: MakeUp) -> None:
    documented = block("docs/integrations.md", ". .build/local.env").splitlines()[1:]

    assert [command for command in documented if f"  {command}" not in running.lines] == []


def test_make_up_lists_each_fault_and_takes_it(running: MakeUp) -> None:
    for name, text in FAULTS.items():
        before = len(running.lines)
        assert any(re.fullmatch(rf"  {name} +{re.escape(text)}", line) for line in running.lines)
        running.command_fault(name)
        running.wait_for(rf"fault +{name}: ", before)


def test_environment_of_make_up_has_no_key_of_a_real_cloud(running: MakeUp) -> None:
    environment = running.type("env")

    assert [name for name in REAL_KEYS if f"{name}=real" in environment or f"{name}=REAL" in environment] == []
    assert "\nAWS_PROFILE=" not in environment
    assert (ROOT / running.environment_file).stat().st_mode & 0o077 == 0


def test_key_of_make_up_may_only_send_events_and_read_outcomes(running: MakeUp) -> None:
    said = running.type(
        'aws sqs receive-message --queue-url "$RENAME_QUEUE_URL" 2>&1 || true', "aws dynamodb list-tables 2>&1 || true"
    )

    assert said.count("AccessDenied") == 2


def test_key_of_make_up_may_describe_the_stack_and_redrive_dead_letters(running: MakeUp) -> None:
    said = running.type(
        "aws cloudformation describe-stacks --stack-name vpcep-rename --query 'Stacks[0].StackName'",
        "function=$(aws cloudformation describe-stack-resource --stack-name vpcep-rename "
        "--logical-resource-id SettleDeadLetters --query StackResourceDetail.PhysicalResourceId --output text)",
        'aws lambda invoke --function-name "$function" --payload \'{"redrive": true}\' /dev/stderr 2>&1',
        'aws logs filter-log-events --log-group-name "$(aws cloudformation describe-stack-resource '
        "--stack-name vpcep-rename --logical-resource-id OutcomeLog "
        "--query StackResourceDetail.PhysicalResourceId --output text)\" --query 'length(events)'",
    )

    assert '"vpcep-rename"' in said
    assert '"StatusCode": 200' in said


def test_second_make_up_has_an_environment_file_of_its_own(running: MakeUp, tmp_path: Path) -> None:
    with make_up(tmp_path) as second:
        second.wait_for(READY)
        port = second.type('echo "$AWS_ENDPOINT_URL"').strip().rpartition(":")[2]
        assert second.environment_file == f".build/local-{port}.env"
        assert (ROOT / running.environment_file).exists()

        assert ended_by(second, signal.SIGTERM)[0] == -signal.SIGTERM

    assert not (ROOT / second.environment_file).exists()
    assert left_behind(tmp_path) == []


def test_page_of_make_up_posts_an_event_to_the_local_api(running: MakeUp) -> None:
    url = running.wait_for("on a page: ").rpartition(" ")[2]
    event: dict[str, Any] = {"vpc_endpoint_service_id": list(up.SERVICES)[2], "endpoint_service_name": "shelf"}

    reply = urllib3.request("POST", f"{url}rename-events", json=event, timeout=SECONDS, retries=False)

    assert (reply.status, reply.json()["data"]["service_name"]) == (200, "shelf")
    assert urllib3.request("GET", f"{url}services", retries=False).json()[list(up.SERVICES)[2]] == "shelf"


def test_make_up_ends_quietly_on_an_interrupt(tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of the terminal, make among them."""
    with make_up(tmp_path) as running:
        running.wait_for(READY)
        path = ROOT / running.environment_file
        printed = len(running.lines)

        assert ended_by(running, signal.SIGINT) == (-signal.SIGINT, "")

        assert running.lines[printed + 1 :] == []
    assert not path.exists()
    assert left_behind(tmp_path) == []


def test_idle_make_up_ends_quietly_when_its_output_is_closed(tmp_path: Path) -> None:
    with started("up", tmp_path) as process:
        read_until(process, READY)
        time.sleep(1.0)
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.wait(20)

        assert (process.returncode, process.stderr.read()) == (0, "")
    assert left_behind(tmp_path) == []


def test_killed_make_up_leaves_no_cloud_behind(tmp_path: Path) -> None:
    with make_up(tmp_path) as running:
        running.wait_for(READY)
        os.killpg(running.process.pid, signal.SIGKILL)
        (ROOT / running.environment_file).unlink()  # else the next one takes it over

    assert left_behind(tmp_path, seconds=10) == []
