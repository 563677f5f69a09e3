"""vpcep-rename on local clouds: directly and through a deployed stack, with faults, killed, resumed, and undone.

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

from tests.documents import block
from tests.integration.observer import abandon, let_claims_expire
from tests.localcloud.aws import ROOT
from tests.localcloud.huawei import Call, HuaweiCloud
from tests.localcloud.stack import LOCAL_ACCOUNT, Clouds, rename_event

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
    status: int
    out: str
    err: str


class Operator:
    """Types commands, in a directory of their own, without a terminal."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": str(ROOT), **environment}

    def run(self, *arguments: str | Path, **variables: str) -> Done:
        with self.start(*arguments, **variables) as process:
            out, err = process.communicate(timeout=120)
        return Done(process.returncode, out, err)

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


@pytest.fixture(scope="module")
def cloud() -> Iterator[HuaweiCloud]:
    account = LOCAL_ACCOUNT
    with HuaweiCloud(account.ak, account.sk, account.project_id, account.region) as cloud:
        yield cloud


@pytest.fixture
def huawei(cloud: HuaweiCloud) -> HuaweiCloud:
    cloud.reset()
    return cloud


@pytest.fixture
def operator(huawei: HuaweiCloud, tmp_path: Path) -> Operator:
    """With a key for Huawei Cloud, and nothing of AWS."""
    return Operator(
        tmp_path,
        {
            "HUAWEICLOUD_REGION": LOCAL_ACCOUNT.region,
            "HUAWEICLOUD_SDK_AK": LOCAL_ACCOUNT.ak,
            "HUAWEICLOUD_SDK_SK": LOCAL_ACCOUNT.sk,
            "HUAWEICLOUD_SDK_PROJECT_ID": LOCAL_ACCOUNT.project_id,
            "HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4": huawei.url,
        },
    )


class TestDirect:
    def test_applies_two_hundred_lines_with_faults_amid(self, operator: Operator, huawei: HuaweiCloud) -> None:
        old, new = services(huawei)
        file = operator.file(new)
        unknown = str(uuid.uuid4())
        with file.open("a") as appended:
            appended.write(f"{unknown},lost\n")
        huawei.fail(500, "EndPoint.0001", times=5, on="any")
        huawei.fail(504, "EndPoint.0013", times=5, applied=True)
        huawei.fail(kind="reset", times=3, applied=True)
        huawei.fail(kind="garbage", times=3, body="<html>")

        done = operator.run("apply", file, "--yes", "--json")

        assert done.status == 1
        assert names(huawei, new) == new
        outcomes = [json.loads(line) for line in done.out.splitlines()]
        assert {outcome["data"]["vpc_endpoint_service_id"] for outcome in outcomes} == set(new)
        assert all("error" not in outcome["data"] for outcome in outcomes)
        last = {row["vpc_endpoint_service_id"]: row for row in operator.results()}
        assert last.pop(unknown)["error_code"] == "EndPoint.2003"
        assert {(row["record"], row["result"]) for row in last.values() if row["record"] != "input"} == {
            ("outcome", "renamed")
        }
        assert "200 renamed" in done.err
        assert "1 failed" in done.err
        planned = {
            row["vpc_endpoint_service_id"]: row["old_name"] for row in operator.results() if row["record"] == "plan"
        }
        assert planned == old

    def test_undo_takes_back_what_still_has_the_name_that_was_given(
        self, operator: Operator, huawei: HuaweiCloud
    ) -> None:
        old, new = services(huawei, 20)
        changed, *others = new
        assert operator.run("apply", operator.file(new), "--yes").status == 0
        huawei.add_service(changed, "somebody-else-s")

        done = operator.run("undo", "names.results.csv", "--yes")

        assert done.status == 1
        assert names(huawei, others) == {service_id: old[service_id] for service_id in others}
        assert huawei.name_of(changed) == "somebody-else-s"
        assert "'somebody-else-s' by now" in done.out
        huawei.reset()
        again = operator.run("undo", "names.results.csv", "--yes")
        assert again.status == 1
        assert renames(huawei) == []

    def test_undone_lines_are_applied_anew_with_new_ids(self, operator: Operator, huawei: HuaweiCloud) -> None:
        old, new = services(huawei, 5)
        file = operator.file(new)
        for command in (("apply", file), ("undo", "names.results.csv"), ("apply", file)):
            assert operator.run(*command, "--yes").status == 0

        plans = [row for row in operator.results() if row["record"] == "plan"]
        assert names(huawei, new) == new
        assert len(plans) == len({row["event_id"] for row in plans}) == 10
        assert [row["old_name"] for row in plans if row["vpc_endpoint_service_id"] == next(iter(old))] == ["old-0"] * 2

    def test_an_old_name_that_a_setting_forbids_is_skipped(self, operator: Operator, huawei: HuaweiCloud) -> None:
        old, new = services(huawei, 3)
        long = next(iter(new))
        huawei.add_service(long, "a-name-of-before-the-limit")
        assert operator.run("apply", operator.file(new), "--yes").status == 0

        done = operator.run("undo", "names.results.csv", "--yes")

        assert done.status == 1
        assert "must have at most 16 characters" in done.out
        assert names(huawei, new) == old | {long: new[long]}

    def test_killed_run_is_resumed_with_the_ids_of_its_plan(self, operator: Operator, huawei: HuaweiCloud) -> None:
        old, new = services(huawei)
        file = operator.file(new)
        huawei.fail(kind="slow", times=None, delay=CALL_SECONDS)
        with operator.start("apply", file, "--yes") as process:
            while len(renames(huawei)) < LINES // 3:
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
        done_before = [row for row in operator.results() if row["result"] == "renamed"]
        plans = {row["vpc_endpoint_service_id"]: row for row in operator.results() if row["record"] == "plan"}
        assert 0 < len(done_before) < LINES
        assert len(plans) == LINES
        huawei.reset()

        done = operator.run("apply", file, "--yes", "--json")

        assert done.status == 0
        assert names(huawei, new) == new
        rows = operator.results()
        assert {row["vpc_endpoint_service_id"]: row for row in rows if row["record"] == "plan"} == plans
        assert {row["old_name"] for row in plans.values()} == set(old.values())
        sent = {call.service_id for call in renames(huawei)}
        assert sent.isdisjoint(row["vpc_endpoint_service_id"] for row in done_before)
        outcomes = [json.loads(line)["data"]["request"] for line in done.out.splitlines()]
        assert {outcome["id"] for outcome in outcomes} == {plans[str(service_id)]["event_id"] for service_id in sent}
        assert {outcome["time"] for outcome in outcomes} <= {row["event_time"] for row in plans.values()}

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupt_keeps_what_has_been_done(
        self, operator: Operator, huawei: HuaweiCloud, number: signal.Signals
    ) -> None:
        _, new = services(huawei)
        huawei.fail(kind="slow", times=None, delay=CALL_SECONDS)
        with operator.start("apply", operator.file(new), "--yes") as process:
            while len(renames(huawei)) < LINES // 3:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)

        assert process.returncode == 130, err
        renamed = {service_id for service_id in new if huawei.name_of(service_id) == new[service_id]}
        kept = {row["vpc_endpoint_service_id"] for row in operator.results() if row["result"] == "renamed"}
        assert kept == renamed != set(new)
        assert f"{len(kept)} renamed" in out

    def test_results_of_another_input_are_exit_2(self, operator: Operator, huawei: HuaweiCloud) -> None:
        _, new = services(huawei, 2)
        assert operator.run("apply", operator.file(new), "--yes").status == 0
        huawei.reset()

        done = operator.run("apply", operator.file({next(iter(new)): "other"}), "--yes")

        assert done.status == 2
        assert "of another input" in done.err
        assert huawei.calls == []

    def test_dry_run_touches_nothing(self, operator: Operator, huawei: HuaweiCloud) -> None:
        old, new = services(huawei)
        huawei.fail(500, "EndPoint.0001", times=5, on="any")

        done = operator.run("apply", operator.file(new), "--dry-run")

        assert done.status == 0
        assert "200 would be renamed" in done.out
        assert names(huawei, old) == old
        assert {call.method for call in huawei.calls} == {"GET"}
        assert [path.name for path in operator.directory.glob("*.csv")] == ["names.csv"]

    def test_throttling_slows_down_and_fails_nothing(self, operator: Operator, huawei: HuaweiCloud) -> None:
        _, new = services(huawei, 40)
        huawei.throttle(60, seconds=1, retry_after=1)

        done = operator.run("apply", operator.file(new), "--yes")

        assert done.status == 0, done.err
        assert names(huawei, new) == new
        assert any(call.status == 429 for call in huawei.calls)

    def test_refused_key_stops_at_once(self, operator: Operator, huawei: HuaweiCloud) -> None:
        _, new = services(huawei)

        done = operator.run("apply", operator.file(new), "--yes", HUAWEICLOUD_SDK_SK="wrong")

        assert done.status == 1
        assert "HUAWEICLOUD_SDK_SK" in done.err
        assert "wrong" not in done.out + done.err
        assert 0 < len(huawei.calls) < 5

    def test_list_pages_through_all_and_gives_a_file_to_apply(self, operator: Operator, huawei: HuaweiCloud) -> None:
        _, new = services(huawei, 250)

        listed = operator.run("list", "--csv")

        rows = list(csv.DictReader(listed.out.splitlines()))
        found = {row["vpc_endpoint_service_id"]: row["endpoint_service_name"] for row in rows}
        assert {service_id: found[service_id] for service_id in new} == names(huawei, new)
        assert len(rows) == len(found)
        edited = operator.directory / "names.csv"
        edited.write_text(listed.out.replace(f"{next(iter(new))},old-0,", f"{next(iter(new))},edited,"))
        assert operator.run("apply", edited, "--yes").status == 0
        assert [call.name for call in renames(huawei)] == ["edited"]

    def test_rename_one(self, operator: Operator, huawei: HuaweiCloud) -> None:
        [service_id] = services(huawei, 1)[0]

        dry = operator.run("rename", service_id, "orders", "--dry-run")
        wrong = operator.run("rename", service_id, "orders", "--expect", "billing")
        done = operator.run("rename", service_id, "orders", "--expect", "old-0", "--json")

        assert dry.out.startswith(f"{service_id}: 'old-0' → 'orders'")
        assert (wrong.status, "Rename.PreconditionFailed" in wrong.out) == (1, True)
        assert done.status == 0
        assert json.loads(done.out)["data"]["previous_service_name"].split(".")[1] == "old-0"
        assert huawei.name_of(service_id) == "orders"

    def test_needs_no_aws(self, operator: Operator, huawei: HuaweiCloud) -> None:
        [service_id] = services(huawei, 1)[0]
        script = (
            "import atexit, sys\n"
            "from cli.main import main\n"
            "atexit.register(lambda: print(sorted({'boto3', 'botocore'} & sys.modules.keys())))\n"
            f"sys.argv[1:] = ['rename', {service_id!r}, 'orders', '--json']\n"
            "main()\n"
        )

        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=operator.directory,
            env=operator.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )

        outcome, modules = done.stdout.splitlines()
        assert json.loads(outcome)["data"]["service_name"] == "orders"
        assert modules == "[]"

    def test_is_faster_than_a_loop_over_the_sdk(self, operator: Operator, huawei: HuaweiCloud) -> None:
        _, of_loop = services(huawei)
        _, of_command = services(huawei)
        huawei.fail(kind="slow", times=None, delay=CALL_SECONDS, on="any")

        loop = subprocess.run(
            [sys.executable, "-c", SDK_LOOP, operator.file(of_loop, "loop.csv")],
            env=operator.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=True,
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


class TestWithoutATerminal:
    def test_apply_asks_nobody_and_does_nothing(self, operator: Operator, huawei: HuaweiCloud) -> None:
        _, new = services(huawei, 2)

        done = operator.run("apply", operator.file(new))

        assert done.status == 2
        assert "add --yes" in done.err
        assert huawei.calls == []
        assert not (operator.directory / "names.results.csv").exists()

    def test_output_has_no_escape_sequences(self, operator: Operator, huawei: HuaweiCloud) -> None:
        _, new = services(huawei, 2)

        done = operator.run("apply", operator.file(new), "--yes", NO_COLOR="1", CI="true")

        assert done.status == 0
        assert "\x1b" not in done.out + done.err
        assert "Renaming: 2 of 2" in done.err

    def test_a_terminal_that_knows_no_arrow(self, operator: Operator, huawei: HuaweiCloud) -> None:
        _, new = services(huawei, 2)

        done = operator.run("apply", operator.file(new), "--dry-run", PYTHONIOENCODING="ascii")

        assert done.status == 0
        assert "? 'new-0'" in done.out


class TestWrongUse:
    def test_settings_that_are_missing_are_named(self, operator: Operator) -> None:
        done = operator.run("list", HUAWEICLOUD_SDK_SK="", HUAWEICLOUD_REGION=" ")

        assert done.status == 2
        assert "Not set: HUAWEICLOUD_REGION, HUAWEICLOUD_SDK_SK." in done.err

    def test_settings_that_are_malformed_are_named_without_their_values(self, operator: Operator) -> None:
        done = operator.run("list", HUAWEICLOUD_SDK_SK="two words", HUAWEICLOUD_REGION="North 4")

        assert done.status == 2
        assert "HUAWEICLOUD_REGION is malformed" in done.err
        assert "HUAWEICLOUD_SDK_SK is malformed" in done.err
        assert "two words" not in done.err

    def test_file_that_is_wrong_calls_nobody(self, operator: Operator, huawei: HuaweiCloud) -> None:
        done = operator.run("apply", operator.file({"one": "not a name", "two": "x" * 17}), "--yes")

        assert done.status == 2
        assert "line 2: endpoint_service_name" in done.err
        assert "line 3: endpoint_service_name must have at most 16 characters" in done.err
        assert huawei.calls == []

    def test_name_that_the_naming_policy_forbids_calls_nobody(self, operator: Operator, huawei: HuaweiCloud) -> None:
        file = operator.file({"one": "orders", "two": "Orders"})

        done = operator.run("apply", file, "--yes", NAME_PATTERN="[a-z]*")
        malformed = operator.run("apply", file, "--yes", NAME_PATTERN="[a-z")

        assert (done.status, malformed.status) == (2, 2)
        assert "has 1 problem" in done.err
        assert "line 3: endpoint_service_name" in done.err
        assert "NAME_PATTERN is malformed" in malformed.err
        assert huawei.calls == []

    @pytest.mark.parametrize("arguments", [["apply"], ["rename", "one"], ["undo"], ["watch"], ["no-command"]])
    def test_usage_is_exit_2(self, operator: Operator, arguments: list[str]) -> None:
        assert operator.run(*arguments).status == 2


class TestThroughAStack:
    """`watch` and `redrive`, and one rename, by the deployed API."""

    @pytest.fixture
    def operator(self, clouds: Clouds, tmp_path: Path) -> Operator:
        """With AWS credentials of an administrator of the stack, and no key for Huawei Cloud."""
        return Operator(tmp_path, clouds.aws.sam_environment())

    def test_renames_one(self, operator: Operator, clouds: Clouds) -> None:
        service_id = str(uuid.uuid4())
        clouds.huawei.add_service(service_id, "billing")
        producer = {
            "AWS_ACCESS_KEY_ID": clouds.producer.access_key,
            "AWS_SECRET_ACCESS_KEY": clouds.producer.secret_key,
        }

        done = operator.run("rename", service_id, "orders", "--api-url", clouds.rename_api_url, "--json", **producer)

        assert done.status == 0, done.err
        assert clouds.huawei.name_of(service_id) == "orders"
        assert [json.loads(done.out)] == clouds.outcomes()

    def test_two_hundred_lines_with_faults_amid_and_back(self, operator: Operator, clouds: Clouds) -> None:
        old, new = services(clouds.huawei)
        file = operator.file(new)
        way = ("--api-url", clouds.rename_api_url)
        clouds.huawei.fail(500, "EndPoint.0001", times=5, on="any")
        clouds.huawei.fail(504, "EndPoint.0013", times=3, applied=True)
        clouds.huawei.fail(kind="reset", times=3, applied=True)

        done = operator.run("apply", file, "--yes", "--json", *way)

        assert done.status == 0, done.err
        assert names(clouds.huawei, new) == new
        printed = [json.loads(line)["id"] for line in done.out.splitlines()]
        published = {outcome["id"] for outcome in clouds.outcomes(wait_for=LINES)}
        assert published == set(printed)
        assert len(printed) == LINES

        let_claims_expire(clouds)  # of renames in doubt, which nothing may overtake for a minute
        undone = operator.run("undo", "names.results.csv", "--yes", *way)

        assert undone.status == 0, undone.err
        assert names(clouds.huawei, old) == old

    def test_dry_run_touches_nothing(self, operator: Operator, clouds: Clouds) -> None:
        old, new = services(clouds.huawei, 20)
        items = ledger_items(clouds)

        done = operator.run("apply", operator.file(new), "--dry-run", "--api-url", clouds.rename_api_url)

        assert done.status == 0, done.err
        assert "20 would be renamed" in done.out
        assert names(clouds.huawei, old) == old
        assert {call.method for call in clouds.huawei.calls} == {"GET"}
        assert ledger_items(clouds) == items
        assert clouds.outcomes_so_far() == []
        assert [path.name for path in operator.directory.glob("*.csv")] == ["names.csv"]

    def test_wrong_credentials_are_told(self, operator: Operator, clouds: Clouds) -> None:
        done = operator.run(
            *("rename", "one", "orders", "--api-url", clouds.rename_api_url),
            AWS_ACCESS_KEY_ID=clouds.producer.access_key,
            AWS_SECRET_ACCESS_KEY="wrong",
        )

        assert done.status == 1
        assert "execute-api:Invoke" in done.err
        assert clouds.huawei.calls == []

    def test_watch_without_a_log_says_which_parameter_to_set(self, operator: Operator, clouds: Clouds) -> None:
        done = operator.run("watch", "--stack", clouds.stack.name)

        assert done.status == 1
        assert "OutcomeLogDays" in done.err

    def test_stack_that_is_not_there_is_told(self, operator: Operator) -> None:
        done = operator.run("redrive", "--stack", "no-such-stack")

        assert done.status == 1
        assert "no-such-stack" in done.err

    def test_redrive_brings_dead_letters_back(self, operator: Operator, hasty: Clouds) -> None:
        service_id = str(uuid.uuid4())
        hasty.huawei.add_service(service_id, "billing")
        event = rename_event(service_id, "orders")
        abandon(hasty, event)

        done = operator.run("redrive", "--stack", hasty.stack.name)

        assert done.status == 0, done.err
        assert done.out == "1 dead letter is back in the queue.\n"
        [outcome] = hasty.outcomes(where=lambda outcome: bool(outcome["data"]["request"]["id"] == event["id"]))
        assert outcome["type"] == "vpcep.endpoint_service.renamed.v1"

    @pytest.fixture
    def log_group(self, clouds: Clouds) -> Iterator[str]:
        """The log of outcomes of a stack that has nothing else; MiniStack's rules do not write to logs."""
        resources = {"OutcomeLog": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "outcomes"}}}
        cloudformation, logs = clouds.aws.client("cloudformation"), clouds.aws.client("logs")
        cloudformation.create_stack(StackName="logged", TemplateBody=json.dumps({"Resources": resources}))
        cloudformation.get_waiter("stack_create_complete").wait(StackName="logged", WaiterConfig={"Delay": 1})
        logs.create_log_stream(logGroupName="outcomes", logStreamName="events")
        yield "outcomes"
        cloudformation.delete_stack(StackName="logged")

    def test_watch_shows_outcomes_as_they_come(self, operator: Operator, clouds: Clouds, log_group: str) -> None:
        def log(name: str, **more: str) -> str:
            line = {"outcome_type": "vpcep.endpoint_service.renamed.v1", "time": "2026-11-25T00:00:00Z", **more}
            message = json.dumps(line | {"vpc_endpoint_service_id": "one", "endpoint_service_name": name})
            event = {"timestamp": int(time.time() * 1000), "message": message}
            clouds.aws.client("logs").put_log_events(logGroupName=log_group, logStreamName="events", logEvents=[event])
            return message

        first = log("orders")
        with operator.start("watch", "--stack", "logged", "--since", "5", "--json") as process:
            assert process.stdout
            assert process.stdout.readline() == f"{first}\n"
            second = log("cases", outcome_type="vpcep.endpoint_service.rename_failed.v1", error_code="EndPoint.2003")
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
        account = LOCAL_ACCOUNT
        with HuaweiCloud(account.ak, account.sk, account.project_id, account.region) as cloud:
            for service_id, name in self.NAMES.items():
                cloud.add_service(service_id, name)
            yield cloud

    def type_and_compare(self, operator: Operator, text: str) -> None:
        for session in text.removeprefix("$ ").split("\n$ "):
            command, *printed = session.splitlines()
            words, _, redirected = command.partition(" > ")
            done = operator.run(*shlex.split(words)[1:])
            assert done.status == 0, done.err
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

    def test_file_is_listed_edited_applied_and_undone(self, operator: Operator, huawei: HuaweiCloud) -> None:
        for start in ("$ vpcep-rename list\n", "$ vpcep-rename apply "):
            self.type_and_compare(operator, block("docs/command.md", start))

        assert names(huawei, self.NAMES) == self.NAMES

    def test_readme(self, operator: Operator) -> None:
        self.type_and_compare(operator, block("README.md", "$ vpcep-rename list "))

    def test_one_is_renamed(self, operator: Operator, huawei: HuaweiCloud) -> None:
        command = block("docs/command.md", "vpcep-rename rename ")

        assert operator.run(*shlex.split(command)[1:]).status == 0
        assert huawei.name_of("070c4a63-8a62-448e-89ed-f2cbde8e6a3b") == "payments"


class TestTerminal:
    def test_plan_question_and_bar(self, operator: Operator, huawei: HuaweiCloud) -> None:
        _, new = services(huawei, 5)
        operator.file(new)

        shown = in_terminal(operator, "y\n")

        assert f"Rename 5 endpoint services at {huawei.url}, project {LOCAL_ACCOUNT.project_id}? [y/N]" in shown
        assert "5/5" in shown
        assert names(huawei, new) == new

    def test_no_renames_nothing(self, operator: Operator, huawei: HuaweiCloud) -> None:
        old, new = services(huawei, 5)
        operator.file(new)

        shown = in_terminal(operator, "\n")

        assert "Nothing has been renamed." in shown
        assert names(huawei, old) == old
        assert not (operator.directory / "names.results.csv").exists()


def ledger_items(clouds: Clouds) -> list[str]:
    pages = (
        clouds.aws.client("dynamodb").get_paginator("scan").paginate(TableName=clouds.stack.outputs["LedgerTableName"])
    )
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
