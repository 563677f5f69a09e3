"""Talks to DynamoDB: what is remembered of rename events between invocations.

One table, its key the string ``id``, two kinds of items of this module (the outage breaker keeps a third there):

* ``event#…``, a rename event that has an outcome: the outcome, whether it is ``settled`` or ``given_up``, which round
  it was, and a digest of what the event asked for.
* ``service#…``, an endpoint service: the claim of the invocation that renames it now, and its newest rename.

Which write makes which promise true:

* *One outcome an event*: ``settle`` and ``give_up`` put the event's item on the condition that it is not there, or that
  it is the given-up round that this round follows. Whoever comes second gets the first one's outcome to repeat.
* *No stale rename*: ``claim`` succeeds on the condition that the service's newest rename is not newer than the event;
  ``settle`` moves the newest rename on in the transaction that also settles the event.
* *One rename in flight a service*: ``claim`` succeeds on the condition that nobody holds the claim, or that it lapsed;
  ``settle`` is refused to whoever lost it.
* *A duplicate makes no call*: ``claim`` checks the event's item in the same transaction that takes the claim, so that
  no duplicate slips in between.

What a crash leaves behind: before ``claim``, nothing. Between ``claim`` and ``settle``, a claim that lapses with the
invocation's time-out; the event comes again and is renamed again, to the same name. After ``settle``, an outcome that
may not be on the bus; the event comes again and the outcome is repeated.

Powertools' idempotency keeps its record by itself, so the record and the claim could not change in one transaction.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.exceptions import BotoCoreError, ClientError

from function import failures
from function.events import FIRST_ROUND, Outcome, RenameEvent, Round, outcome_from_json
from function.failures import EventName, RenameFailedError
from function.rename import Claim, Known, Reused, Superseded, Target

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

# Queue and dead-letter queue keep a message for up to 14 days each, and a redrive starts the first one anew.
RETENTION: Final = timedelta(days=35)
# A stale event may come out of somebody's archive; there are no more of these items than endpoint services. One that
# was never renamed is forgotten like an event, for its id may be anything that an event names.
NEWEST_RENAME_RETENTION: Final = timedelta(days=3_650)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SETTLED: Final = "settled"
_GIVEN_UP: Final = "given_up"

Item = Mapping[str, Any]


class LedgerSchemaError(ValueError):
    """The table is not there, or its key is not the string ``id`` alone. Carries AWS's error code."""


class NoLedger:
    """Remembers nothing: duplicates and stale events are not recognised."""

    def claim(self, event: RenameEvent, target: Target, seconds: float) -> Claim:  # noqa: ARG002 - the protocol's
        return Claim(token="", round=FIRST_ROUND)

    def settle(self, event: RenameEvent, target: Target, claim: Claim, outcome: Outcome, *, free: bool) -> None:
        """Forget it at once."""

    def conclude(self, event: RenameEvent, round_: Round, outcome: Outcome) -> None:
        """Forget it at once."""

    def release(self, target: Target, claim: Claim) -> None:
        """Nobody holds anything."""


class DynamoDbLedger:
    """The ledger in a DynamoDB table."""

    def __init__(self, client: "DynamoDBClient", table: str, *, now: Callable[[], float] = time.time) -> None:
        """
        Args:
            table: name or ARN.
            now: seconds since the epoch.
        """
        self._client = client
        self._table = table
        self._now = now

    def check(self) -> None:
        """See that the table is as this module needs it. One that cannot be reached now is not found fault with.

        Raises:
            LedgerSchemaError: it will never work.
        """
        try:
            self._client.get_item(TableName=self._table, Key=_key("check"), ProjectionExpression="id")
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("ResourceNotFoundException", "ValidationException"):
                raise LedgerSchemaError(code) from None
        except BotoCoreError:
            pass

    def claim(
        self, event: RenameEvent, target: Target, seconds: float, round_: Round = FIRST_ROUND
    ) -> Claim | Known | Reused | Superseded:
        """Take the endpoint service for this event.

        Args:
            seconds: after which the claim lapses, should this invocation die.

        Returns:
            The claim, or why the event must not be carried out.

        Raises:
            RenameFailedError: another invocation holds the service, or the ledger cannot be reached.
        """
        now, token = self._now(), uuid.uuid4().hex
        time_ = _microseconds(event.time)
        event_is_open = {
            "ConditionCheck": {
                "TableName": self._table,
                "Key": _event_key(event),
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                **_is_open_for(round_),
            }
        }
        take_service = {
            "Update": {
                "TableName": self._table,
                "Key": _service_key(target),
                "UpdateExpression": "SET #owner = :token, lapses = :lapses"
                ", expiration = if_not_exists(expiration, :expiration)",
                "ConditionExpression": "(attribute_not_exists(#owner) OR lapses < :now)"
                " AND (attribute_not_exists(newest_time) OR newest_time <= :time)",
                "ExpressionAttributeNames": {"#owner": "owner"},
                "ExpressionAttributeValues": {
                    ":token": {"S": token},
                    ":now": _number(now),
                    ":lapses": _number(now + seconds),
                    ":time": _number(time_),
                    ":expiration": self._expiration(),
                },
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }
        refused = self._write(event_is_open, take_service)
        if refused is None:
            return Claim(token, round_)
        known, service = refused
        if known is not None:
            if known["digest"]["S"] != event.digest:
                return Reused()
            found = _known(known)
            if found.next_round is None:
                return found
            if found.next_round != round_:
                return self.claim(event, target, seconds, found.next_round)
        elif service is not None and "newest_time" in service and int(service["newest_time"]["N"]) > time_:
            return Superseded(EventName(*json.loads(service["newest_event"]["S"])), round_)
        raise RenameFailedError(failures.in_progress())

    def settle(self, event: RenameEvent, target: Target, claim: Claim, outcome: Outcome, *, free: bool) -> Known | None:
        """Remember the outcome, and give the endpoint service free.

        Args:
            free: False leaves the claim to lapse, for a call that may yet take effect.

        Returns:
            None when that is done, else what is known of the event already; then nothing is changed.

        Raises:
            RenameFailedError: the claim is lost, or the ledger cannot be reached. Nothing is known to be remembered.
        """
        values: dict[str, Any] = {":token": {"S": claim.token}}
        change = "REMOVE #owner, lapses" if free else "SET #owner = :token"
        if outcome.failure is None:
            change += f"{' SET' if free else ','} newest_time = :time, newest_event = :event, expiration = :expiration"
            values |= {
                ":time": _number(_microseconds(event.time)),
                ":event": {"S": json.dumps(EventName(event.source, event.id))},
                ":expiration": self._expiration(NEWEST_RENAME_RETENTION),
            }
        free_service = {
            "Update": {
                "TableName": self._table,
                "Key": _service_key(target),
                "UpdateExpression": change,
                "ConditionExpression": "#owner = :token",
                "ExpressionAttributeNames": {"#owner": "owner"},
                "ExpressionAttributeValues": values,
            }
        }
        refused = self._write(self._remember(event, claim.round, outcome), free_service)
        if refused is None:
            return None
        if refused[0] is not None:
            return _known(refused[0])
        raise RenameFailedError(failures.claim_lost())

    def conclude(self, event: RenameEvent, round_: Round, outcome: Outcome) -> Known | None:
        """Remember an outcome that no rename led to: superseded, or given up. Returns and raises as ``settle``."""
        refused = self._write(self._remember(event, round_, outcome))
        if refused is None:
            return None
        if refused[0] is None:
            raise RenameFailedError(failures.in_progress())
        return _known(refused[0])

    def release(self, target: Target, claim: Claim) -> None:
        """Give the endpoint service free without an outcome. Where that fails, the claim lapses by itself."""
        with suppress(BotoCoreError, ClientError):
            self._client.update_item(
                TableName=self._table,
                Key=_service_key(target),
                UpdateExpression="REMOVE #owner, lapses",
                ConditionExpression="#owner = :token",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues={":token": {"S": claim.token}},
            )

    def _remember(self, event: RenameEvent, round_: Round, outcome: Outcome) -> dict[str, Any]:
        given_up = outcome.failure is not None and outcome.failure.retryable
        return {
            "Put": {
                "TableName": self._table,
                "Item": {
                    **_event_key(event),
                    "digest": {"S": event.digest},
                    "state": {"S": _GIVEN_UP if given_up else _SETTLED},
                    "round": _number(round_.number),
                    "outcome": {"S": outcome.to_json()},
                    "expiration": self._expiration(),
                },
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                **_is_open_for(round_),
            }
        }

    def _write(self, *items: Mapping[str, Any]) -> list[Item | None] | None:
        """All of the items, or none. botocore gives each request a token, so that it may ask twice.

        Returns:
            None when they are written, else for each item what stands in its way; None where nothing does, or where
            another transaction is at it.
        """
        try:
            self._client.transact_write_items(TransactItems=cast("Sequence[TransactWriteItemTypeDef]", items))
        except self._client.exceptions.TransactionCanceledException as error:
            reasons = cast("list[dict[str, Any]]", error.response["CancellationReasons"])
            return [reason.get("Item") for reason in reasons]
        except ClientError as error:
            raise RenameFailedError(failures.ledger_unavailable(error.response["Error"]["Code"])) from error
        except BotoCoreError as error:
            raise RenameFailedError(failures.ledger_unavailable(type(error).__name__)) from error
        return None

    def _expiration(self, retention: timedelta = RETENTION) -> dict[str, str]:
        return _number(int(self._now() + retention.total_seconds()))


def _key(name: str) -> dict[str, Any]:
    return {"id": {"S": name}}


def _event_key(event: RenameEvent) -> dict[str, Any]:
    identity = json.dumps([event.source, event.id]).encode()
    return _key(f"event#{hashlib.sha256(identity).hexdigest()}")


def _service_key(target: Target) -> dict[str, Any]:
    return _key(f"service#{target.region}/{target.project_id}/{target.vpc_endpoint_service_id}")


def _is_open_for(round_: Round) -> dict[str, Any]:
    """The condition that the event awaits the outcome of this round."""
    if round_.number == 0:
        return {"ConditionExpression": "attribute_not_exists(id)"}
    return {
        "ConditionExpression": "#state = :given_up AND #round = :previous",
        "ExpressionAttributeNames": {"#state": "state", "#round": "round"},
        "ExpressionAttributeValues": {":given_up": {"S": _GIVEN_UP}, ":previous": _number(round_.number - 1)},
    }


def _known(item: Item) -> Known:
    outcome = outcome_from_json(item["outcome"]["S"])
    if item["state"]["S"] == _SETTLED:
        return Known(outcome, next_round=None)
    return Known(outcome, Round(int(item["round"]["N"]) + 1, outcome.id))


def _number(value: float) -> dict[str, str]:
    return {"N": repr(value)}


def _microseconds(time_: datetime) -> int:
    return (time_ - _EPOCH) // timedelta(microseconds=1)
