"""The Lambda entry point: dispatches by event type."""

import gc
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

# Imported objects are permanent: collecting garbage among them would slow down the cold start.
gc.disable()
try:
    from function.adapters.aws.dynamodb_ledger import LedgerSchemaError
    from function.bootstrap import Components
    from function.domain.deadline import Deadline
    from function.settings import Settings, SettingsError, load
    from function.workers import Workers
finally:
    gc.freeze()
    gc.enable()

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# Reserved at the end of an invocation, to publish outcomes and to respond.
REPORT_MARGIN_SECONDS: Final = 4.0


class UnknownTriggerError(ValueError):
    """The event is not from SQS or API Gateway, and is not a redrive."""


class Function:
    """The function with all its objects, one per process."""

    def __init__(self, settings: Settings) -> None:
        self._components = Components(settings)
        self._find_recorded_outage = self._components.find_recorded_outage  # None: nothing is left to check

    def handle(self, event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
        ends_at = time.time() + context.get_remaining_time_in_millis() / 1000
        deadline = Deadline(ends_at - REPORT_MARGIN_SECONDS, ends_at)
        try:
            self._check_ledger_schema(deadline)
            match event:
                case {"Records": [*records]} if all(_is_of_sqs(record) for record in records):
                    return self._components.sqs.handle(event, deadline)
                case {"httpMethod": str(), "requestContext": {"requestTimeEpoch": int()}}:
                    return self._components.http.handle(event, deadline)
                case {"redrive": True}:
                    return self._redrive(deadline)
        finally:
            self._components.telemetry.flush()
        raise UnknownTriggerError("the event is neither an SQS event nor a proxy event of API Gateway, nor a redrive")

    def _check_ledger_schema(self, deadline: Deadline) -> None:
        """Runs before the first event is parsed, because no module uses the network at import."""
        if self._find_recorded_outage is None:
            return
        try:
            if Workers(1).run([partial(self._find_recorded_outage, deadline)], deadline):
                self._find_recorded_outage = None
        except LedgerSchemaError as error:
            raise SettingsError(f"LEDGER_TABLE is malformed: no table whose key is the string id ({error})") from None

    def _redrive(self, deadline: Deadline) -> dict[str, Any]:
        """Redrive dead letters. No call is made for an event that has been settled meanwhile."""
        dead_letters, queue = self._components.dead_letter_queue, self._components.rename_queue
        if dead_letters is None or queue is None:
            raise SettingsError("a redrive needs DEAD_LETTER_QUEUE_URL and RENAME_QUEUE_URL")
        moved = Workers(1).run([partial(dead_letters.move_all, queue, deadline)], deadline.to_report())
        if not moved:
            raise TimeoutError("SQS does not answer")
        return {"moved": moved[0]}


def _is_of_sqs(record: object) -> bool:
    return isinstance(record, dict) and record.get("eventSource") == "aws:sqs"


_function = Function(load())


def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Handle SQS events, proxy events of an API Gateway REST API, and ``{"redrive": true}``.

    Returns:
        A partial batch response for SQS events, a proxy response for API Gateway, ``{"moved": n}`` for a redrive.

    Raises:
        UnknownTriggerError: the event is none of these.
    """
    return _function.handle(event, context)
