"""vpcep-rename on local clouds: without and through a deployed stack, with faults, killed, resumed, and undone.

And the commands of README.md and docs/command.md, with what they print.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.commands import run
from tests.documents import block
from tests.integration.observer import (
    RENAME_FAILED,
    RENAMED,
    a_rename,
    a_service,
    abandon,
    key_of_producer,
    ledger_table,
    let_claims_expire,
    outcome_of,
)
from tests.localcloud.aws import ROOT
from tests.localcloud.huawei import Call, HuaweiCloud
from tests.localcloud.stack import LOCAL_ACCOUNT, Clouds

LINES: Final = 200
CALL_SECONDS: Final = 0.05
# Reads and renames each service, one after the other, as a script over the SDK does; prints the seconds it took.
SDK_LOOP: Final = """
import csv, os, sys, time
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkvpcep.v1 import *
key = BasicCredentials(*(os.environ[f"HUAWEICLOUD_SDK_{name}"] for name in ("AK", "SK", "PROJECT_ID")))
region = Region("cn-north-4", os.environ["HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4"])
client = VpcepClient.new_builder().with_credentials(key).with_region(region).build()
with open(sys.argv[1]) as file:
    rows = list(csv.DictReader(file))
began = time.monotonic()
for row in rows:
    service_id, name = row["vpc_endpoint_service_id"], row["endpoint_service_name"]
    client.list_service_details(ListServiceDetailsRequest(service_id))
    body = UpdateEndpointServiceNameRequestBody(name)
    client.update_endpoint_service_name(UpdateEndpointServiceNameRequest(service_id, body))
print(time.monotonic() - began)
"""


class Done(NamedTuple):
    out: str
    err: str


class Operator:
    """Types commands, in a directory of their own, without a terminal."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": str(ROOT), **environment}

    def run(self, *arguments: str | Path, status: int = 0, **variables: str) -> Done:
        """What a command printed, which must exit with the status."""
        with self.start(*arguments, **variables) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == status, err
        return Done(out, err)

    def apply(self, names: Mapping[str, str], *arguments: str, status: int = 0, **variables: str) -> Done:
        return self.run("apply", self.file(names), *arguments, status=status, **variables)

    def start(self, *arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cli", *arguments],
            cwd=self.directory,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def file(self, names: Mapping[str, str], name: str = "names.csv") -> Path:
        path = self.directory / name
        rows = "".join(f"{service_id},{new_name}\n" for service_id, new_name in names.items())
        path.write_text(f"vpc_endpoint_service_id,endpoint_service_name\n{rows}")
        return path

    def results(self) -> list[dict[str, str]]:
        with (self.directory / "names.results.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def plans(self) -> dict[str, dict[str, str]]:
        """The last plan for each endpoint service, by its id."""
        return {row["vpc_endpoint_service_id"]: row for row in self.results() if row["record"] == "plan"}

    @contextlib.contextmanager
    def a_third_applied(self, names: Mapping[str, str], huawei: HuaweiCloud) -> Iterator[subprocess.Popen[str]]:
        """An `apply` that has renamed a third of the endpoint services."""
        huawei.fail(kind="slow", times=None, delay=CALL_SECONDS)
        with self.start("apply", self.file(names), "--yes") as process:
            while len(renames(huawei)) < len(names) // 3:
                assert process.poll() is None
                time.sleep(0.01)
            yield process


def services(huawei: HuaweiCloud, number: int = LINES) -> tuple[dict[str, str], dict[str, str]]:
    """New endpoint services: their old names and new ones, by id."""
    ids = [str(uuid.uuid4()) for _ in range(number)]
    old = {service_id: f"old-{n}" for n, service_id in enumerate(ids)}
    for service_id, name in old.items():
        huawei.add_service(service_id, name)
    return old, {service_id: f"new-{n}" for n, service_id in enumerate(ids)}


def names(huawei: HuaweiCloud, ids: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    return {service_id: huawei.name_of(service_id) for service_id in ids}


def renames(huawei: HuaweiCloud) -> list[Call]:
    return [call for call in huawei.calls if call.operation == "rename"]


def local_huawei_cloud() -> HuaweiCloud:
    return HuaweiCloud(LOCAL_ACCOUNT.ak, LOCAL_ACCOUNT.sk, LOCAL_ACCOUNT.project_id, LOCAL_ACCOUNT.region)


def key_of_huawei_cloud(huawei: HuaweiCloud) -> dict[str, str]:
    return {
        "HUAWEICLOUD_REGION": LOCAL_ACCOUNT.region,
        "HUAWEICLOUD_SDK_AK": LOCAL_ACCOUNT.ak,
        "HUAWEICLOUD_SDK_SK": LOCAL_ACCOUNT.sk,
        "HUAWEICLOUD_SDK_PROJECT_ID": LOCAL_ACCOUNT.project_id,
        "HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4": huawei.url,
    }


@pytest.fixture(scope="module")
def cloud() -> Iterator[HuaweiCloud]:
    with local_huawei_cloud() as cloud:
        yield cloud


@pytest.fixture
def huawei(cloud: HuaweiCloud) -> HuaweiCloud:
    cloud.reset()
    return cloud


@pytest.fixture
def operator(huawei: HuaweiCloud, tmp_path: Path) -> Operator:
    """With a key for Huawei Cloud, and nothing of AWS."""
    return Operator(tmp_path, key_of_huawei_cloud(huawei))


def test_apply_renames_two_hundred_services_despite_faults(operator: Operator, huawei: HuaweiCloud) -> None:
    old, new = services(huawei)
    file = operator.file(new)
    unknown = str(uuid.uuid4())
    file.write_text(f"{file.read_text()}{unknown},lost\n")
    huawei.fail(500, "EndPoint.0001", times=5, on="any")
    huawei.fail(504, "EndPoint.0013", times=5, applied=True)
    huawei.fail(kind="reset", times=3, applied=True)
    huawei.fail(kind="garbage", times=3, body="<html>")

    done = operator.run("apply", file, "--yes", "--json", status=1)

    assert names(huawei, new) == new
    outcomes = [json.loads(line) for line in done.out.splitlines()]
    assert {outcome["data"]["vpc_endpoint_service_id"] for outcome in outcomes} == set(new)
    assert all("error" not in outcome["data"] for outcome in outcomes)
    last = {row["vpc_endpoint_service_id"]: row for row in operator.results()}
    assert last.pop(unknown)["error_code"] == "EndPoint.2003"
    results = {(row["record"], row["result"]) for row in last.values() if row["record"] != "input"}
    assert results == {("outcome", "renamed")}
    assert "200 renamed" in done.err
    assert "1 failed" in done.err
    assert {service_id: plan["old_name"] for service_id, plan in operator.plans().items()} == old


def test_undo_skips_a_service_that_has_been_renamed_since(operator: Operator, huawei: HuaweiCloud) -> None:
    old, new = services(huawei, 20)
    changed, *others = new
    operator.apply(new, "--yes")
    huawei.add_service(changed, "somebody-else-s")

    done = operator.run("undo", "names.results.csv", "--yes", status=1)

    assert names(huawei, others) == {service_id: old[service_id] for service_id in others}
    assert huawei.name_of(changed) == "somebody-else-s"
    assert "'somebody-else-s' by now" in done.out
    huawei.reset()
    operator.run("undo", "names.results.csv", "--yes", status=1)
    assert renames(huawei) == []


def test_apply_after_an_undo_renames_again_with_new_ids(operator: Operator, huawei: HuaweiCloud) -> None:
    old, new = services(huawei, 5)
    file = operator.file(new)
    for command in (("apply", file), ("undo", "names.results.csv"), ("apply", file)):
        operator.run(*command, "--yes")

    plans = [row for row in operator.results() if row["record"] == "plan"]
    assert names(huawei, new) == new
    assert len(plans) == len({row["event_id"] for row in plans}) == 10
    assert [row["old_name"] for row in plans if row["vpc_endpoint_service_id"] == next(iter(old))] == ["old-0"] * 2


def test_undo_skips_an_old_name_that_a_setting_forbids(operator: Operator, huawei: HuaweiCloud) -> None:
    old, new = services(huawei, 3)
    long = next(iter(new))
    huawei.add_service(long, "a-name-of-before-the-limit")
    operator.apply(new, "--yes")

    done = operator.run("undo", "names.results.csv", "--yes", status=1)

    assert "must have at most 16 characters" in done.out
    assert names(huawei, new) == old | {long: new[long]}


def test_killed_apply_is_resumed_with_the_ids_of_its_plan(operator: Operator, huawei: HuaweiCloud) -> None:
    old, new = services(huawei)
    with operator.a_third_applied(new, huawei) as process:
        process.kill()
    done_before = [row for row in operator.results() if row["result"] == "renamed"]
    plans = operator.plans()
    assert 0 < len(done_before) < LINES
    assert len(plans) == LINES
    huawei.reset()

    done = operator.apply(new, "--yes", "--json")

    assert names(huawei, new) == new
    assert operator.plans() == plans
    assert {row["old_name"] for row in plans.values()} == set(old.values())
    sent = {call.service_id for call in renames(huawei)}
    assert sent.isdisjoint(row["vpc_endpoint_service_id"] for row in done_before)
    outcomes = [json.loads(line)["data"]["request"] for line in done.out.splitlines()]
    assert {outcome["id"] for outcome in outcomes} == {plans[str(service_id)]["event_id"] for service_id in sent}
    assert {outcome["time"] for outcome in outcomes} <= {row["event_time"] for row in plans.values()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_apply_keeps_its_results(operator: Operator, huawei: HuaweiCloud, number: signal.Signals) -> None:
    _, new = services(huawei)
    with operator.a_third_applied(new, huawei) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=30)

    assert process.returncode == 130, err
    renamed = {service_id for service_id in new if huawei.name_of(service_id) == new[service_id]}
    kept = {row["vpc_endpoint_service_id"] for row in operator.results() if row["result"] == "renamed"}
    assert kept == renamed != set(new)
    assert f"{len(kept)} renamed" in out


def test_apply_with_results_of_another_input_exits_with_2(operator: Operator, huawei: HuaweiCloud) -> None:
    _, new = services(huawei, 2)
    operator.apply(new, "--yes")
    huawei.reset()

    done = operator.run("apply", operator.file({next(iter(new)): "other"}), "--yes", status=2)

    assert "of another input" in done.err
    assert huawei.calls == []


def test_dry_run_of_apply_changes_nothing(operator: Operator, huawei: HuaweiCloud) -> None:
    old, new = services(huawei)
    huawei.fail(500, "EndPoint.0001", times=5, on="any")

    done = operator.apply(new, "--dry-run")

    assert "200 would be renamed" in done.out
    assert names(huawei, old) == old
    assert {call.method for call in huawei.calls} == {"GET"}
    assert [path.name for path in operator.directory.glob("*.csv")] == ["names.csv"]


def test_throttled_apply_renames_all_services(operator: Operator, huawei: HuaweiCloud) -> None:
    _, new = services(huawei, 40)
    huawei.throttle(60, seconds=1, retry_after=1)

    operator.apply(new, "--yes")

    assert names(huawei, new) == new
    assert any(call.status == 429 for call in huawei.calls)


def test_apply_with_a_wrong_key_stops_after_a_few_calls(operator: Operator, huawei: HuaweiCloud) -> None:
    _, new = services(huawei)

    done = operator.apply(new, "--yes", HUAWEICLOUD_SDK_SK="wrong", status=1)

    assert "HUAWEICLOUD_SDK_SK" in done.err
    assert "wrong" not in done.out + done.err
    assert 0 < len(huawei.calls) < 5


def test_interrupted_rename_exits_with_130(operator: Operator, huawei: HuaweiCloud) -> None:
    [service_id] = services(huawei, 1)[1]
    huawei.fail(500, "EndPoint.0001", times=None, on="any")

    with operator.start("rename", service_id, "orders") as process:
        while not huawei.calls:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err


def test_list_does_not_apply_the_naming_policy(operator: Operator, huawei: HuaweiCloud) -> None:
    services(huawei, 2)

    assert len(operator.run("list", "--csv", NAME_PATTERN="[a-z]+").out.splitlines()) >= 2
    assert "--region" in operator.run("list", "--region", "nowhere-1", status=2).err


def test_list_has_all_pages_and_its_csv_can_be_applied(operator: Operator, huawei: HuaweiCloud) -> None:
    _, new = services(huawei, 250)

    listed = operator.run("list", "--csv")

    rows = list(csv.DictReader(listed.out.splitlines()))
    found = {row["vpc_endpoint_service_id"]: row["endpoint_service_name"] for row in rows}
    assert {service_id: found[service_id] for service_id in new} == names(huawei, new)
    assert len(rows) == len(found)
    edited = operator.directory / "names.csv"
    edited.write_text(listed.out.replace(f"{next(iter(new))},old-0,", f"{next(iter(new))},edited,"))
    operator.run("apply", edited, "--yes")
    assert [call.name for call in renames(huawei)] == ["edited"]


def test_rename_command_with_dry_run_expected_name_and_json(operator: Operator, huawei: HuaweiCloud) -> None:
    [service_id] = services(huawei, 1)[0]

    dry = operator.run("rename", service_id, "orders", "--dry-run")
    wrong = operator.run("rename", service_id, "orders", "--expect", "billing", status=1)
    done = operator.run("rename", service_id, "orders", "--expect", "old-0", "--json")

    assert dry.out.startswith(f"{service_id}: 'old-0' → 'orders'")
    assert "Rename.PreconditionFailed" in wrong.out
    assert json.loads(done.out)["data"]["previous_service_name"].split(".")[1] == "old-0"
    assert huawei.name_of(service_id) == "orders"


def test_rename_command_imports_no_client_of_aws(operator: Operator, huawei: HuaweiCloud) -> None:
    [service_id], _ = services(huawei, 1)
    script = (
        "import atexit, sys\n"
        "from cli.main import main\n"
        "atexit.register(lambda: print(sorted({'boto3', 'botocore'} & sys.modules.keys())))\n"
        f"sys.argv[1:] = ['rename', {service_id!r}, 'orders', '--json']\n"
        "main()\n"
    )

    done = run(sys.executable, "-c", script, cwd=operator.directory, env=operator.environment)

    outcome, modules = done.stdout.splitlines()
    assert json.loads(outcome)["data"]["service_name"] == "orders"
    assert modules == "[]"


def test_apply_is_four_times_as_fast_as_a_loop_over_the_sdk(operator: Operator, huawei: HuaweiCloud) -> None:
    _, of_loop = services(huawei)
    _, of_command = services(huawei)
    huawei.fail(kind="slow", times=None, delay=CALL_SECONDS, on="any")

    loop = run(
        *(sys.executable, "-c", SDK_LOOP, operator.file(of_loop, "loop.csv")), env=operator.environment, seconds=120
    )
    before = len(huawei.calls)
    with operator.start("apply", operator.file(of_command), "--yes") as process:
        _, err = process.communicate(timeout=120)
        ended = time.time()
    first_read = huawei.calls[before].time

    assert process.returncode == 0, err
    assert names(huawei, of_loop) == of_loop
    assert names(huawei, of_command) == of_command
    assert ended - first_read <= 0.25 * float(loop.stdout)


def test_apply_without_a_terminal_and_without_yes_does_nothing(operator: Operator, huawei: HuaweiCloud) -> None:
    _, new = services(huawei, 2)

    done = operator.apply(new, status=2)

    assert "add --yes" in done.err
    assert huawei.calls == []
    assert not (operator.directory / "names.results.csv").exists()


def test_output_without_a_terminal_has_no_escape_sequences(operator: Operator, huawei: HuaweiCloud) -> None:
    _, new = services(huawei, 2)

    done = operator.apply(new, "--yes", NO_COLOR="1", CI="true")

    assert "\x1b" not in done.out + done.err
    assert "Renaming: 2 of 2" in done.err


def test_output_in_ascii_has_no_arrow(operator: Operator, huawei: HuaweiCloud) -> None:
    _, new = services(huawei, 2)

    done = operator.apply(new, "--dry-run", PYTHONIOENCODING="ascii")

    assert "? 'new-0'" in done.out


def test_missing_settings_are_named(operator: Operator) -> None:
    done = operator.run("list", HUAWEICLOUD_SDK_SK="", HUAWEICLOUD_REGION=" ", status=2)

    assert "Not set: HUAWEICLOUD_REGION, HUAWEICLOUD_SDK_SK." in done.err


def test_malformed_settings_are_named_without_their_values(operator: Operator) -> None:
    done = operator.run("list", HUAWEICLOUD_SDK_SK="two words", HUAWEICLOUD_REGION="North 4", status=2)

    assert "HUAWEICLOUD_REGION is malformed" in done.err
    assert "HUAWEICLOUD_SDK_SK is malformed" in done.err
    assert "two words" not in done.err


def test_apply_of_invalid_names_makes_no_call(operator: Operator, huawei: HuaweiCloud) -> None:
    done = operator.run("apply", operator.file({"one": "not a name", "two": "x" * 17}), "--yes", status=2)

    assert "line 2: endpoint_service_name" in done.err
    assert "line 3: endpoint_service_name must have at most 16 characters" in done.err
    assert huawei.calls == []


def test_apply_of_a_name_against_the_naming_policy_makes_no_call(operator: Operator, huawei: HuaweiCloud) -> None:
    file = operator.file({"one": "orders", "two": "Orders"})

    done = operator.run("apply", file, "--yes", NAME_PATTERN="[a-z]*", status=2)
    malformed = operator.run("apply", file, "--yes", NAME_PATTERN="[a-z", status=2)

    assert "has 1 problem" in done.err
    assert "line 3: endpoint_service_name" in done.err
    assert "NAME_PATTERN is malformed" in malformed.err
    assert huawei.calls == []


@pytest.mark.parametrize("arguments", [["apply"], ["rename", "one"], ["undo"], ["watch"], ["no-command"]])
def test_wrong_usage_exits_with_2(operator: Operator, arguments: list[str]) -> None:
    operator.run(*arguments, status=2)


class TestThroughAStack:
    """`watch` and `redrive`, and one rename, by the deployed API."""

    @pytest.fixture
    def operator(self, clouds: Clouds, tmp_path: Path) -> Operator:
        """With AWS credentials of an administrator of the stack, and no key for Huawei Cloud."""
        return Operator(tmp_path, clouds.aws.sam_environment())

    def test_rename_through_a_stack_prints_the_published_outcome(self, operator: Operator, clouds: Clouds) -> None:
        service_id = a_service(clouds)
        operator.environment |= key_of_producer(clouds)

        done = operator.run("rename", service_id, "orders", "--api-url", clouds.rename_api_url, "--json")

        assert clouds.huawei.name_of(service_id) == "orders"
        assert [json.loads(done.out)] == clouds.outcomes()

    def test_apply_and_undo_through_a_stack_succeed_despite_faults(self, operator: Operator, clouds: Clouds) -> None:
        old, new = services(clouds.huawei)
        file = operator.file(new)
        way = ("--api-url", clouds.rename_api_url)
        clouds.huawei.fail(500, "EndPoint.0001", times=5, on="any")
        clouds.huawei.fail(504, "EndPoint.0013", times=3, applied=True)
        clouds.huawei.fail(kind="reset", times=3, applied=True)

        done = operator.run("apply", file, "--yes", "--json", *way)

        assert names(clouds.huawei, new) == new
        printed = [json.loads(line)["id"] for line in done.out.splitlines()]
        published = {outcome["id"] for outcome in clouds.outcomes(wait_for=LINES)}
        assert published == set(printed)
        assert len(printed) == LINES

        let_claims_expire(clouds)  # of renames in doubt, which nothing may overtake for a minute
        operator.run("undo", "names.results.csv", "--yes", *way)

        assert names(clouds.huawei, old) == old

    def test_dry_run_of_apply_through_a_stack_changes_nothing(self, operator: Operator, clouds: Clouds) -> None:
        old, new = services(clouds.huawei, 20)
        items = ledger_items(clouds)

        done = operator.apply(new, "--dry-run", "--api-url", clouds.rename_api_url)

        assert "20 would be renamed" in done.out
        assert names(clouds.huawei, old) == old
        assert {call.method for call in clouds.huawei.calls} == {"GET"}
        assert ledger_items(clouds) == items
        assert clouds.outcomes_so_far() == []
        assert [path.name for path in operator.directory.glob("*.csv")] == ["names.csv"]

    def test_error_of_wrong_aws_credentials_names_the_permission(self, operator: Operator, clouds: Clouds) -> None:
        done = operator.run(
            *("rename", "one", "orders", "--api-url", clouds.rename_api_url),
            AWS_ACCESS_KEY_ID=clouds.producer.access_key,
            AWS_SECRET_ACCESS_KEY="wrong",
            status=1,
        )

        assert "execute-api:Invoke" in done.err
        assert clouds.huawei.calls == []

    def test_watch_without_an_outcome_log_names_the_parameter_to_set(self, operator: Operator, clouds: Clouds) -> None:
        done = operator.run("watch", "--stack", clouds.stack.name, status=1)

        assert "OutcomeLogDays" in done.err

    def test_missing_stack_is_an_error_that_names_it(self, operator: Operator) -> None:
        done = operator.run("redrive", "--stack", "no-such-stack", status=1)

        assert "no-such-stack" in done.err

    def test_redrive_command_returns_dead_letters_to_the_queue(self, operator: Operator, fast: Clouds) -> None:
        event = a_rename(fast)
        abandon(fast, event)

        done = operator.run("redrive", "--stack", fast.stack.name)

        assert done.out == "1 dead letter is back in the queue.\n"
        assert outcome_of(fast, event)["type"] == RENAMED

    @pytest.fixture
    def log_group(self, clouds: Clouds) -> Iterator[str]:
        """The outcome log of a stack that has nothing else; MiniStack's rules do not write to logs."""
        resources = {"OutcomeLog": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "outcomes"}}}
        cloudformation, logs = clouds.aws.client("cloudformation"), clouds.aws.client("logs")
        cloudformation.create_stack(StackName="logged", TemplateBody=json.dumps({"Resources": resources}))
        cloudformation.get_waiter("stack_create_complete").wait(StackName="logged", WaiterConfig={"Delay": 1})
        logs.create_log_stream(logGroupName="outcomes", logStreamName="events")
        yield "outcomes"
        cloudformation.delete_stack(StackName="logged")

    def test_watch_shows_outcomes_as_they_are_logged(self, operator: Operator, clouds: Clouds, log_group: str) -> None:
        def log(name: str, **more: str) -> str:
            line = {"outcome_type": RENAMED, "time": "2026-11-25T00:00:00Z", **more}
            message = json.dumps(line | {"vpc_endpoint_service_id": "one", "endpoint_service_name": name})
            event = {"timestamp": int(time.time() * 1000), "message": message}
            clouds.aws.client("logs").put_log_events(logGroupName=log_group, logStreamName="events", logEvents=[event])
            return message

        first = log("orders")
        with operator.start("watch", "--stack", "logged", "--since", "5", "--json") as process:
            assert process.stdout
            assert process.stdout.readline() == f"{first}\n"
            second = log("cases", outcome_type=RENAME_FAILED, error_code="EndPoint.2003")
            assert process.stdout.readline() == f"{second}\n"
            process.send_signal(signal.SIGINT)
            rest, err = process.communicate(timeout=30)
        shown = operator.run("watch", "--stack", "logged", "--since", "5", "--no-follow")

        assert (process.returncode, rest) == (130, ""), err
        assert [line.split("  ")[2] for line in shown.out.splitlines()] == [
            "renamed to 'orders'",
            "failed (EndPoint.2003): 'cases'",
        ]


class TestDocuments:
    """The commands of docs/command.md and README.md, and what they print."""

    NAMES: Final = {
        "070c4a63-8a62-448e-89ed-f2cbde8e6a3b": "billing",
        "1b6f2d90-5c1e-4a77-9a3e-7d2f8e4b6c15": "legacy1",
        "2c9a4e17-3b8d-4f60-8e21-5a6b7c8d9e0f": "legacy2",
    }
    EDITED: Final = "docs/command.md", "vpc_endpoint_service_id,"

    @pytest.fixture
    def huawei(self) -> Iterator[HuaweiCloud]:
        with local_huawei_cloud() as cloud:
            for service_id, name in self.NAMES.items():
                cloud.add_service(service_id, name)
            yield cloud

    def type_and_compare(self, operator: Operator, text: str) -> None:
        for session in text.removeprefix("$ ").split("\n$ "):
            command, *printed = session.splitlines()
            words, _, redirected = command.partition(" > ")
            done = operator.run(*shlex.split(words)[1:])
            if redirected:
                (operator.directory / redirected).write_text(done.out)
            else:
                shown = done.out + ("" if "endpoint services\n" not in done.err else done.err)
                assert [line.rstrip() for line in shown.splitlines()] == printed
            if command == "vpcep-rename list --csv > names.csv":
                header, *unedited = done.out.splitlines()
                edited = block(*self.EDITED).splitlines()
                assert edited[0] == header
                assert [line.split(",")[0] for line in edited] == [line.split(",")[0] for line in (header, *unedited)]
                (operator.directory / redirected).write_text(block(*self.EDITED))

    def test_documented_session_edits_applies_and_undoes_a_file(self, operator: Operator, huawei: HuaweiCloud) -> None:
        for start in ("$ vpcep-rename list\n", "$ vpcep-rename apply "):
            self.type_and_compare(operator, block("docs/command.md", start))

        assert names(huawei, self.NAMES) == self.NAMES

    def test_session_in_the_readme_prints_what_is_documented(self, operator: Operator) -> None:
        self.type_and_compare(operator, block("README.md", "$ vpcep-rename list "))

    def test_documented_rename_command_renames_the_service(self, operator: Operator, huawei: HuaweiCloud) -> None:
        command = block("docs/command.md", "vpcep-rename rename ")

        operator.run(*shlex.split(command)[1:])
        assert huawei.name_of("070c4a63-8a62-448e-89ed-f2cbde8e6a3b") == "payments"


def test_apply_on_a_terminal_asks_and_shows_progress(operator: Operator, huawei: HuaweiCloud) -> None:
    _, new = services(huawei, 5)
    operator.file(new)

    shown = in_terminal(operator, "y\n")

    assert f"Rename 5 endpoint services at {huawei.url}, project {LOCAL_ACCOUNT.project_id}? [y/N]" in shown
    assert "5/5" in shown
    assert names(huawei, new) == new


def test_apply_that_is_declined_on_a_terminal_renames_nothing(operator: Operator, huawei: HuaweiCloud) -> None:
    old, new = services(huawei, 5)
    operator.file(new)

    shown = in_terminal(operator, "\n")

    assert "Nothing has been renamed." in shown
    assert names(huawei, old) == old
    assert not (operator.directory / "names.results.csv").exists()


def ledger_items(clouds: Clouds) -> list[str]:
    pages = clouds.aws.client("dynamodb").get_paginator("scan").paginate(TableName=ledger_table(clouds))
    return sorted(json.dumps(item, sort_keys=True) for page in pages for item in page["Items"])


def in_terminal(operator: Operator, answer: str) -> str:
    """What `apply` shows on a terminal, where the answer is typed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "apply", "names.csv"],
        cwd=operator.directory,
        env=operator.environment | {"TERM": "xterm-256color", "COLUMNS": "200"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, answer.encode())
        with contextlib.suppress(OSError):  # Linux says so when the other end is closed
            while read := os.read(ours, 4096):
                shown += read
    os.close(ours)
    return shown.decode()
