"""Both local clouds with the deployed function, for the integration tests and `make run`.

Nothing is replaced between a queue and a bus: events are sent with a producer's own permissions, and outcomes are read
from the bus by a rule, as a consumer does.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.localcloud.aws import ACCOUNT, LocalAws, Stack
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.iam import HuaweiIam, IdentityProvider

OUTCOME_SOURCE = "vpcep.rename"
OUTCOME_SECONDS = 30.0
HTTP_SECONDS = 60.0

Event = dict[str, Any]


@dataclass(frozen=True)
class HuaweiAccount:
    """The account of the endpoint services; `endpoint` is empty for the region's own."""

    ak: str
    sk: str
    project_id: str
    region: str
    security_token: str | None = None
    endpoint: str = ""

    def secret(self) -> str:
        fields = {"ak": self.ak, "sk": self.sk, "project_id": self.project_id, "security_token": self.security_token}
        return json.dumps({name: value for name, value in fields.items() if value})

    def environment(self) -> dict[str, str]:
        """The variables of the function and of the command."""
        return {
            "HUAWEICLOUD_REGION": self.region,
            "HUAWEICLOUD_SDK_AK": self.ak,
            "HUAWEICLOUD_SDK_SK": self.sk,
            "HUAWEICLOUD_SDK_PROJECT_ID": self.project_id,
        }


LOCAL_ACCOUNT = HuaweiAccount(
    ak="LOCALACCESSKEY", sk="local-secret-key", project_id="0f5b3c6a9d7e4b1f8a2c5d6e7f809112", region="cn-north-4"
)


def local_huawei() -> HuaweiCloud:
    """With the local account."""
    account = LOCAL_ACCOUNT
    return HuaweiCloud(ak=account.ak, sk=account.sk, project_id=account.project_id, region=account.region)


@dataclass(frozen=True)
class Reply:
    """The HTTP API's response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Clouds:
    """The deployed function and both clouds. `local_huawei` is None where the real one is used."""

    aws: LocalAws
    stack: Stack
    account: HuaweiAccount
    local_huawei: HuaweiCloud | None
    local_iam: HuaweiIam | None
    producer: Credentials
    tap_url: str
    _held: list[Event] = field(default_factory=list)

    @property
    def huawei(self) -> HuaweiCloud:
        assert self.local_huawei, "the function is deployed against the real Huawei Cloud"
        return self.local_huawei

    @property
    def iam(self) -> HuaweiIam:
        assert self.local_iam, "the function is deployed against the real Huawei Cloud"
        return self.local_iam

    @property
    def rename_api_url(self) -> str:
        """On AWS the host names the API; on MiniStack, without host names, the path does."""
        host, path = self.stack.outputs["RenameApiUrl"].removeprefix("https://").split("/", 1)
        return f"{self.aws.endpoint}/_aws/execute-api/{host.split('.')[0]}/{path}"

    def send_rename_event(
        self,
        event: Event | str,
        message_attributes: Mapping[str, str] | None = None,
        group: str | None = None,
        dedup: str | None = None,
    ) -> str:
        """Send an event to the queue as a producer does; the message's id.

        The message group is the endpoint service of the event.
        """
        message = _message(event, message_attributes, group, dedup)
        sent = self._producer_client("sqs").send_message(QueueUrl=self.stack.outputs["RenameQueueUrl"], **message)
        return str(sent["MessageId"])

    def send_rename_events(self, events: Sequence[Event | str]) -> None:
        """Send up to ten events to the queue at once, so that they arrive in one batch."""
        entries = [{"Id": str(number), **_message(event)} for number, event in enumerate(events)]
        sqs = self._producer_client("sqs")
        sent = sqs.send_message_batch(QueueUrl=self.stack.outputs["RenameQueueUrl"], Entries=entries)
        assert len(sent["Successful"]) == len(events)

    def post_rename_event(
        self, event: Event | str, headers: Mapping[str, str] | None = None, *, signed: bool = True, query: str = ""
    ) -> Reply:
        """Post an event to the HTTP API as a producer does, by default with a SigV4 signature."""
        url = f"{self.rename_api_url}?{query}" if query else self.rename_api_url
        given = {"content-type": "application/cloudevents+json"} | {k.lower(): v for k, v in (headers or {}).items()}
        request = AWSRequest("POST", url, headers=given, data=_body(event).encode())
        if signed:
            SigV4Auth(self.producer, "execute-api", self.aws.region).add_auth(request)
        with urllib3.PoolManager(ca_certs=str(self.aws.ca)) as pool:
            all_headers = dict(request.headers.items())
            reply = pool.request(
                "POST", url, body=request.data, headers=all_headers, retries=False, timeout=HTTP_SECONDS
            )
        return Reply(reply.status, {k.lower(): v for k, v in reply.headers.items()}, reply.data.decode())

    def outcomes(
        self,
        wait_for: int = 1,
        timeout: float = OUTCOME_SECONDS,
        where: Callable[[Event], bool] = lambda outcome: True,
    ) -> list[Event]:
        """The next outcomes from the bus for which `where` holds, in order of arrival; others are kept for later.

        Fewer than `wait_for` after the time-out.
        """
        found: list[Event] = []
        deadline = time.monotonic() + timeout
        while True:
            held, self._held = self._held, []
            for outcome in held:
                (found if len(found) < wait_for and where(outcome) else self._held).append(outcome)
            left = deadline - time.monotonic()
            if len(found) >= wait_for or left <= 0:
                return found
            self._held += self._tapped(wait=min(int(left) + 1, 5))

    def outcomes_so_far(self) -> list[Event]:
        """All outcomes from the bus that have not been returned yet."""
        while tapped := self._tapped(wait=0):
            self._held += tapped
        held, self._held = self._held, []
        return held

    def forget_outcomes(self) -> None:
        """Discard outcomes of earlier tests."""
        self.outcomes_so_far()

    def function_logs(self, function: str) -> list[str]:
        """All log lines of a function, by its logical id."""
        pages = self.aws.client("logs").get_paginator("filter_log_events")
        group = self.stack.resources[f"{function}Logs"]
        return [event["message"] for page in pages.paginate(logGroupName=group) for event in page["events"]]

    def invoke(self, function: str, event: Event) -> Any:
        """Invoke a function directly, by its logical id."""
        client = self.aws.client("lambda")
        done = client.invoke(FunctionName=self.stack.resources[function], Payload=json.dumps(event))
        return json.loads(done["Payload"].read())

    def use_secret(self, account: HuaweiAccount) -> None:
        """Change the secret, and start the functions anew, since they cache it."""
        self.aws.client("secretsmanager").put_secret_value(SecretId=SECRET, SecretString=account.secret())
        self.start_anew()

    def start_anew(self, *functions: str) -> None:
        """Run functions, all by default, in new environments. Running invocations are ended."""
        client = self.aws.client("lambda")
        for function in functions or FUNCTIONS:
            name = self.stack.resources[function]
            memory = client.get_function_configuration(FunctionName=name)["MemorySize"]
            client.update_function_configuration(FunctionName=name, MemorySize=memory)

    @contextmanager
    def configured(self, function: str, *, timeout: int | None = None, **variables: str) -> Iterator[None]:
        """A function with another time-out or other variables, in new environments, for the `with` block."""
        client, name = self.aws.client("lambda"), self.stack.resources[function]
        before = client.get_function_configuration(FunctionName=name)
        environment = before["Environment"]["Variables"]

        def update(seconds: int, variables: Mapping[str, str]) -> None:
            client.update_function_configuration(
                FunctionName=name, Timeout=seconds, Environment={"Variables": dict(variables)}
            )

        update(timeout or before["Timeout"], environment | variables)
        try:
            yield
        finally:
            update(before["Timeout"], environment)

    @contextmanager
    def queue_with(self, url: str, **attributes: str) -> Iterator[None]:
        """A queue with other attributes, for the `with` block."""
        sqs = self.aws.client("sqs")
        before = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(attributes))["Attributes"]
        sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
        try:
            yield
        finally:
            sqs.set_queue_attributes(QueueUrl=url, Attributes=before)

    def messages(self, url: str) -> int:
        """How many are in a queue, in flight or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def permissions(self, function: str) -> set[tuple[str, str]]:
        """Those of a function's role in the template: each action with the Sid of its statement."""
        iam, role = self.aws.client("iam"), self.stack.resources[f"{function}Role"]
        policy = iam.get_role_policy(RoleName=role, PolicyName=function)["PolicyDocument"]
        return {(statement["Sid"], action) for statement in policy["Statement"] for action in _actions(statement)}

    @contextmanager
    def without(self, function: str, *actions: str, sid: str | None = None) -> Iterator[None]:
        """A function's role without actions, in every statement or in that of the `sid`, for the `with` block.

        Running environments cache the secret and the state of the outage breaker: see `start_anew`.
        """
        iam, role = self.aws.client("iam"), self.stack.resources[f"{function}Role"]
        before = {
            name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
        }
        try:
            for name, policy in before.items():
                statements = []
                for statement in policy["Statement"]:
                    lost = actions if sid in (None, statement["Sid"]) else ()
                    left = [action for action in _actions(statement) if action.removesuffix("Batch") not in lost]
                    statements += [statement | {"Action": left}] if left else []
                if statements:
                    document = json.dumps(policy | {"Statement": statements})
                    iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)
                else:
                    iam.delete_role_policy(RoleName=role, PolicyName=name)
            yield
        finally:
            for name, policy in before.items():
                iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(policy))

    def kill(self, function: str) -> int:
        """Kill the processes that run a function, as when a host fails; how many there were."""
        return self.aws.kill(self.stack.resources[function])

    def _producer_client(self, service: str) -> Any:
        return self.aws.client(
            service,
            aws_access_key_id=self.producer.access_key,
            aws_secret_access_key=self.producer.secret_key,
        )

    def _tapped(self, wait: int) -> list[Event]:
        sqs = self.aws.client("sqs")
        received = sqs.receive_message(QueueUrl=self.tap_url, MaxNumberOfMessages=10, WaitTimeSeconds=wait)
        messages = received.get("Messages", [])
        outcomes = []
        for message in messages:
            entry = json.loads(message["Body"])
            assert (entry["source"], entry["detail-type"]) == (OUTCOME_SOURCE, entry["detail"]["type"])
            outcomes.append(entry["detail"])
        if messages:
            entries = [{"Id": message["MessageId"], "ReceiptHandle": message["ReceiptHandle"]} for message in messages]
            sqs.delete_message_batch(QueueUrl=self.tap_url, Entries=entries)
        return outcomes


SECRET = "huaweicloud"
IDP_ID = "local-aws"
AUDIENCE = "vpcep-rename.local"
FUNCTIONS = ("RenameFromQueue", "RenameFromHttp", "SettleDeadLetters")


@contextmanager
def local_clouds(
    progress: Callable[[str], object] = lambda line: None,
    account: HuaweiAccount | None = None,
    parameters: Mapping[str, str] | Callable[[LocalAws], Mapping[str, str]] | None = None,
    *,
    keyless: bool = False,
    region: str = "eu-central-1",
) -> Iterator[Clouds]:
    """Start the clouds, deploy, and stop everything at the end.

    With an `account` the real Huawei Cloud is used. `parameters` of the template are added to those that connect it; as
    a function they get the local AWS, to create the resources that they name.
    With `keyless` there is no secret: the local AWS is an identity provider of the local Huawei Cloud.
    `region` is that of the local AWS.
    """
    with ExitStack() as cleanup:
        huawei = iam = None
        if account is None:
            progress("Starting a local Huawei Cloud …")
            huawei = cleanup.enter_context(local_huawei())
            iam = cleanup.enter_context(HuaweiIam(huawei))
            account = replace(LOCAL_ACCOUNT, endpoint=huawei.url)
        progress("Starting a local AWS …")
        aws = cleanup.enter_context(LocalAws(region))
        if keyless:
            assert iam, "keyless is for the local Huawei Cloud"
            iam.identity_providers[IDP_ID] = IdentityProvider(aws.issuer.url, AUDIENCE, aws.issuer.jwks())
            key = {"HuaweiCloudIdpId": IDP_ID, "HuaweiCloudIdpAudience": AUDIENCE, "HuaweiCloudIamEndpoint": iam.url}
        else:
            secret = aws.client("secretsmanager").create_secret(Name=SECRET, SecretString=account.secret())
            key = {"HuaweiCloudCredentialsSecretArn": secret["ARN"]}
        progress("Building and deploying template.yml with the SAM CLI …")
        stack = aws.deploy(
            {
                "HuaweiCloudRegion": account.region,
                "HuaweiCloudProjectId": account.project_id,
                "VpcepEndpoint": account.endpoint,
                "GradualDeployment": "false",  # MiniStack has no CodeDeploy
                **key,
                **((parameters(aws) if callable(parameters) else parameters) or {}),
            }
        )
        _allow_batches(aws, stack)
        _serve_latest(aws, stack)
        tap_url = tap(aws, stack.outputs["OutcomeBusName"], "tap", {"source": [OUTCOME_SOURCE]})
        yield Clouds(aws, stack, account, huawei, iam, _producer(aws, stack), tap_url)


def rename_event(service_id: str, name: str, **data: str) -> Event:
    """A rename event in structured mode, with an id of its own."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/cmdb",
        "type": "vpcep.endpoint_service.rename_requested.v1",
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {"vpc_endpoint_service_id": service_id, "endpoint_service_name": name, **data},
    }


def _serve_latest(aws: LocalAws, stack: Stack) -> None:
    """Point each alias to the unpublished version, so that a changed configuration takes effect at once."""
    client = aws.client("lambda")
    for function in FUNCTIONS:
        client.update_alias(FunctionName=stack.resources[function], Name="live", FunctionVersion="$LATEST")


def _allow_batches(aws: LocalAws, stack: Stack) -> None:
    """Permit the functions' roles the batch actions of their SQS actions.

    On AWS the action for single messages includes batches; MiniStack has an action for each.
    """
    iam = aws.client("iam")
    for function in FUNCTIONS:
        role = stack.resources[f"{function}Role"]
        policy = iam.get_role_policy(RoleName=role, PolicyName=function)["PolicyDocument"]
        statements = [
            statement | {"Action": [f"{action}Batch" for action in _actions(statement)]}
            for statement in policy["Statement"]
            if all(action.startswith("sqs:") for action in _actions(statement))
        ]
        if statements:
            document = json.dumps(policy | {"Statement": statements})
            iam.put_role_policy(RoleName=role, PolicyName="batches", PolicyDocument=document)


def _actions(statement: Mapping[str, Any]) -> list[str]:
    actions = statement["Action"]
    return [actions] if isinstance(actions, str) else list(actions)


def _producer(aws: LocalAws, stack: Stack) -> Credentials:
    """A user who may send rename events, and nothing else."""
    queue = stack.outputs["RenameQueueUrl"].rsplit("/", 1)[-1]
    api = stack.resources["RenameApi"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": action, "Resource": f"arn:aws:{resource}"}
            for action, resource in [
                ("sqs:SendMessage", f"sqs:{aws.region}:{ACCOUNT}:{queue}"),
                # On AWS SendMessage includes batches; MiniStack has an action for them.
                ("sqs:SendMessageBatch", f"sqs:{aws.region}:{ACCOUNT}:{queue}"),
                ("execute-api:Invoke", f"execute-api:{aws.region}:{ACCOUNT}:{api}/v1/POST/rename-events"),
            ]
        ],
    }
    iam = aws.client("iam")
    iam.create_user(UserName="producer")
    iam.put_user_policy(UserName="producer", PolicyName="send", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="producer")["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def tap(aws: LocalAws, bus: str, name: str, pattern: Mapping[str, Any]) -> str:
    """A queue, with a rule of the bus that sends matching events to it; its URL."""
    sqs, events = aws.client("sqs"), aws.client("events")
    url = str(sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "600"})["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = {"Version": "2012-10-17", "Statement": [allow | {"Resource": arn}]}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    events.put_rule(Name=name, EventBusName=bus, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": name, "Arn": arn}])
    return url


def _message(
    event: Event | str,
    attributes: Mapping[str, str] | None = None,
    group: str | None = None,
    dedup: str | None = None,
) -> dict[str, Any]:
    return {
        "MessageBody": _body(event),
        "MessageAttributes": {n: {"DataType": "String", "StringValue": v} for n, v in (attributes or {}).items()},
        "MessageGroupId": group or _service_id(event) or "unknown",
        "MessageDeduplicationId": dedup or str(uuid.uuid4()),
    }


def _body(event: Event | str) -> str:
    return event if isinstance(event, str) else json.dumps(event)


def _service_id(event: Event | str) -> str | None:
    if isinstance(event, str):
        return None
    service_id = event.get("data", event).get("vpc_endpoint_service_id")
    return service_id if isinstance(service_id, str) else None
