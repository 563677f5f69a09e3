"""The handler: which trigger is it, and is everything wired to everything?"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from types import ModuleType
from typing import Any, Final

import pytest

from function import settings
from tests.fakes.aws import FakeAws
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.events import HttpReply, cloud_event, http_request, service_id, sqs_record
from tests.fakes.identifiers import BUS, PROJECT, REGION, SERVICE
from tests.fakes.lambda_context import FakeContext
from tests.fakes.raw_server import RawServer
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.server import Reply

Handler = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture
def cloud() -> Iterator[HuaweiCloud]:
    ak, sk = ENVIRONMENT["HUAWEICLOUD_SDK_AK"], ENVIRONMENT["HUAWEICLOUD_SDK_SK"]
    with HuaweiCloud(ak=ak, sk=sk, project_id=PROJECT, region=REGION) as cloud:
        cloud.add_service(SERVICE, name="billing")
        yield cloud


@pytest.fixture
def handler_with(
    app: ModuleType, aws: FakeAws, cloud: HuaweiCloud, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Handler]:
    """The handler as it comes up in an environment of the test's choice."""

    def start(**environment: str) -> Handler:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        local = {"VPCEP_ENDPOINT": cloud.url, "AWS_ENDPOINT_URL": aws.url}
        function = app.Function(settings.load(ENVIRONMENT | local | environment))
        monkeypatch.setattr(app, "_function", function)
        handler: Handler = app.handler
        return handler

    return start


@pytest.fixture
def handler(handler_with: Callable[..., Handler]) -> Handler:
    return handler_with()


def event_now(**data: Any) -> dict[str, Any]:
    """An event whose time is past for any clock."""
    return cloud_event(time="2020-01-01T00:00:00Z", **data)


def sqs_event(*records: dict[str, Any]) -> dict[str, Any]:
    return {"Records": list(records)}


class TestTriggers:
    def test_an_sqs_event_gets_a_partial_batch_response(
        self, handler: Handler, aws: FakeAws, cloud: HuaweiCloud
    ) -> None:
        response = handler(sqs_event(sqs_record(event_now())), FakeContext())

        assert response == {"batchItemFailures": []}
        assert cloud.name_of(SERVICE) == "orders"
        [outcome] = aws.outcomes
        assert (outcome["type"], outcome["data"]["trigger"]) == ("vpcep.endpoint_service.renamed.v1", "sqs")
        assert aws.calls_of("PutEvents")[0]["Entries"][0]["EventBusName"] == BUS

    def test_a_proxy_event_gets_a_proxy_response(self, handler: Handler, aws: FakeAws, cloud: HuaweiCloud) -> None:
        reply = HttpReply.of(handler(http_request(event_now()), FakeContext()))

        assert (reply.status, cloud.name_of(SERVICE)) == (200, "orders")
        assert aws.outcomes == [reply.body]
        assert reply.body["data"]["trigger"] == "http"

    def test_both_come_to_one_function(self, handler: Handler, cloud: HuaweiCloud) -> None:
        for number in range(3):
            assert HttpReply.of(handler(http_request(event_now(id=f"h{number}")), FakeContext())).status == 200
            assert handler(sqs_event(sqs_record(event_now(id=f"s{number}"))), FakeContext())["batchItemFailures"] == []

        assert len(cloud.calls) == 6

    @pytest.mark.parametrize(
        "event",
        [
            {},
            {"Event": {"Records": []}},
            event_now(),
            {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
            {"Records": [{"eventSource": "aws:s3", "s3": {"bucket": {"name": "b"}}}]},
            {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "{}"}}]},
            {"Records": [{"eventSource": "aws:kinesis", "kinesis": {"data": "e30="}}]},
            {"Records": [{"eventSource": "aws:dynamodb", "dynamodb": {"Keys": {}}}]},
            {"version": "2.0", "routeKey": "POST /rename-events", "requestContext": {"http": {"method": "POST"}}},
            {"requestContext": {"elb": {"targetGroupArn": "arn"}}, "httpMethod": "POST", "path": "/rename-events"},
            {"requestContext": {"routeKey": "$connect", "eventType": "CONNECT", "connectionId": "c"}},
            [],
            None,
        ],
        ids=lambda event: repr(event)[:50],
    )
    def test_any_other_event_is_one_clear_error(
        self, app: ModuleType, handler: Handler, cloud: HuaweiCloud, aws: FakeAws, event: Any
    ) -> None:
        with pytest.raises(app.UnknownTriggerError):
            handler(event, FakeContext())

        assert cloud.calls == []
        assert aws.calls == []

    def test_an_event_of_no_trigger_is_not_repeated_in_the_error(self, app: ModuleType, handler: Handler) -> None:
        with pytest.raises(app.UnknownTriggerError) as caught:
            handler({"secret": "marker"}, FakeContext())

        assert "marker" not in str(caught.value)


class ForgetfulAws(FakeAws):
    """Hangs up on connections that it has forgotten meanwhile; the server has a thread for each."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[threading.Thread] = set()
        self._forgotten: set[threading.Thread] = set()
        self.hang_ups = 0
        self.answer("GetItem", {}, times=None)
        self.answer("TransactWriteItems", {}, times=None)

    def forget_connections(self) -> None:
        self._forgotten |= self._known

    def _receive(self, path: str, headers: Message, body: bytes) -> Reply | None:
        connection = threading.current_thread()
        if connection in self._forgotten:
            self.hang_ups += 1
            return None
        self._known.add(connection)
        return super()._receive(path, headers, body)


class TestThaw:
    @pytest.fixture
    def aws(self) -> Iterator[FakeAws]:
        with ForgetfulAws() as aws:
            yield aws

    def test_of_dead_connections_to_aws_sends_no_event_back_and_waits_for_nothing(
        self,
        handler_with: Callable[..., Handler],
        aws: ForgetfulAws,
        cloud: HuaweiCloud,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(
            "function.adapters.aws.client.full_jitter", lambda *_, **__: pytest.fail("waits to ask again")
        )
        handler = handler_with(LEDGER_TABLE="ledger")
        services = [f"{number:08}-8a62-448e-89ed-f2cbde8e6a3b" for number in range(10)]
        for service in services:
            cloud.add_service(service, name="billing")

        for number in range(6):
            records = [
                sqs_record(
                    event_now(id=f"{number}-{service}", vpc_endpoint_service_id=service),
                    message_id=f"{number}-{service}",
                    group=service,
                )
                for service in services
            ]
            assert handler(sqs_event(*records), FakeContext()) == {"batchItemFailures": []}
            if number > 0:
                aws.forget_connections()

        assert aws.hang_ups > 0
        assert len(aws.outcomes) == 60


class TestWiring:
    def test_hands_over_to_the_queue_of_the_settings(
        self, handler_with: Callable[..., Handler], aws: FakeAws, cloud: HuaweiCloud
    ) -> None:
        url = f"{aws.url}/123456789012/renames.fifo"
        handler = handler_with(RENAME_QUEUE_URL=url)
        cloud.fail(429, "APIGW.0308", headers={"Retry-After": "900"})

        reply = HttpReply.of(handler(http_request(event_now()), FakeContext()))

        assert reply.status == 202
        assert [call["QueueUrl"] for call in aws.calls_of("SendMessage")] == [url]

    def test_puts_off_what_goes_back_to_the_queue_of_the_settings(
        self, handler_with: Callable[..., Handler], aws: FakeAws, cloud: HuaweiCloud
    ) -> None:
        url = f"{aws.url}/123456789012/renames.fifo"
        cloud.fail(429, "APIGW.0308", headers={"Retry-After": "900"})

        handler_with(RENAME_QUEUE_URL=url)(sqs_event(sqs_record(event_now())), FakeContext())

        [call] = aws.calls_of("ChangeMessageVisibilityBatch")
        assert call["QueueUrl"] == url
        assert call["Entries"][0]["VisibilityTimeout"] >= 900

    def test_gives_up_after_the_receives_of_the_settings(
        self, handler_with: Callable[..., Handler], aws: FakeAws, cloud: HuaweiCloud
    ) -> None:
        handler = handler_with(MAX_RECEIVES="5")
        cloud.fail(429, "APIGW.0308", headers={"Retry-After": "900"}, times=2)

        for receive_count, outcomes in ((4, 0), (5, 1)):
            response = handler(sqs_event(sqs_record(event_now(), receive_count=receive_count)), FakeContext())

            assert response == {"batchItemFailures": [{"itemIdentifier": "message-1"}]}
            assert len(aws.outcomes) == outcomes

    def test_takes_the_key_from_the_secret_of_the_settings(
        self, handler_with: Callable[..., Handler], aws: FakeAws, cloud: HuaweiCloud
    ) -> None:
        aws.secret = json.dumps({"ak": "FROMSECRET", "sk": "secret", "project_id": PROJECT})
        cloud.set_credentials("FROMSECRET", "secret")

        response = handler_with(HUAWEICLOUD_CREDENTIALS_SECRET="huawei")(
            sqs_event(sqs_record(event_now())), FakeContext()
        )

        assert response == {"batchItemFailures": []}
        assert cloud.name_of(SERVICE) == "orders"

    def test_a_rotated_key_costs_no_event_and_no_deployment(
        self, handler_with: Callable[..., Handler], aws: FakeAws, cloud: HuaweiCloud
    ) -> None:
        """Ten services at once, of which one learns that the key is no longer good."""
        services = [service_id(number) for number in range(10)]
        for service in services:
            cloud.add_service(service)
        records = [
            sqs_record(event_now(vpc_endpoint_service_id=service) | {"id": service}, message_id=service, group=service)
            for service in services
        ]
        cloud.set_credentials("NEW", "new-secret")
        handler = handler_with(HUAWEICLOUD_CREDENTIALS_SECRET="huawei")
        old = json.dumps({"ak": "OLD", "sk": "old-secret", "project_id": PROJECT})
        aws.answer("GetSecretValue", {"SecretString": old})
        aws.secret = json.dumps({"ak": "NEW", "sk": "new-secret", "project_id": PROJECT})

        assert handler(sqs_event(*records), FakeContext()) == {"batchItemFailures": []}

        assert [call.authenticated for call in cloud.calls] == [False] + [True] * 10
        assert len(aws.calls_of("GetSecretValue")) == 2

    def test_reads_the_previous_name_where_the_settings_say_so(
        self, handler_with: Callable[..., Handler], aws: FakeAws, cloud: HuaweiCloud
    ) -> None:
        before = cloud.full_name_of(SERVICE)

        handler_with(READ_PREVIOUS_NAME="true")(sqs_event(sqs_record(event_now())), FakeContext())

        assert aws.outcomes[0]["data"]["previous_service_name"] == before

    @pytest.mark.parametrize(("allowed", "status"), [("", 400), ("other-project", 200)])
    def test_allows_the_projects_of_the_settings(
        self, handler_with: Callable[..., Handler], cloud: HuaweiCloud, allowed: str, status: int
    ) -> None:
        cloud.add_service("service-2", project_id="other-project")
        event = event_now(vpc_endpoint_service_id="service-2", project_id="other-project")

        reply = HttpReply.of(handler_with(ALLOWED_PROJECTS=allowed)(http_request(event), FakeContext()))

        assert reply.status == status

    def test_keeps_time_to_report(self, handler: Handler, aws: FakeAws, cloud: HuaweiCloud) -> None:
        # given: an invocation that has just enough time to say that it has none
        response = handler(sqs_event(sqs_record(event_now())), FakeContext(seconds=3.0))

        assert response == {"batchItemFailures": [{"itemIdentifier": "message-1"}]}
        assert cloud.calls == []

    def test_names_the_setting_of_a_region_that_vpcep_is_not_known_in(self, app: ModuleType) -> None:
        for variable in ("HUAWEICLOUD_REGION", "ALLOWED_REGIONS"):
            with pytest.raises(settings.SettingsError, match=variable):
                app.Function(settings.load(ENVIRONMENT | {variable: "xx-nowhere-1"}))


class TestCredentialsInReplies:
    """What Huawei Cloud repeats of the key goes nowhere: not to the caller, the bus or the ledger."""

    KEY = ("UNITACCESSKEY", "unit/secret+key", "unit-security-token/==")
    FORMS: Final[dict[str, Callable[[str], str]]] = {
        "plain": str,
        "percent-encoded": lambda secret: "".join(f"%{ord(character):02x}" for character in secret),
        "JSON escapes": lambda secret: "".join(f"\\u{ord(character):04X}" for character in secret),
    }

    @pytest.fixture
    def handler(self, handler_with: Callable[..., Handler], aws: FakeAws, cloud: HuaweiCloud) -> Handler:
        ak, sk, token = self.KEY
        cloud.set_credentials(ak, sk, token)
        for operation in ("GetItem", "TransactWriteItems", "UpdateItem"):
            aws.answer(operation, {}, times=None)
        return handler_with(
            HUAWEICLOUD_SDK_SK=sk, HUAWEICLOUD_SDK_SECURITY_TOKEN=token, LEDGER_TABLE="ledger", MAX_RECEIVES="1"
        )

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("trigger", ["http", "sqs"])
    @pytest.mark.parametrize(("status", "code"), [(400, "EndPoint.0002"), (401, "APIGW.0301"), (403, "AK.{}")])
    def test_leaves_by_no_way_out(
        self,
        handler: Handler,
        aws: FakeAws,
        cloud: HuaweiCloud,
        status: int,
        code: str,
        trigger: str,
        form: str,
    ) -> None:
        shown = [self.FORMS[form](secret) for secret in self.KEY]
        said = f"Get secretKey failed,ak:{', '.join(shown)}"
        cloud.fail(status, code.format(shown[0]), message=said, headers={"X-Request-Id": f"id-{shown[1]}"}, times=None)
        event = http_request(event_now()) if trigger == "http" else sqs_event(sqs_record(event_now()))

        response = handler(event, FakeContext())

        sent = json.dumps([call.parameters for call in aws.calls])
        told = [json.dumps(response), sent]
        if trigger == "sqs" or status == 400:
            assert "Get secretKey failed,ak:***, ***, ***" in sent
            assert {"PutEvents", "TransactWriteItems"} <= {call.operation for call in aws.calls}
        for secret in (*self.KEY, *shown):
            for text in told:
                assert secret not in text
                assert json.dumps(json.dumps(secret)[1:-1])[1:-1] not in text


class TestASecretsManagerThatHangs:
    """It takes connections, and answers nothing."""

    @pytest.mark.parametrize("project", [{}, {"project_id": PROJECT}], ids=["default", "named"])
    @pytest.mark.parametrize("trigger", ["sqs", "http"])
    def test_is_asked_by_one_thread_and_the_handler_reports(
        self,
        handler_with: Callable[..., Handler],
        cloud: HuaweiCloud,
        monkeypatch: pytest.MonkeyPatch,
        trigger: str,
        project: dict[str, str],
    ) -> None:
        monkeypatch.setattr("function.adapters.aws.client.READ_SECONDS", 0.3)

        def hang(connection: socket.socket) -> None:
            while connection.recv(65_536):
                pass

        with RawServer(hang) as secrets_manager:
            handler = handler_with(
                HUAWEICLOUD_CREDENTIALS_SECRET="huawei", AWS_ENDPOINT_URL_SECRETS_MANAGER=secrets_manager.url
            )
            services = [service_id(number) for number in range(10)]
            events = [event_now(vpc_endpoint_service_id=service, **project) | {"id": service} for service in services]
            records = [
                sqs_record(event, message_id=service, group=service)
                for event, service in zip(events, services, strict=True)
            ]
            began = time.monotonic()

            for _ in range(2):
                if trigger == "sqs":
                    response = handler(sqs_event(*records), FakeContext())
                    assert len(response["batchItemFailures"]) == 10
                else:
                    assert HttpReply.of(handler(http_request(events[0]), FakeContext())).status == 503

            # then: two tries of one question for all of that
            assert time.monotonic() - began < 3.0
            assert secrets_manager.connections == 2
        assert cloud.calls == []


class TestKeyless:
    KEYLESS: Final = {"HUAWEICLOUD_SDK_AK": "", "HUAWEICLOUD_SDK_SK": "", "HUAWEICLOUD_SDK_IDP_ID": "aws"}

    def test_asks_for_the_iam_endpoint_where_that_of_vpcep_does_not_tell(self, app: ModuleType) -> None:
        elsewhere = {"HUAWEICLOUD_REGION": "xx-nowhere-1", "VPCEP_ENDPOINT": "https://endpoints.example.com"}

        with pytest.raises(settings.SettingsError, match="HUAWEICLOUD_SDK_IAM_ENDPOINT is missing"):
            app.Function(settings.load(ENVIRONMENT | self.KEYLESS | elsewhere))

    def test_names_the_setting_of_a_region_that_vpcep_is_not_known_in(self, app: ModuleType) -> None:
        nowhere = {"HUAWEICLOUD_REGION": "xx-nowhere-1"}

        with pytest.raises(settings.SettingsError, match="HUAWEICLOUD_REGION"):
            app.Function(settings.load(ENVIRONMENT | self.KEYLESS | nowhere))


class TestColdStart:
    def test_talks_to_nobody(self) -> None:
        """In a process of its own, where a socket is an error."""
        code = """
import socket
def refuse(*args, **kwargs): raise SystemExit("talked to a network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
import function.app
print("imported")
"""
        secret = {"HUAWEICLOUD_CREDENTIALS_SECRET": "huawei", "RENAME_QUEUE_URL": "https://sqs.invalid/1/q.fifo"}

        run = _run(code, ENVIRONMENT | secret | {"LEDGER_TABLE": "ledger"})

        assert run.stdout.endswith("imported\n"), run.stderr

    def test_without_a_setting_is_one_error_that_names_it(self) -> None:
        environment = {name: value for name, value in ENVIRONMENT.items() if name != "OUTCOME_BUS"}

        run = _run("import function.app", environment)

        assert run.returncode != 0
        assert run.stderr.splitlines()[-1].endswith("SettingsError: OUTCOME_BUS is missing")


def _run(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    base = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=base | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
