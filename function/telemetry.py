"""The log line and the metrics of each event, the same for all triggers.

A log line contains only the fields listed here: no payload, no key, no signature. Of an exception it has only type and
place, because the text may repeat input; of a failure a constant text per code, because the message may repeat a reply
or an event.
"""

import logging
import re
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from function.domain.dry_run import DryRun
from function.domain.event_parser import KNOWN_PATHS
from function.domain.failures import SUPERSEDED, Failure, Violation, log_message
from function.domain.model import Outcome, ParsedEvent, RenameEvent
from function.domain.rename_service import Result, Unsettled

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.circuit_breaker import CircuitTransition

EVENT_HANDLED: Final = "rename event handled"
MAX_LOGGED_ID: Final = 256
MAX_LOGGED_PATHS: Final = 10
# A custom endpoint or a proxy may send any text instead of a code.
_AWS_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")
# At debug level these log whole requests, including signatures. The SDK's own logger has no handler, so its errors
# would go to stderr without a format.
_NOISY_LOGGERS: Final = (
    "botocore",
    "boto3",
    "urllib3",
    "HuaweiCloud-SDK-VpcepClient",
    "aws_lambda_powertools.utilities",
)


class Telemetry:
    """The function's log lines and metrics."""

    def __init__(self, namespace: str, metric_code: Callable[[str], str]) -> None:
        """
        Args:
            namespace: of the metrics.
            metric_code: maps the code of a failure, which may be any text, to one of a bounded set.
        """
        self._metric_code = metric_code
        self._logger = Logger()
        self._namespace = namespace
        # By kind and code of the failure, None without a failure.
        self._metrics: dict[tuple[str, str] | None, EphemeralMetrics] = {}
        # Groups of a batch run concurrently, and Powertools' metrics are not thread-safe.
        self._counting = threading.Lock()
        self._unreadable_is_told = False
        for name in _NOISY_LOGGERS:
            quiet = logging.getLogger(name)
            quiet.setLevel(logging.WARNING)
            if name.startswith("HuaweiCloud"):
                quiet.addHandler(logging.NullHandler())

    def handled(
        self,
        event: ParsedEvent,
        result: Result,
        trigger: str,
        *,
        queued: bool = False,
        queue_error_code: str | None = None,
        **keys: Any,
    ) -> None:
        """Log and count one event with its result.

        Args:
            queued: it has been sent to the queue.
            queue_error_code: AWS's, if a queue did not confirm it.
            keys: further fields from the trigger, such as message id, receive count and sender; None is left out.
        """
        failure = result.failure
        if isinstance(result, Unsettled):
            status = "queued" if queued else "unsettled"
        else:
            status = "given_up" if failure is not None and failure.retryable else "settled"
        line = _of_event(event, trigger, keys | {"status": status, "attempts": result.attempts})
        if isinstance(event, RenameEvent) and "traceparent" in event.cloud_event:
            line["traceparent"] = event.cloud_event["traceparent"]
        if isinstance(result, Outcome):
            line["outcome_id"] = result.id
            line["remembered"] = result.remembered
            line["outcome_type"] = result.type
            line["huawei_request_id"] = result.cloud_event["data"]["huawei_request_id"]
        if failure:
            line |= _of_failure(failure)
        if queue_error_code is not None:
            line["queue_error_code"] = _aws_code(queue_error_code)
        if isinstance(result, Unsettled) and result.cause:
            line |= _of_exception(result.cause)
        log = self._logger.warning if failure and not queued else self._logger.info
        log(EVENT_HANDLED, extra=line)
        self._count_result(event, result, **keys)

    def dry_run(self, dry_run: DryRun, trigger: str, **keys: Any) -> None:
        """Log a dry run, which is not counted in metrics of renames."""
        line = _of_event(dry_run.event, trigger, keys | {"status": "dry_run", "result": dry_run.result.value})
        if dry_run.failure:
            line |= _of_failure(dry_run.failure)
        if dry_run.cause:
            line |= _of_exception(dry_run.cause)
        self._logger.info("dry run", extra=line)

    def record_call(self, seconds: float) -> None:
        """Called with the duration of each request to Huawei Cloud, in seconds, whatever its result."""
        self._count("VpcepLatency", seconds * 1_000, MetricUnit.Milliseconds)

    def circuit_transitioned(self, transition: "CircuitTransition") -> None:
        """The circuit breaker opened, probes or closed."""
        state = transition.to_state.value
        self._logger.warning("outage breaker turned", extra={"state": state, "circuit": transition.circuit_name})
        self._count("OutageBreakerOpen", int(state == "OPEN"))

    def breaker_failed(self, error: Exception) -> None:
        """The circuit breaker failed before or after a call; the call was made nevertheless."""
        self._logger.warning("outage breaker failed", extra=_of_exception(error))

    def unexpected(self, error: BaseException | None, **keys: Any) -> None:
        """A defect prevented an event from being handled; its record is redelivered."""
        self._logger.error("rename event not handled", extra=keys | (_of_exception(error) if error else {}))
        self._count("RenameNotHandled")

    def startup_warning(self, message: str) -> None:
        """A warning about the configuration, at cold start."""
        self._logger.warning(message)

    def visibility_not_extended(self, aws_error_code: str) -> None:
        """Records return to the queue with its own visibility timeout, not with the delay that they should have."""
        self._logger.warning("visibility not extended", extra={"queue_error_code": _aws_code(aws_error_code)})

    def previous_name_unreadable(self, failure: Failure) -> None:
        """The key may not read endpoint services; renames are not affected. Logged once."""
        if not self._unreadable_is_told:
            self._unreadable_is_told = True
            message = "READ_PREVIOUS_NAME: the key may not read endpoint services, outcomes lack previous_service_name"
            self._logger.warning(message, extra=_of_failure(failure))

    def flush(self) -> None:
        """Write the metrics of one invocation."""
        with self._counting:
            counted, self._metrics = self._metrics, {}
        for metrics in counted.values():
            if metrics.metric_set:
                metrics.flush_metrics()

    def _count_result(
        self, event: ParsedEvent, result: Result, *, receive_count: int = 1, dead_letter: bool = False, **_: Any
    ) -> None:
        """Count each event in one metric, however often it is delivered; and its age, if settled or deferred."""
        remembered = isinstance(result, Outcome) and result.remembered
        if remembered and dead_letter:
            return  # it was counted when its outcome was decided
        if remembered and receive_count == 1:
            self._count("RenameDuplicate")
            return
        if remembered:
            self._count("RenamePublishedLate")
        name = _result_metric(result)
        self._count(name, failure=result.failure)
        # The age of a given-up event was counted while it waited.
        if isinstance(event, RenameEvent) and name != "RenameGivenUp":
            # A sender's clock may be ahead, and CloudWatch computes no percentiles of negative values.
            age = max(0.0, (datetime.now(UTC) - event.time).total_seconds())
            self._count("WaitingAge" if isinstance(result, Unsettled) else "EventAge", age, MetricUnit.Seconds)

    def _count(
        self, name: str, value: float = 1, unit: MetricUnit = MetricUnit.Count, failure: Failure | None = None
    ) -> None:
        key = (failure.kind.value, self._metric_code(failure.code)) if failure else None
        with self._counting:
            if key not in self._metrics:
                self._metrics[key] = self._of(key)
            self._metrics[key].add_metric(name, unit, value)

    def _of(self, key: tuple[str, str] | None) -> EphemeralMetrics:
        """Metrics by service and, for a failure, also by kind and by code."""
        metrics = EphemeralMetrics(namespace=self._namespace, service=self._logger.service)
        if key is not None:
            kind, code = key
            metrics.add_dimensions(service=self._logger.service, kind=kind)
            metrics.add_dimensions(service=self._logger.service, code=code)
        return metrics


def _result_metric(result: Result) -> str:
    if isinstance(result, Unsettled):
        return "RenameDeferred"
    if result.failure is None:
        return "Renamed"
    if result.failure.code == SUPERSEDED:
        return "RenameSuperseded"
    return "RenameGivenUp" if result.failure.retryable else "RenameFailed"


def _of_event(event: ParsedEvent, trigger: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of every event; keys that are None are left out."""
    line = {
        "correlation_id": event.id[:MAX_LOGGED_ID],
        "event_source": event.source[:MAX_LOGGED_ID],
        "trigger": trigger,
        **{name: value for name, value in keys.items() if value is not None},
    }
    if isinstance(event, RenameEvent):
        line["vpc_endpoint_service_id"] = event.vpc_endpoint_service_id
    return line


def _aws_code(code: object) -> str:
    return str(code) if _AWS_CODE.fullmatch(str(code)) else "Other"


def _of_failure(failure: Failure) -> dict[str, Any]:
    line = {
        "error_code": failure.code,
        "error_kind": failure.kind.value,
        "error_message": log_message(failure.code),
        "http_status": failure.http_status,
        "retryable": failure.retryable,
        "huawei_request_id": failure.huawei_request_id,
    }
    if failure.aws_error_code is not None:
        line["aws_error_code"] = _aws_code(failure.aws_error_code)
    if failure.violations:
        line["violation_paths"] = _paths(failure.violations)
    return line


def _paths(violations: Sequence[Violation]) -> str:
    """As one text, because CloudWatch Logs Insights creates a field for each item of a list."""
    paths = (
        path if path in KNOWN_PATHS else "/data/*" if path.startswith("/data/") else "/*" for path, _ in violations
    )
    return ", ".join(list(dict.fromkeys(path or "(whole event)" for path in paths))[:MAX_LOGGED_PATHS])


def _of_exception(cause: BaseException) -> dict[str, Any]:
    places = traceback.extract_tb(cause.__traceback__)
    place = f"{places[-1].name}:{places[-1].lineno}" if places else None
    return {"exception_name": type(cause).__name__, "exception_place": place}
