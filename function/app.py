"""The handler: which trigger is this? The only module that knows all rooms, and wires them at cold start."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from function import settings as environment
from function.aws import (
    Aws,
    DynamoDbClient,
    EventBridgeClient,
    Key,
    SecretsManagerClient,
    SqsClient,
    StsClient,
)
from function.breaker import OutageBreaker
from function.bus import EventBridge
from function.credentials import FederatedCredentials, SecretCredentials
from function.deadline import Deadline
from function.events import Parser
from function.ledger import DynamoDbLedger, LedgerSchemaError, NoLedger, breaker_item
from function.queue import FifoQueue
from function.rename import EndpointServices, Ledger, Renamer
from function.settings import Settings, SettingsError
from function.telemetry import Telemetry
from function.vpcep import Credentials, Iam, UnknownRegionError, Vpcep, iam_endpoint
from function.workers import Workers

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from function.triggers.dead_letters import DeadLetterTrigger
    from function.triggers.http import HttpTrigger
    from function.triggers.sqs import SqsTrigger

# What an invocation keeps of its time to publish the outcomes and to report.
REPORT_MARGIN_SECONDS: Final = 4.0


class UnknownTriggerError(ValueError):
    """The event is neither of SQS nor of API Gateway."""


class Function:
    """The wired function; one a process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._telemetry = Telemetry(settings.metrics_namespace)
        regions = settings.allowed_regions | {settings.huaweicloud_region}
        aws = self._aws = _aws(settings)
        services: EndpointServices = _services(settings, regions, aws, self._telemetry)
        ledger: Ledger = NoLedger()
        self._look: Callable[[Deadline], None] = _nothing
        if table := settings.ledger_table:
            client = DynamoDbClient(aws)
            ledger = dynamodb = DynamoDbLedger(client, table)
            # Where dead letters get their outcome Huawei Cloud is not called, and the role may not read the table.
            if not settings.dead_letter_queue_url:
                services = breaker = OutageBreaker(
                    services,
                    dynamodb.outage_is_recorded,
                    client,
                    table=table,
                    item=breaker_item,
                    on_transition=self._telemetry.breaker_turned,
                    on_error=self._telemetry.breaker_failed,
                )
                self._look = partial(breaker.look, settings.huaweicloud_region)
        else:
            self._telemetry.said_once("LEDGER_TABLE is not set: duplicates and stale events are not recognised")
        self._parser = Parser(
            name_max_length=settings.name_max_length,
            is_allowed_project=services.allows_project,
            is_allowed_region=regions.__contains__,
            now=lambda: datetime.now(UTC),
        )
        self._renamer = Renamer(
            services,
            ledger,
            EventBridge(EventBridgeClient(aws), settings.outcome_bus),
            region=settings.huaweicloud_region,
            read_previous_name=settings.read_previous_name,
        )

    def handle(self, event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
        ends_at = time.time() + context.get_remaining_time_in_millis() / 1000
        deadline = Deadline(ends_at - REPORT_MARGIN_SECONDS, ends_at)
        try:
            self._see_to_the_ledger(deadline)
            match event:
                case {"Records": [*records]} if all(_is_of_sqs(record) for record in records):
                    return self._sqs.handle(event, deadline)
                case {"httpMethod": str(), "requestContext": {"requestTimeEpoch": int()}}:
                    return self._http.handle(event, deadline)
                case {"redrive": True}:
                    return self._redrive(deadline)
        finally:
            self._telemetry.flush()
        message = "the event is neither an SQS event nor a proxy event of API Gateway, nor a redrive"
        raise UnknownTriggerError(message)

    def _see_to_the_ledger(self, deadline: Deadline) -> None:
        """Before the first event is parsed; nothing talks to a network at import."""

        def look() -> None:
            self._look(deadline)
            self._look = _nothing

        if self._look is _nothing:
            return
        try:
            Workers(1).run([look], deadline)
        except LedgerSchemaError as error:
            message = f"LEDGER_TABLE is malformed: no table whose key is the string id ({error})"
            raise SettingsError(message) from None

    def _redrive(self, deadline: Deadline) -> dict[str, Any]:
        """Bring dead letters again. For an operator's hand; what has been settled meanwhile makes no call."""
        url, queue = self._settings.dead_letter_queue_url, self._rename_queue
        if url is None or queue is None:
            message = "a redrive needs DEAD_LETTER_QUEUE_URL and RENAME_QUEUE_URL"
            raise SettingsError(message)
        moved: list[int] = []
        Workers(1).run([lambda: moved.append(self._queue(url).move_all(queue, deadline))], deadline.to_report())
        if not moved:
            message = "SQS does not answer"
            raise TimeoutError(message)
        return {"moved": moved[0]}

    # Each trigger is made when its first event comes: no function pays for one that it does not serve.

    @cached_property
    def _sqs(self) -> "SqsTrigger | DeadLetterTrigger":
        settings = self._settings
        if settings.dead_letter_queue_url:
            from function.triggers.dead_letters import DeadLetterTrigger  # noqa: PLC0415

            queue = self._queue(settings.dead_letter_queue_url)
            return DeadLetterTrigger(self._parser, self._renamer, self._telemetry, queue, Workers(1))
        from function.triggers.sqs import SqsTrigger  # noqa: PLC0415

        return SqsTrigger(
            self._parser,
            self._renamer,
            self._telemetry,
            self._rename_queue,
            Workers(settings.max_parallel_renames),
            max_receives=settings.max_receives,
        )

    @cached_property
    def _http(self) -> "HttpTrigger":
        from function.triggers.http import HttpTrigger  # noqa: PLC0415

        return HttpTrigger(self._parser, self._renamer, self._telemetry, self._rename_queue, Workers(1))

    @property
    def _rename_queue(self) -> FifoQueue | None:
        url = self._settings.rename_queue_url
        return self._queue(url) if url else None

    def _queue(self, url: str) -> FifoQueue:
        return FifoQueue(SqsClient(self._aws), url)


def _is_of_sqs(record: object) -> bool:
    return isinstance(record, dict) and record.get("eventSource") == "aws:sqs"


def _nothing(_: Deadline) -> None:
    """There is no ledger to look at, or it has been looked at."""


def _aws(settings: Settings) -> Aws:
    key = None
    if settings.aws_access_key_id and settings.aws_secret_access_key:
        key = Key(settings.aws_access_key_id, settings.aws_secret_access_key, settings.aws_session_token)
    return Aws(region=settings.aws_region, endpoints=settings.aws_endpoints, key=key, ca_bundle=settings.aws_ca_bundle)


def _services(settings: Settings, regions: frozenset[str], aws: Aws, telemetry: Telemetry) -> Vpcep:
    own = settings.huaweicloud_region
    endpoints = {own: settings.vpcep_endpoint} if settings.vpcep_endpoint else {}
    try:
        credentials, forget = _credentials(settings, endpoints, aws)
        return Vpcep(
            credentials,
            forget=forget,
            region=own,
            regions=regions,
            endpoints=endpoints,
            allowed_projects=settings.allowed_projects,
            pool_size=settings.max_parallel_renames,
            on_call=telemetry.called,
        )
    except UnknownRegionError as error:
        variable = "HUAWEICLOUD_REGION" if str(error) == own else "ALLOWED_REGIONS"
        message = f"{variable} names a region that VPCEP is not known in"
        raise SettingsError(message) from None


def _credentials(
    settings: Settings, endpoints: dict[str, str], aws: Aws
) -> tuple[Callable[[Deadline], Credentials], Callable[[Credentials], None]]:
    """Where the key comes from, and what is called with one that was refused."""
    if settings.credentials_secret:
        client = SecretsManagerClient(aws)
        secret = SecretCredentials(client, settings.credentials_secret, default_project=settings.project_id)
        return secret, secret.forget
    if settings.idp_id:
        endpoint = settings.iam_endpoint or iam_endpoint(settings.huaweicloud_region, endpoints)
        if endpoint is None:
            message = "HUAWEICLOUD_SDK_IAM_ENDPOINT is missing: VPCEP's endpoint does not tell that of IAM"
            raise SettingsError(message)
        iam = Iam(settings.idp_id, settings.project_id or "", endpoint=endpoint)
        federated = FederatedCredentials(StsClient(aws), iam, audience=settings.idp_audience)
        return federated, federated.forget
    key = Credentials(
        settings.access_key or "", settings.secret_key or "", settings.security_token, settings.project_id or ""
    )
    return (lambda _: key), (lambda _: None)


_function = Function(environment.load(os.environ))


def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """The Lambda entry point: SQS events, proxy events of an API Gateway REST API, and ``{"redrive": true}``.

    Returns:
        A partial batch response for SQS events, a proxy response for API Gateway, ``{"moved": n}`` for a redrive.

    Raises:
        UnknownTriggerError: the event is of no such kind.
    """
    return _function.handle(event, context)
