"""Renames directly: with the function's domain and Huawei adapter in this process, without AWS."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from huaweicloudsdkvpcep.v1 import ListEndpointServiceRequest, model

from cli.model import Answer, Event, Line, Preview, Problem, StoppedError, problem_of_error, rename_event
from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.domain import failures
from function.domain.deadline import REPORT_SECONDS, Deadline
from function.domain.envelopes import Attributes
from function.domain.event_parser import EventParser
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import InvalidEvent, Outcome, ParsedEvent, Target
from function.domain.outcomes import describe_failure
from function.domain.policy import Policy
from function.domain.rename_service import RenameService, Unsettled
from function.domain.service_calls import short_name
from function.domain.strict_json import to_json

# The same as for an HTTP caller of the function.
EVENT_SECONDS: Final = 25.0
READ_SECONDS: Final = 10.0
PAGE: Final = 100
MAX_PAGE_TRIES: Final = 5
MAX_PAGE_WAIT_SECONDS: Final = 300.0
TRIGGER: Final = "http"


class Discard:
    """Publishes nothing: outcomes are in the results."""

    def publish(self, outcome: Outcome, deadline: Deadline) -> None:
        """Does nothing."""


class ListableEndpointServices(HuaweiEndpointServices):
    """Endpoint services that can be listed. The function never lists them, so its adapter cannot."""

    reply_models = model  # all models of the SDK, including those of lists

    def page(self, target: Target, offset: int, deadline: Deadline) -> list[Any]:
        """One page of endpoint services, oldest first, so that new ones do not move pages.

        Raises:
            RenameFailedError: for any exception of the SDK.
        """
        request = ListEndpointServiceRequest(limit=PAGE, offset=offset, sort_key="create_at", sort_dir="asc")
        found: list[Any] = []

        def operation(client: Any) -> str:
            services = client.list_endpoint_service(request).endpoint_services
            if services is None:
                raise RenameFailedError(failures.unconfirmed_reply(None, None))
            found.extend(services)
            return ""

        self._call(target, operation, deadline)
        return found


class Direct:
    """Renames with the key from the environment."""

    notes: Sequence[str] = ("Without a stack there is no ledger: duplicates and stale events are not recognised.",)

    def __init__(
        self,
        services: ListableEndpointServices,
        policy: Policy,
        rename_service: RenameService,
        *,
        endpoint: str,
        project_id: str,
        regions: frozenset[str],
    ) -> None:
        """
        Args:
            endpoint: of the default region, for display.
            project_id: the key's own.
            regions: known to the services.
        """
        self._services = services
        self._policy = policy
        self._rename_service = rename_service
        self._parser = EventParser()
        self._regions = regions
        self.default = policy.region, project_id
        self.where = f"{endpoint}, project {project_id}"

    def knows_region(self, region: str | None) -> bool:
        """Whether VPCEP is known to be available there; None is the default region."""
        return region is None or region in self._regions

    def violations(self, line: Line) -> list[str]:
        if not self.knows_region(line.region):
            return ["region: VPCEP is not known to be available there"]
        judged = self.judge(rename_event(line, "check", "2000-01-01T00:00:00Z"))
        violations = judged.violations if isinstance(judged, InvalidEvent) else ()
        return [f"{path.removeprefix('/data/')} {message}" for path, message in violations]

    def judge(self, event: Event) -> ParsedEvent:
        attributes = Attributes(event["id"], event["source"], event["time"], {})
        parsed = self._parser.parse(to_json(event), attributes, structured=True, may_be_enveloped=False)
        return self._policy.judge(parsed, _deadline(EVENT_SECONDS))

    def preview(self, event: Event) -> Preview:
        found = self._rename_service.dry_run(self.judge(event), _deadline(EVENT_SECONDS))
        return Preview(
            found.region,
            found.project_id or "",
            short_name(found.service_name),
            None if found.failure is None else problem_of(found.failure),
        )

    def rename(self, event: Event) -> Answer:
        parsed = self.judge(event)
        result = self._rename_service.settle(parsed, _deadline(EVENT_SECONDS), TRIGGER)
        if isinstance(result, Unsettled):
            unsettled = result.failure
            result = self._rename_service.give_up(parsed, result, _deadline(EVENT_SECONDS), TRIGGER)
            outcome = result.cloud_event if isinstance(result, Outcome) else None
            return Answer(outcome, problem_of(unsettled))
        return Answer(result.cloud_event, None if result.failure is None else problem_of(result.failure))

    def services(self, region: str | None, project_id: str | None) -> Iterator[tuple[str, str, str, str, str]]:
        """Region, project, id, name and status of each endpoint service.

        Raises:
            StoppedError: Huawei Cloud rejects the request, or does not respond.
        """
        target = Target(region or self.default[0], project_id or self.default[1], "list")
        offset = 0
        seen: set[str] = set()
        while True:
            page = self._page(target, offset)
            for service in page:
                if service.id not in seen:
                    seen.add(service.id)
                    name = short_name(service.service_name) or ""
                    yield target.region, target.project_id, service.id, name, service.status or ""
            if len(page) < PAGE:
                return
            offset += len(page)

    def _page(self, target: Target, offset: int) -> list[Any]:
        tries = 0
        while True:
            try:
                return self._services.page(target, offset, _deadline(READ_SECONDS))
            except RenameFailedError as error:
                failure = error.failure
                tries += 1
                if failure.kind not in (Kind.THROTTLED, Kind.UNAVAILABLE) or tries == MAX_PAGE_TRIES:
                    raise StoppedError(str(problem_of(failure))) from None
                time.sleep(min(failure.retry_after or 2.0**tries, MAX_PAGE_WAIT_SECONDS))


def problem_of(failure: Failure) -> Problem:
    return problem_of_error(
        describe_failure(failure),
        failure.retry_after,
        key_advice="Huawei Cloud refuses the key: look at HUAWEICLOUD_SDK_AK, HUAWEICLOUD_SDK_SK, "
        "HUAWEICLOUD_SDK_SECURITY_TOKEN, HUAWEICLOUD_SDK_PROJECT_ID and this machine's clock. "
        "Five refusals in a row lock the key, so nothing more is sent.",
    )


def _deadline(seconds: float) -> Deadline:
    now = time.time()
    return Deadline(now + seconds, now + seconds + 2 * REPORT_SECONDS)
