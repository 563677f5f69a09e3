"""The result that a rename event would have now. Only reads: nothing is written, recorded or published."""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from function.domain import failures
from function.domain.deadline import MIN_CALL_SECONDS
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import InvalidEvent, Outcome, ParsedEvent, RenameEvent, Target
from function.domain.outcomes import describe_failure, requested_data
from function.domain.policy import Policy
from function.domain.ports import Claim, Known, Ledger, ReadPurpose, Reply, Reused, Superseded
from function.domain.service_calls import MAX_SERVICE_NAME, Attempt, ServiceCalls, short_name
from function.domain.strict_json import replace_lone_surrogates, to_json


class Forecast(StrEnum):
    """The result of a dry run."""

    WOULD_RENAME = "would_rename"
    UNCHANGED = "unchanged"
    SETTLED = "settled"
    WOULD_FAIL = "would_fail"


class DryRun(NamedTuple):
    """The answer to a dry run.

    Attributes:
        event: as checked by the policy.
        region: of the endpoint service.
        project_id: of the endpoint service, None if unknown.
        service_name: the endpoint service's current name, None if it was not read.
        outcome: the event's recorded outcome, only for ``settled``.
        failure: only for ``would_fail``.
        cause: an unexpected exception, for the log.
    """

    event: ParsedEvent
    region: str
    project_id: str | None
    result: Forecast
    service_name: str | None = None
    outcome: Outcome | None = None
    failure: Failure | None = None
    cause: Exception | None = None

    def to_json(self) -> str:
        data = requested_data(self.event)
        body: dict[str, Any] = {
            "dry_run": True,
            "id": replace_lone_surrogates(self.event.id),
            "source": replace_lone_surrogates(self.event.source),
            "region": self.region,
            "project_id": self.project_id,
            "vpc_endpoint_service_id": data.get("vpc_endpoint_service_id"),
            "endpoint_service_name": data.get("endpoint_service_name"),
            "service_name": self.service_name,
            "result": self.result.value,
        }
        if self.outcome is not None:
            body["outcome"] = self.outcome.cloud_event
        if self.failure is not None:
            body["error"] = describe_failure(self.failure)
        return to_json(body)


@dataclass(eq=False, repr=False)
class DryRunner:
    """Checks the policy, the ledger and the service's name as a rename does, without changing anything."""

    calls: ServiceCalls
    ledger: Ledger
    policy: Policy

    def run(self, attempt: Attempt) -> DryRun:
        """Never raises."""
        try:
            return self._forecast(attempt, self._look_up(attempt))
        except RenameFailedError as error:
            return self._would_fail(attempt, error.failure)
        except Exception as error:  # noqa: BLE001 - the caller gets an answer, as for a rename
            return self._would_fail(attempt, failures.internal_error(), cause=error)

    def _look_up(self, attempt: Attempt) -> Claim | Known | Reused | Superseded:
        """What claiming the event would return.

        Raises:
            RenameFailedError: the event is rejected before that, or the answer is not available now.
        """
        judged = self.policy.judge_project(attempt.event, attempt.deadline)
        attempt.event = judged
        found = None
        if isinstance(judged, RenameEvent):
            if attempt.deadline.remaining() < MIN_CALL_SECONDS:
                raise RenameFailedError(failures.no_time_left())
            attempt.target = self.policy.target(judged, attempt.deadline)
            found = self.ledger.preview(judged, attempt.target, attempt.deadline)
        elif (event := judged.candidate) is not None:
            # An event that has had a claim is no longer rejected. For any other event the target does not matter.
            target = Target(event.region or self.policy.region, "", event.vpc_endpoint_service_id)
            with suppress(RenameFailedError):
                target = self.policy.target(event, attempt.deadline)
            found = self.ledger.preview(event, target, attempt.deadline, if_claimed=True)
            if found is not None:
                attempt.event, attempt.target = event, target
        if found is None:
            violations = judged.violations if isinstance(judged, InvalidEvent) else ()
            raise RenameFailedError(failures.invalid_event(violations))
        return found

    def _forecast(self, attempt: Attempt, found: Claim | Known | Reused | Superseded) -> DryRun:
        match found:
            case Claim(event=event, target=target):
                attempt.event, attempt.target = event, target
                name = _bounded(self.calls.retry(attempt, lambda: self._read(target, attempt)))
                if short_name(name) == event.endpoint_service_name:
                    return self._dry_run(attempt, Forecast.UNCHANGED, name)
                if event.expected_name not in (None, short_name(name)):
                    return self._would_fail(attempt, failures.precondition_failed(name), name)
                return self._dry_run(attempt, Forecast.WOULD_RENAME, name)
            case Known(outcome, _):
                return self._dry_run(attempt, Forecast.SETTLED, self._read_once(attempt))._replace(outcome=outcome)
            case Superseded(by):
                return self._would_fail(attempt, failures.superseded(by), self._read_once(attempt))
            case Reused():
                return self._would_fail(attempt, failures.identifier_reused(), self._read_once(attempt))

    def _read(self, target: Target, attempt: Attempt) -> Reply:
        return self.calls.read(target, attempt, ReadPurpose.DRY_RUN)

    def _read_once(self, attempt: Attempt) -> str | None:
        """The name, for results that do not depend on it. None if one call does not return it."""
        with suppress(RenameFailedError):
            if attempt.target is not None:
                return _bounded(self._read(attempt.target, attempt))
        return None

    def _would_fail(
        self, attempt: Attempt, failure: Failure, name: str | None = None, cause: Exception | None = None
    ) -> DryRun:
        return self._dry_run(attempt, Forecast.WOULD_FAIL, name)._replace(failure=failure, cause=cause)

    def _dry_run(self, attempt: Attempt, result: Forecast, name: str | None) -> DryRun:
        data, target = requested_data(attempt.event), attempt.target
        return DryRun(
            event=attempt.event,
            region=data.get("region") or (target.region if target else self.policy.region),
            project_id=data.get("project_id") or (target.project_id if target else None),
            result=result,
            service_name=name,
        )


def _bounded(reply: Reply) -> str:
    return (reply.name or "")[:MAX_SERVICE_NAME]
