"""The composition root: creates all objects from the settings.

Only this module and ``app`` import both adapters and triggers.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

from function.adapters.aws.client import (
    Aws,
    DynamoDbClient,
    EventBridgeClient,
    Key,
    SecretsManagerClient,
    SqsClient,
    StsClient,
)
from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.adapters.aws.eventbridge import EventBridge
from function.adapters.aws.ledger_items import breaker_item
from function.adapters.aws.sqs_queue import FifoQueue
from function.adapters.cached_credentials import FederatedCredentials, SecretCredentials
from function.adapters.circuit_breaker import OutageBreaker
from function.adapters.huawei.credentials import Credentials, CredentialsProvider, StaticCredentials
from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.adapters.huawei.error_codes import metric_code
from function.adapters.huawei.iam import Iam
from function.adapters.huawei.regions import UnknownRegionError, iam_endpoint
from function.adapters.no_ledger import NoLedger
from function.domain.deadline import Deadline
from function.domain.event_parser import EventParser
from function.domain.name_pattern import NamePatternError, compile_name_pattern
from function.domain.policy import Policy
from function.domain.ports import EndpointServices, Ledger
from function.domain.rename_service import RenameService
from function.domain.service_calls import ServiceCalls
from function.settings import IdentityProvider, KeySecret, Settings, SettingsError, StaticKey
from function.telemetry import Telemetry
from function.workers import Workers

if TYPE_CHECKING:
    from function.triggers.dead_letters import DeadLetterTrigger
    from function.triggers.http import HttpTrigger
    from function.triggers.sqs import SqsTrigger


class Components:
    """The objects of the function, created once per process.

    Attributes:
        find_recorded_outage: checks whether another environment has recorded an outage, with the first request to the
            ledger's table; None if there is nothing to check.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.telemetry = Telemetry(settings.metrics_namespace, metric_code)
        self._aws = _aws(settings)
        credentials, services = _huawei(settings, self._aws, self.telemetry)
        ledger, services, self.find_recorded_outage = self._with_ledger(services)
        self.rename_queue = self._queue(settings.rename_queue_url)
        self.dead_letter_queue = self._queue(settings.dead_letter_queue_url)
        policy = Policy(
            region=settings.huaweicloud_region,
            name_max_length=settings.name_max_length,
            name_pattern=_name_pattern(settings),
            projects=settings.allowed_projects,
            regions=settings.allowed_regions,
            default_project=lambda deadline: credentials.get(deadline).project_id,
            now=lambda: datetime.now(UTC),
        )
        rename_service = RenameService(
            ServiceCalls(services, on_unreadable=self.telemetry.previous_name_unreadable),
            ledger,
            EventBridge(EventBridgeClient(self._aws), settings.outcome_bus),
            policy,
            read_previous_name=settings.read_previous_name,
        )
        self._of_every_trigger = (EventParser(), policy, rename_service, self.telemetry)

    # Each trigger is created at its first event, so that no function imports a trigger that it does not use.

    @cached_property
    def sqs(self) -> "SqsTrigger | DeadLetterTrigger":
        if self.dead_letter_queue is not None:
            from function.triggers.dead_letters import DeadLetterTrigger  # noqa: PLC0415

            return DeadLetterTrigger(*self._of_every_trigger, queue=self.dead_letter_queue, workers=Workers(1))
        from function.triggers.sqs import SqsTrigger  # noqa: PLC0415

        return SqsTrigger(
            *self._of_every_trigger,
            queue=self.rename_queue,
            workers=Workers(self._settings.max_parallel_renames),
            max_receives=self._settings.max_receives,
        )

    @cached_property
    def http(self) -> "HttpTrigger":
        from function.triggers.http import HttpTrigger  # noqa: PLC0415

        return HttpTrigger(*self._of_every_trigger, queue=self.rename_queue, workers=Workers(1))

    def _queue(self, url: str | None) -> FifoQueue | None:
        return FifoQueue(SqsClient(self._aws), url) if url else None

    def _with_ledger(
        self, services: EndpointServices
    ) -> tuple[Ledger, EndpointServices, Callable[[Deadline], None] | None]:
        table = self._settings.ledger_table
        if table is None:
            self.telemetry.startup_warning("LEDGER_TABLE is not set: duplicates and stale events are not recognised")
            return NoLedger(), services, None
        client = DynamoDbClient(self._aws)
        ledger = DynamoDbLedger(client, table)
        if self._settings.dead_letter_queue_url:
            # The function for dead letters does not call Huawei Cloud, and its role may not read the table.
            return ledger, services, None
        breaker = OutageBreaker(
            services,
            ledger.outage_is_recorded,
            client,
            table=table,
            item=breaker_item,
            on_transition=self.telemetry.circuit_transitioned,
            on_error=self.telemetry.breaker_failed,
        )
        return ledger, breaker, partial(breaker.check_state, self._settings.huaweicloud_region)


def _name_pattern(settings: Settings) -> re.Pattern[str] | None:
    try:
        pattern = settings.name_pattern
        return compile_name_pattern(pattern, settings.name_max_length) if pattern else None
    except NamePatternError as error:
        raise SettingsError(f"NAME_PATTERN is malformed: it {error}") from None


def _aws(settings: Settings) -> Aws:
    key = None
    if settings.aws_access_key_id and settings.aws_secret_access_key:
        key = Key(settings.aws_access_key_id, settings.aws_secret_access_key, settings.aws_session_token)
    return Aws(region=settings.aws_region, endpoints=settings.aws_endpoints, key=key, ca_bundle=settings.aws_ca_bundle)


def _huawei(settings: Settings, aws: Aws, telemetry: Telemetry) -> tuple[CredentialsProvider, EndpointServices]:
    own = settings.huaweicloud_region
    try:
        credentials = _credentials(settings, aws)
        return credentials, HuaweiEndpointServices(
            credentials,
            region=own,
            regions=settings.allowed_regions | {own},
            endpoints=settings.vpcep_endpoints,
            pool_size=settings.max_parallel_renames,
            on_call=telemetry.record_call,
        )
    except UnknownRegionError as error:
        variable = "HUAWEICLOUD_REGION" if str(error) == own else "ALLOWED_REGIONS"
        raise SettingsError(f"{variable} names a region that VPCEP is not known in") from None


def _credentials(settings: Settings, aws: Aws) -> CredentialsProvider:
    match settings.key:
        case StaticKey():
            return StaticCredentials(Credentials(*settings.key))
        case KeySecret(secret, default_project):
            return SecretCredentials(SecretsManagerClient(aws), secret, default_project=default_project)
        case IdentityProvider(idp_id, audience, endpoint, project_id):
            endpoint = endpoint or iam_endpoint(settings.huaweicloud_region, settings.vpcep_endpoints)
            if endpoint is None:
                raise SettingsError(
                    "HUAWEICLOUD_SDK_IAM_ENDPOINT is missing: VPCEP's endpoint does not tell that of IAM"
                )
            iam = Iam(idp_id, project_id, endpoint=endpoint)
            return FederatedCredentials(StsClient(aws), iam, audience=audience)
