"""One log line and the metrics of each event. Apart from the triggers, because both tell the same of an event.

No payload, no key, no signature: a line holds what is listed here. Exceptions are told by their type and place alone,
since their texts repeat what they choked on.
"""

import logging
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from function.events import InvalidEvent, Outcome, RenameEvent
from function.failures import Failure
from function.rename import Unsettled

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.circuit_breaker import CircuitTransition

EVENT_HANDLED: Final = "rename event handled"
MAX_LOGGED_ID: Final = 256
_METRICS: Final = {
    ("settled", True): "Renamed",
    ("settled", False): "RenameFailed",
    ("given_up", False): "RenameGivenUp",
    ("unsettled", False): "RenameUnsettled",
    ("queued", False): "RenameQueued",
}
# At their debug level these write whole requests, signatures included, into the log; the SDK's own logger has no
# handler, so that its errors would go to stderr past every format.
_TALKATIVE: Final = ("botocore", "boto3", "urllib3", "HuaweiCloud-SDK-VpcepClient", "aws_lambda_powertools.utilities")


class Telemetry:
    """What the function tells its operators."""

    def __init__(self, namespace: str) -> None:
        """
        Args:
            namespace: of the metrics.
        """
        self._logger = Logger()
        self._metrics = Metrics(namespace=namespace)
        self._counting = threading.Lock()
        for name in _TALKATIVE:
            quiet = logging.getLogger(name)
            quiet.setLevel(logging.WARNING)
            if name.startswith("HuaweiCloud"):
                quiet.addHandler(logging.NullHandler())

    def handled(
        self,
        event: RenameEvent | InvalidEvent,
        result: Outcome | Unsettled,
        trigger: str,
        *,
        queued: bool = False,
        **keys: Any,
    ) -> None:
        """Log and count one event with its result.

        Args:
            queued: it has been handed to the queue.
            keys: what the trigger knows, as a message id or how often it was received.
        """
        failure = result.failure
        if isinstance(result, Unsettled):
            status = "queued" if queued else "unsettled"
        else:
            status = "given_up" if failure is not None and failure.retryable else "settled"
        line: dict[str, Any] = {
            "correlation_id": event.id[:MAX_LOGGED_ID],
            "event_source": event.source[:MAX_LOGGED_ID],
            "trigger": trigger,
            "status": status,
            "attempts": result.attempts,
            **keys,
        }
        if isinstance(event, RenameEvent):
            line["vpc_endpoint_service_id"] = event.vpc_endpoint_service_id
            if "traceparent" in event.cloud_event:
                line["traceparent"] = event.cloud_event["traceparent"]
        if isinstance(result, Outcome):
            line["outcome_id"] = result.id
            line["outcome_type"] = result.type
            line["huawei_request_id"] = result.cloud_event["data"]["huawei_request_id"]
        if failure:
            line |= _of_failure(failure)
        if isinstance(result, Unsettled) and result.cause:
            line |= _of_exception(result.cause)
        log = self._logger.warning if failure and not queued else self._logger.info
        log(EVENT_HANDLED, extra=line)
        with self._counting:
            self._metrics.add_metric(_METRICS[status, failure is None], MetricUnit.Count, 1)

    def breaker_turned(self, transition: "CircuitTransition") -> None:
        """The outage breaker opened, probes or closed."""
        is_open = transition.to_state.value == "OPEN"
        self._logger.warning("outage breaker turned", extra={"state": transition.to_state.value})
        with self._counting:
            self._metrics.add_metric("OutageBreakerOpen", MetricUnit.Count, int(is_open))

    def unexpected(self, error: BaseException | None) -> None:
        """A defect that kept an event from being handled at all; its record goes back to the queue."""
        self._logger.error("rename event not handled", extra=_of_exception(error) if error else {})

    def said_once(self, message: str) -> None:
        """A warning about the set-up, at cold start."""
        self._logger.warning(message)

    def flush(self) -> None:
        """Write the metrics of one invocation."""
        if self._metrics.provider.metric_set:
            self._metrics.flush_metrics()


def _of_failure(failure: Failure) -> dict[str, Any]:
    return {
        "error_code": failure.code,
        "error_kind": failure.kind.value,
        "http_status": failure.http_status,
        "retryable": failure.retryable,
        "huawei_request_id": failure.huawei_request_id,
    }


def _of_exception(cause: BaseException) -> dict[str, Any]:
    places = traceback.extract_tb(cause.__traceback__)
    place = f"{places[-1].name}:{places[-1].lineno}" if places else None
    return {"exception_name": type(cause).__name__, "exception_place": place}
