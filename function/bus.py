"""Talks to EventBridge: puts outcomes on the outcome bus."""

import time
from random import SystemRandom
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from function import failures
from function.events import OUTCOME_SOURCE, Outcome
from function.failures import RenameFailedError
from function.rename import SecondsLeft

MAX_ATTEMPTS: Final = 4
BACKOFF_BASE_SECONDS: Final = 0.1
_UNIFORM: Final = SystemRandom().uniform


class EventBridgeClient(Protocol):
    """As boto3's."""

    def put_events(self, **request: Any) -> dict[str, Any]: ...


class EventBridge:
    """The outcome bus."""

    def __init__(self, client: EventBridgeClient, bus: str) -> None:
        """
        Args:
            bus: name or ARN.
        """
        self._client = client
        self._bus = bus

    def publish(self, outcome: Outcome, left: SecondsLeft) -> None:
        """Put one outcome on the bus.

        A reply with status 200 may hold a refused entry, so the entry's own result is what counts.

        Raises:
            RenameFailedError: ``Rename.OutcomeNotPublished``, the bus did not take it in a few attempts.
        """
        refusal = self._put(outcome)
        for attempt in range(1, MAX_ATTEMPTS):
            wait = _UNIFORM(0, BACKOFF_BASE_SECONDS * 2**attempt)
            if refusal is None or left() < wait:
                break
            time.sleep(wait)
            refusal = self._put(outcome)
        if refusal is not None:
            raise RenameFailedError(failures.not_published(refusal))

    def _put(self, outcome: Outcome) -> str | None:
        """Why the bus refused it, None when it did not."""
        try:
            reply = self._client.put_events(
                Entries=[
                    {
                        "EventBusName": self._bus,
                        "Source": OUTCOME_SOURCE,
                        "DetailType": outcome.type,
                        "Detail": outcome.to_json(),
                    }
                ]
            )
        except ClientError as error:
            return error.response["Error"]["Code"]
        except BotoCoreError as error:
            return type(error).__name__
        refusal: str | None = reply["Entries"][0].get("ErrorCode")
        return refusal
