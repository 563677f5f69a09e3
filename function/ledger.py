"""Talks to DynamoDB: what is remembered of rename events between invocations.

One table, its key the string ``id``, two kinds of items of this module (the outage breaker keeps a third there):

* ``event#…``, a rename event that was claimed for or concluded: a digest of what it asked for, its time, and the
  region and project it was first claimed for in; once it has an outcome, that, whether it is ``settled`` or
  ``given_up``, and which round it was.
* ``service#…``, an endpoint service: the claim of the invocation that renames it now, and its newest rename: the time
  of its event, in microseconds since the epoch with up to three decimals, and the event's name. Ids of services that
  differ in case only are one service here.

The form of the items is kept from version 1.0 on: during a gradual deployment two versions work on one table.

Which write makes which promise true:

* *One outcome an event*: ``settle`` and ``conclude`` write the event's item on the condition that it has no outcome, or
  that of the given-up round that this round follows. Whoever comes second gets the first one's outcome to repeat.
* *No stale rename*: ``claim`` succeeds on the condition that the service's newest rename is not newer than the event;
  ``settle`` moves the newest rename on in the transaction that also settles the event.
* *One rename in flight a service*: ``claim`` succeeds on the condition that nobody holds the claim, or that it has
  expired; ``settle`` is refused to whoever lost it. A claim is written before any call, and lasts until a minute
  after the end of its invocation. The bound that this rests on: a rename takes effect at most fifty seconds after the
  end of the invocation that called for it, and the clocks of two environments are at most ten seconds apart.
* *A duplicate makes no call*: ``claim`` checks the event's item in the same transaction that takes the claim, so that
  no duplicate slips in between.
* *An identifier means one event*: whatever writes the event's item does so on the condition that its digest, if it has
  one, is this event's. And one time, that of its first claim: a copy whose sender left the time to the transport is not
  newer for coming later. And one endpoint service: an event that names no region or project keeps those that the
  settings and the secret named when it was first claimed for.

What a crash leaves behind: before ``claim``, nothing. Between ``claim`` and ``settle``, a claim that expires a minute
after the invocation's time-out; the event comes again and is renamed again, to the same name. After ``settle``, an
outcome that may not be on the bus; the event comes again and the outcome is repeated.

Powertools' idempotency keeps its record by itself, so the record and the claim could not change in one transaction.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from random import SystemRandom
from typing import Any, Final, Protocol, cast

from botocore.exceptions import BotoCoreError, ClientError

from function import failures
from function.deadline import Deadline
from function.events import FIRST_ROUND, Outcome, RenameEvent, Round, outcome_from_json
from function.failures import EventName, RenameFailedError
from function.rename import Claim, Known, Located, Reused, Superseded, Target

# Queue and dead-letter queue keep a message for up to 14 days each, and a redrive starts the first one anew.
RETENTION: Final = timedelta(days=35)
# A stale event may come out of somebody's archive; there are no more of these items than endpoint services. One that
# was never renamed is forgotten like an event, for its id may be anything that an event names.
NEWEST_RENAME_RETENTION: Final = timedelta(days=3_650)
# A claim must outlive its invocation, for a rename may take effect after that, and clocks differ.
CLAIM_SLACK_SECONDS: Final = 60.0
# Of a transaction that meets another one, which botocore does not repeat.
MAX_ATTEMPTS: Final = 4
BACKOFF_BASE_SECONDS: Final = 0.02
_UNIFORM: Final = SystemRandom().uniform
_BUSY: Final = "TransactionConflict"
_REFUSED: Final = "ConditionalCheckFailed"
_ANSWERS: Final = frozenset({"None", _REFUSED, _BUSY})
_SETTLED: Final = "settled"
_GIVEN_UP: Final = "given_up"

Item = Mapping[str, Any]


class DynamoDbClient(Protocol):
    """As boto3's, with the deadline of each request."""

    def get_item(self, deadline: Deadline, **request: Any) -> dict[str, Any]: ...

    def update_item(self, deadline: Deadline, **request: Any) -> dict[str, Any]: ...

    def transact_write_items(self, deadline: Deadline, **request: Any) -> dict[str, Any]: ...


class LedgerSchemaError(ValueError):
    """The table is not there, or its key is not the string ``id`` alone. Carries AWS's error code."""


class NoLedger:
    """Remembers nothing: duplicates and stale events are not recognised."""

    def claim(self, event: RenameEvent, target: Target, deadline: Deadline) -> Claim:  # noqa: ARG002 - the protocol's
        return Claim("", FIRST_ROUND, event, target)

    def settle(self, claim: Claim, outcome: Outcome, deadline: Deadline, *, release: bool) -> None:
        """Forget it at once."""

    def conclude(
        self,
        event: RenameEvent,
        round_: Round,
        outcome: Outcome,
        deadline: Deadline,
        *,
        of_this_time: bool = False,
        unclaimed: bool = False,
        target: Target | None = None,
    ) -> None:
        """Forget it at once."""

    def release(self, claim: Claim, deadline: Deadline) -> None:
        """Nobody holds anything."""


class DynamoDbLedger:
    """The ledger in a DynamoDB table."""

    def __init__(
        self,
        client: DynamoDbClient,
        table: str,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            table: name or ARN.
            now: seconds since the epoch.
        """
        self._client = client
        self._table = table
        self._now = now
        self._sleep = sleep

    def outage_is_recorded(self, region: str, deadline: Deadline) -> bool:
        """Whether the region's outage breaker keeps a state here that is not closed. False where that cannot be read.

        The first request to the table, so that one which is not as this module needs it is found before any call.

        Raises:
            LedgerSchemaError: it will never work.
        """
        try:
            answer = self._client.get_item(
                deadline,
                TableName=self._table,
                Key=_key(breaker_item(region)),
                ProjectionExpression="#state",
                ExpressionAttributeNames={"#state": "state"},
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("ResourceNotFoundException", "ValidationException"):
                raise LedgerSchemaError(code) from None
            return False
        except BotoCoreError:
            return False
        state: dict[str, str] = answer.get("Item", {}).get("state", {})
        return state.get("S", "CLOSED") != "CLOSED"

    def claim(
        self, event: RenameEvent, target: Target, deadline: Deadline, round_: Round = FIRST_ROUND
    ) -> Claim | Known | Reused | Superseded:
        """Take the endpoint service for this event.

        Args:
            target: taken where the event has not been claimed for in another region or project before.
            deadline: the claim expires a while after the end of its invocation.

        Returns:
            The claim, or why the event must not be carried out.

        Raises:
            RenameFailedError: another invocation holds the service, or the ledger cannot be reached.
        """
        claim = Claim(uuid.uuid4().hex, round_, event, target, deadline.invocation_ends_at + CLAIM_SLACK_SECONDS)
        refused = self._write(deadline, self._take_identity(claim), self._take_service(claim))
        item, service = refused or (None, None)
        if refused is None or (service is not None and service.get("owner") == {"S": claim.token}):
            return claim
        if item is None:
            if service is not None and "newest_time" in service and _newest_time(service) > event.time_microseconds:
                return Superseded(EventName(*json.loads(service["newest_event"]["S"])), round_, event)
            raise RenameFailedError(failures.in_progress(self._seconds_until_free(service)))
        if item["digest"]["S"] == event.digest:
            first, located = event.at(item["time"]["S"]), _located(item, target)
            if (first, located) != (event, target):
                return self.claim(first, located, deadline, round_)
        known = _known(event, item)
        if isinstance(known, Known) and known.next_round not in (None, round_):
            return self.claim(event, target, deadline, known.next_round)
        return known

    def _take_identity(self, claim: Claim) -> dict[str, Any]:
        open_for = _is_open_for(claim.event, claim.round, of_this_time=True, target=claim.target)
        open_for["ExpressionAttributeValues"][":expiration"] = self._expiration()
        return {
            "Update": {
                "TableName": self._table,
                "Key": _event_key(claim.event),
                "UpdateExpression": "SET digest = :digest, #time = :time, #target = :target, expiration = :expiration",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                **open_for,
            }
        }

    def _take_service(self, claim: Claim) -> dict[str, Any]:
        return {
            "Update": {
                "TableName": self._table,
                "Key": _service_key(claim.target),
                "UpdateExpression": "SET #owner = :token, lapses = :lapses"
                ", expiration = if_not_exists(kept_until, :expiration)",
                "ConditionExpression": "(attribute_not_exists(#owner) OR lapses < :now)"
                " AND (attribute_not_exists(newest_time) OR newest_time <= :time)",
                "ExpressionAttributeNames": {"#owner": "owner"},
                "ExpressionAttributeValues": {
                    ":token": {"S": claim.token},
                    ":now": _number(self._now()),
                    ":lapses": _number(claim.expires_at),
                    ":time": _number(claim.event.time_microseconds),
                    ":expiration": self._expiration(),
                },
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def settle(self, claim: Claim, outcome: Outcome, deadline: Deadline, *, release: bool) -> Known | Reused | None:
        """Remember the outcome, and release the claim.

        Args:
            release: False leaves the claim to expire, for a call that may yet take effect.

        Returns:
            None when that is done, else what is known of the event already; then nothing is changed.

        Raises:
            RenameFailedError: the claim is lost, or the ledger cannot be reached. Nothing is known to be remembered.
        """
        event = claim.event
        values: dict[str, Any] = {":token": {"S": claim.token}}
        change = "REMOVE #owner, lapses" if release else "SET #owner = :token"
        if outcome.failure is None:
            change += f"{' SET' if release else ','} newest_time = :time, newest_event = :event"
            change += ", kept_until = :kept_until, expiration = :kept_until"
            values |= {
                ":time": _number(event.time_microseconds),
                ":event": {"S": json.dumps(EventName(event.source, event.id))},
                ":kept_until": self._expiration(NEWEST_RENAME_RETENTION),
            }
        release_service = {
            "Update": {
                "TableName": self._table,
                "Key": _service_key(claim.target),
                "UpdateExpression": change,
                "ConditionExpression": "#owner = :token",
                "ExpressionAttributeNames": {"#owner": "owner"},
                "ExpressionAttributeValues": values,
            }
        }
        refused = self._write(deadline, self._remember(event, claim.round, outcome), release_service)
        if refused is None or _remembers(refused[0], outcome):
            return None
        if refused[0] is not None:
            return _known(event, refused[0])
        raise RenameFailedError(failures.claim_lost())

    def conclude(
        self,
        event: RenameEvent,
        round_: Round,
        outcome: Outcome,
        deadline: Deadline,
        *,
        of_this_time: bool = False,
        unclaimed: bool = False,
        target: Target | None = None,
    ) -> Known | Reused | Located | None:
        """Remember an outcome that no rename led to: refused, superseded, or given up. Raises as ``settle``.

        Args:
            of_this_time: the outcome is right for an event of this time only.
            unclaimed: the outcome is right only for an event that has never been claimed for.
            target: the outcome is right for an event of this region and project only.

        Returns:
            As ``settle``; or where the event was claimed for, where the outcome is right for another one only.
        """
        request = self._remember(event, round_, outcome, of_this_time=of_this_time, unclaimed=unclaimed, target=target)
        refused = self._write(deadline, request)
        if refused is None or _remembers(refused[0], outcome):
            return None
        item = refused[0]
        if item is None:
            raise RenameFailedError(failures.in_progress())
        known = _known(event, item) if item["digest"]["S"] != event.digest or "state" in item else None
        if known is not None and (isinstance(known, Reused) or known.next_round is None):
            return known
        wanted = target or Target("", "", event.vpc_endpoint_service_id)
        located = _located(item, wanted)
        if (target is not None and located != target) or (unclaimed and (known is None or "target" in item)):
            return Located(located)
        if known is None:
            raise RenameFailedError(failures.in_progress())
        return known

    def release(self, claim: Claim, deadline: Deadline) -> None:
        """Release the claim without an outcome. Where that fails, it expires by itself."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                self._client.update_item(
                    deadline,
                    TableName=self._table,
                    Key=_service_key(claim.target),
                    UpdateExpression="REMOVE #owner, lapses",
                    ConditionExpression="#owner = :token",
                    ExpressionAttributeNames={"#owner": "owner"},
                    ExpressionAttributeValues={":token": {"S": claim.token}},
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "TransactionConflictException":
                    return
                self._back_off(attempt)
            except BotoCoreError:
                return
            else:
                return

    def _remember(
        self,
        event: RenameEvent,
        round_: Round,
        outcome: Outcome,
        *,
        of_this_time: bool = False,
        unclaimed: bool = False,
        target: Target | None = None,
    ) -> dict[str, Any]:
        given_up = outcome.failure is not None and outcome.failure.retryable
        open_for = _is_open_for(event, round_, of_this_time=of_this_time, unclaimed=unclaimed, target=target)
        return {
            "Update": {
                "TableName": self._table,
                "Key": _event_key(event),
                "UpdateExpression": "SET digest = :digest, #time = if_not_exists(#time, :time), #state = :state"
                ", #round = :round, outcome = :outcome, expiration = :expiration",
                "ConditionExpression": open_for["ConditionExpression"],
                "ExpressionAttributeNames": open_for["ExpressionAttributeNames"]
                | {"#state": "state", "#round": "round", "#time": "time"},
                "ExpressionAttributeValues": open_for["ExpressionAttributeValues"]
                | {
                    ":time": {"S": event.cloud_event["time"]},
                    ":state": {"S": _GIVEN_UP if given_up else _SETTLED},
                    ":round": _number(round_.number),
                    ":outcome": {"S": outcome.to_json()},
                    ":expiration": self._expiration(),
                },
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def _write(self, deadline: Deadline, *items: Mapping[str, Any]) -> list[Item | None] | None:
        """All of the items, or none, whatever other transactions are at them now.

        Returns:
            None when they are written, else for each item what stands in its way; None where nothing does. That may be
            what an earlier try has written whose answer was lost.

        Raises:
            RenameFailedError: the ledger cannot be reached, or is busy.
        """
        for attempt in range(1, MAX_ATTEMPTS + 1):
            reasons = self._transact(items, deadline)
            if reasons is None:
                return None
            codes = {reason["Code"] for reason in reasons}
            if _BUSY not in codes or _REFUSED in codes:
                return [reason.get("Item") for reason in reasons]
            if attempt < MAX_ATTEMPTS:
                self._back_off(attempt)
        raise RenameFailedError(failures.ledger_unavailable(_BUSY))

    def _back_off(self, attempt: int) -> None:
        self._sleep(_UNIFORM(0, BACKOFF_BASE_SECONDS * 2**attempt))

    def _transact(self, items: Sequence[Mapping[str, Any]], deadline: Deadline) -> list[dict[str, Any]] | None:
        """Why nothing was written, for each item; None when all are. The token lets a client ask twice."""
        try:
            self._client.transact_write_items(deadline, TransactItems=items, ClientRequestToken=str(uuid.uuid4()))
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code != "TransactionCanceledException":
                raise RenameFailedError(failures.ledger_unavailable(code)) from error
            reasons = cast("list[dict[str, Any]]", error.response["CancellationReasons"])
            refusals = [reason["Code"] for reason in reasons if reason["Code"] not in _ANSWERS]
            if refusals:
                raise RenameFailedError(failures.ledger_unavailable(refusals[0])) from error
            return reasons
        except BotoCoreError as error:
            raise RenameFailedError(failures.ledger_unavailable(type(error).__name__)) from error
        return None

    def _seconds_until_free(self, service: Item | None) -> float | None:
        """Until a claim expires that stands in the way; a little more, for the condition is that it has expired."""
        if service is None or "lapses" not in service:
            return None
        return max(0.0, float(service["lapses"]["N"]) - self._now()) + 1.0

    def _expiration(self, retention: timedelta = RETENTION) -> dict[str, str]:
        return _number(int(self._now() + retention.total_seconds()))


def breaker_item(region: str) -> str:
    """The id of the item in which the outage breaker of a region of VPCEP keeps its state."""
    return f"breaker#vpcep/{region}"


def _key(name: str) -> dict[str, Any]:
    return {"id": {"S": name}}


def _event_key(event: RenameEvent) -> dict[str, Any]:
    identity = json.dumps([event.source, event.id]).encode()
    return _key(f"event#{hashlib.sha256(identity).hexdigest()}")


def _service_key(target: Target) -> dict[str, Any]:
    """Without regard to case: whether Huawei Cloud tells two spellings of an id apart is not known."""
    return _key(f"service#{_place(target)}/{target.vpc_endpoint_service_id.lower()}")


def _place(target: Target) -> str:
    return f"{target.region}/{target.project_id}"


def _located(item: Item, target: Target) -> Target:
    """The target, in the region and project that the event was first claimed for in."""
    if "target" not in item:
        return target
    region, _, project_id = item["target"]["S"].partition("/")
    return target._replace(region=region, project_id=project_id)


def _is_open_for(
    event: RenameEvent, round_: Round, *, of_this_time: bool, unclaimed: bool = False, target: Target | None
) -> dict[str, Any]:
    """The condition that this event, and no other of its identity, awaits the outcome of this round."""
    names = {"#state": "state"}
    values = {":digest": {"S": event.digest}}
    same = "digest = :digest"
    if of_this_time:
        same += " AND #time = :time"
        names["#time"] = "time"
        values[":time"] = {"S": event.cloud_event["time"]}
    if target is not None:
        same += " AND (attribute_not_exists(#target) OR #target = :target)"
        names["#target"] = "target"
        values[":target"] = {"S": _place(target)}
    if unclaimed:
        same += " AND attribute_not_exists(#target)"
        names["#target"] = "target"
    if round_.number == 0 and unclaimed:
        condition, names, values = "attribute_not_exists(digest)", {}, {":digest": values[":digest"]}
    elif round_.number == 0:
        condition = f"attribute_not_exists(#state) AND (attribute_not_exists(digest) OR ({same}))"
    else:
        condition = f"#state = :given_up AND #round = :previous AND {same}"
        names["#round"] = "round"
        values |= {":given_up": {"S": _GIVEN_UP}, ":previous": _number(round_.number - 1)}
    return {
        "ConditionExpression": condition,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


def _known(event: RenameEvent, item: Item) -> Known | Reused:
    if item["digest"]["S"] != event.digest:
        return Reused()
    outcome = outcome_from_json(item["outcome"]["S"])
    if item["state"]["S"] == _SETTLED:
        return Known(outcome, next_round=None)
    return Known(outcome, Round(int(item["round"]["N"]) + 1, outcome.id))


def _newest_time(service: Item) -> Decimal:
    """Microseconds since the epoch."""
    return Decimal(service["newest_time"]["N"])


def _remembers(item: Item | None, outcome: Outcome) -> bool:
    """Whether an earlier try of the same write was carried out."""
    return item is not None and item.get("outcome") == {"S": outcome.to_json()}


def _number(value: float | Decimal) -> dict[str, str]:
    return {"N": str(value)}
