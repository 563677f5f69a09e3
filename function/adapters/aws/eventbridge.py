"""EventBridge: publishes outcomes on the outcome bus.

Group commit: the first thread that finds no request in flight sends the batch for every waiter; outcomes that arrive
meanwhile are sent with the next batch. No thread waits for a batch to fill, or longer than until its own deadline.
"""

import threading
import time
from collections.abc import Sequence
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from function.adapters.aws.client import EventBridgeClient, error_code
from function.domain import failures
from function.domain.backoff import full_jitter
from function.domain.deadline import Deadline
from function.domain.failures import RenameFailedError
from function.domain.model import Outcome
from function.domain.outcomes import OUTCOME_SOURCE

MAX_PUBLISH_ATTEMPTS: Final = 4
PUBLISH_BACKOFF_SECONDS: Final = 0.1
MAX_ENTRIES: Final = 10
# EventBridge counts source, type and detail; this leaves space for the first two.
MAX_REQUEST_BYTES: Final = 250_000
# After this time another thread may send too. The client's two attempts end sooner, except in a name lookup, which has
# no timeout.
MAX_REQUEST_SECONDS: Final = 10.0
# The bus did not confirm the outcome.
UNKNOWN_ANSWER: Final = "UnknownAnswer"


class _Entry:
    """An outcome to be published.

    Attributes:
        answer: why the bus rejected it, None if it did not; or an unexpected exception.
    """

    def __init__(self, outcome: Outcome) -> None:
        self.type = outcome.type
        self.detail = outcome.to_json()
        self.size = len(self.detail.encode())
        self.is_done = False
        self.answer: str | Exception | None = None


class EventBridge:
    """The outcome bus."""

    def __init__(self, client: EventBridgeClient, bus: str) -> None:
        """
        Args:
            bus: name or ARN.
        """
        self._client = client
        self._bus = bus
        self._condition = threading.Condition()
        self._waiting: list[_Entry] = []
        self._request_ends: Deadline | None = None

    def publish(self, outcome: Outcome, deadline: Deadline) -> None:
        """Publish one outcome.

        A response with status 200 may contain rejected entries, so only the entry's own result counts.

        Raises:
            RenameFailedError: ``Rename.OutcomeNotPublished``, the bus did not accept it in a few attempts.
        """
        refusal = self._put(outcome, deadline)
        for attempt in range(1, MAX_PUBLISH_ATTEMPTS):
            wait = full_jitter(attempt, base=PUBLISH_BACKOFF_SECONDS)
            if refusal is None or deadline.remaining() < wait:
                break
            time.sleep(wait)
            refusal = self._put(outcome, deadline)
        if refusal is not None:
            raise RenameFailedError(failures.not_published(refusal))

    def _put(self, outcome: Outcome, deadline: Deadline) -> str | None:
        """Why the bus rejected it, None if it did not."""
        entry = _Entry(outcome)
        with self._condition:
            self._waiting.append(entry)
            while not entry.is_done:
                busy = self._request_ends.remaining() if self._request_ends else 0.0
                if busy <= 0 and entry in self._waiting:
                    self._flush_batch(deadline)
                elif busy > 0 and (left := deadline.remaining()) > 0:
                    self._condition.wait(min(busy, left))
                else:
                    # It may still arrive, which is harmless: a copy has the same id.
                    if entry in self._waiting:
                        self._waiting.remove(entry)
                    return UNKNOWN_ANSWER
        if isinstance(entry.answer, Exception):
            raise entry.answer
        return entry.answer

    def _flush_batch(self, deadline: Deadline) -> None:
        """Send the oldest entries that fit into one request. Releases the condition during the request."""
        entries = _of_one_request(self._waiting)
        del self._waiting[: len(entries)]
        request_ends = self._request_ends = deadline.within(MAX_REQUEST_SECONDS)
        self._condition.release()
        answers: Sequence[str | Exception | None] = [UNKNOWN_ANSWER] * len(entries)
        try:
            answers = self._send(entries, request_ends)
        except Exception as error:  # noqa: BLE001 - each waiter raises it
            answers = [error] * len(entries)
        finally:
            self._condition.acquire()
            for entry, answer in zip(entries, answers, strict=True):
                entry.is_done, entry.answer = True, answer
            if self._request_ends is request_ends:
                self._request_ends = None
            self._condition.notify_all()

    def _send(self, entries: Sequence[_Entry], deadline: Deadline) -> list[str | None]:
        try:
            reply = self._client.put_events(
                deadline,
                Entries=[
                    {
                        "EventBusName": self._bus,
                        "Source": OUTCOME_SOURCE,
                        "DetailType": entry.type,
                        "Detail": entry.detail,
                    }
                    for entry in entries
                ],
            )
        except (ClientError, BotoCoreError) as error:
            return [error_code(error)] * len(entries)
        answers = [answer.get("ErrorCode") for answer in reply.get("Entries", [])]
        return answers if len(answers) == len(entries) else [UNKNOWN_ANSWER] * len(entries)


def _of_one_request(waiting: Sequence[_Entry]) -> list[_Entry]:
    """The oldest entries that fit into one request; at least one."""
    entries = [waiting[0]]
    size = waiting[0].size
    for entry in waiting[1:MAX_ENTRIES]:
        size += entry.size
        if size > MAX_REQUEST_BYTES:
            break
        entries.append(entry)
    return entries
