"""The ledger in DynamoDB: what is remembered of rename events between invocations.

One table, its key the string ``id``, two kinds of items of this module (the outage breaker keeps a third there):

* ``event#…``, a rename event that was claimed for or concluded: a digest of what it asked for, its time, and the
  region and project it was first claimed for in; once it has an outcome, that, whether it is ``settled`` or
  ``given_up``, and its redrive cycle (stored as ``round``).
* ``service#…``, an endpoint service: the claim of the invocation that renames it now, and its newest rename: the time
  of its event, in microseconds since the epoch with up to three decimals, and the event's name. Ids of services that
  differ in case only are one service here.

The form of the items is kept from version 1.0 on: during a gradual deployment two versions work on one table.

Which write guarantees what:

* *One outcome an event*: ``settle`` and ``conclude`` write the event's item on the condition that it has no outcome, or
  that of the given-up cycle that this one follows. The second writer gets the first one's outcome to repeat.
* *No stale rename*: ``claim`` succeeds on the condition that the service's newest rename is not newer than the event;
  ``settle`` moves the newest rename on in the transaction that also settles the event.
* *One rename in flight a service*: ``claim`` succeeds on the condition that there is no claim, or that it has expired;
  ``settle`` fails for an invocation that has lost it. A claim is written before any call, and lasts until a minute
  after the end of its invocation. This assumes that a rename takes effect at most fifty seconds after the
  end of its invocation, and that the clocks of two environments are at most ten seconds apart.
* *A duplicate makes no call*: ``claim`` checks the event's item in the same transaction that takes the claim, so that
  no duplicate slips in between.
* *An identifier means one event*: whatever writes the event's item does so on the condition that its digest, if it has
  one, is this event's. And one time, that of its first claim: a copy whose sender left the time to the transport is not
  newer for coming later. And one endpoint service: an event that names no region or project keeps those that the
  settings and the secret named when it was first claimed for.

What a crash leaves behind: before ``claim``, nothing. Between ``claim`` and ``settle``, a claim that expires a minute
after the invocation's time-out; the event comes again and is renamed again, to the same name. After ``settle``, an
outcome that may not be on the bus; the event comes again and the outcome is repeated.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, cast

from botocore.exceptions import BotoCoreError, ClientError

from function.adapters.aws.client import DynamoDbClient, error_code
from function.adapters.aws.ledger_items import (
    GIVEN_UP,
    SETTLED,
    Item,
    awaits_outcome_condition,
    breaker_item,
    event_key,
    key,
    known_from,
    number,
    remembers,
    service_key,
    superseded,
    target_of,
)
from function.domain import failures
from function.domain.backoff import full_jitter
from function.domain.deadline import Deadline
from function.domain.failures import EventName, RenameFailedError
from function.domain.model import FIRST_CYCLE, Outcome, RedriveCycle, RenameEvent, Target
from function.domain.ports import Claim, Conclusion, Known, Located, Reused, Superseded

# Queue and dead-letter queue keep a message for up to 14 days each, and a redrive starts again with the first one.
RETENTION: Final = timedelta(days=35)
# A stale event may come out of an archive; there are no more of these items than endpoint services. One that
# was never renamed is forgotten like an event, for its id may be anything that an event names.
NEWEST_RENAME_RETENTION: Final = timedelta(days=3_650)
# A claim must outlive its invocation, for a rename may take effect after that, and clocks differ.
CLAIM_SLACK_SECONDS: Final = 60.0
# Of a transaction that meets another one, which botocore does not repeat.
MAX_WRITE_ATTEMPTS: Final = 4
WRITE_BACKOFF_SECONDS: Final = 0.02
_BUSY: Final = "TransactionConflict"
_REFUSED: Final = "ConditionalCheckFailed"
_ANSWERS: Final = frozenset({"None", _REFUSED, _BUSY})
_IS_HELD: Final = "#owner = :token"
_RETURN_ITEM: Final = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


class LedgerSchemaError(ValueError):
    """The table is not there, or its key is not the string ``id`` alone. Carries AWS's error code."""


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
        """Whether the region's outage breaker keeps a state here that is not closed. False if that cannot be read.

        The first request to the table, so that an unsuitable table is found before any call to Huawei Cloud.

        Raises:
            LedgerSchemaError: the table cannot be used.
        """
        try:
            answer = self._client.get_item(
                deadline,
                TableName=self._table,
                Key=key(breaker_item(region)),
                ProjectionExpression="#state",
                ExpressionAttributeNames={"#state": "state"},
            )
        except (ClientError, BotoCoreError) as error:
            code = error_code(error)
            if code in ("ResourceNotFoundException", "ValidationException"):
                raise LedgerSchemaError(code) from None
            return False
        state: dict[str, str] = answer.get("Item", {}).get("state", {})
        return state.get("S", "CLOSED") != "CLOSED"

    def claim(
        self, event: RenameEvent, target: Target, deadline: Deadline, cycle: RedriveCycle = FIRST_CYCLE
    ) -> Claim | Known | Reused | Superseded:
        """Take the endpoint service for this event.

        Args:
            target: taken if the event has not been claimed for in another region or project before.
            deadline: the claim expires a while after the end of its invocation.

        Returns:
            The claim, or why the event must not be carried out.

        Raises:
            RenameFailedError: another invocation holds the service, or the ledger cannot be reached.
        """
        claim = Claim(uuid.uuid4().hex, cycle, event, target, deadline.invocation_ends_at + CLAIM_SLACK_SECONDS)
        refused = self._write(deadline, self._claim_event(claim), self._claim_service(claim))
        item, service = refused or (None, None)
        if refused is None or (service is not None and service.get("owner") == {"S": claim.token}):
            return claim
        if item is None:
            if newer := superseded(service, cycle, event):
                return newer
            raise RenameFailedError(failures.in_progress(self._seconds_until_expiry(service)))
        if item["digest"]["S"] == event.digest:
            first, located = event.at(item["time"]["S"]), target_of(item, target)
            if (first, located) != (event, target):
                return self.claim(first, located, deadline, cycle)
        known = known_from(event, item)
        if isinstance(known, Known) and known.next_cycle not in (None, cycle):
            return self.claim(event, target, deadline, known.next_cycle)
        return known

    def preview(
        self, event: RenameEvent, target: Target, deadline: Deadline, *, if_claimed: bool = False
    ) -> Claim | Known | Reused | Superseded | None:
        """What ``claim`` would answer, by two reads. Raises as ``claim``."""
        item, cycle = self._get(event_key(event), deadline), FIRST_CYCLE
        if item is not None and (item["digest"]["S"] != event.digest or "state" in item):
            known = known_from(event, item)
            if isinstance(known, Reused) or known.next_cycle is None:
                return known
            cycle = known.next_cycle
        if if_claimed and (item is None or ("state" in item and "target" not in item)):
            return None
        if item is not None:
            event, target = event.at(item["time"]["S"]), target_of(item, target)
        service = self._get(service_key(target), deadline)
        if newer := superseded(service, cycle, event):
            return newer
        if service and "owner" in service and float(service["lapses"]["N"]) >= self._now():
            raise RenameFailedError(failures.in_progress(self._seconds_until_expiry(service)))
        return Claim("", cycle, event, target)

    def _get(self, name: Mapping[str, Any], deadline: Deadline) -> Item | None:
        try:
            return self._client.get_item(deadline, TableName=self._table, Key=name, ConsistentRead=True).get("Item")
        except (ClientError, BotoCoreError) as error:
            raise RenameFailedError(failures.ledger_unavailable(error_code(error))) from error

    def _claim_event(self, claim: Claim) -> dict[str, Any]:
        change = "SET digest = :digest, #time = :time, #target = :target, expiration = :expiration"
        return self._update_of_event(claim, change, {}, {":expiration": self._expiration()})

    def _claim_service(self, claim: Claim) -> dict[str, Any]:
        return self._update(
            service_key(claim.target),
            "SET #owner = :token, lapses = :lapses, expiration = if_not_exists(kept_until, :expiration)",
            "(attribute_not_exists(#owner) OR lapses < :now)"
            " AND (attribute_not_exists(newest_time) OR newest_time <= :time)",
            {"#owner": "owner"},
            {
                ":token": {"S": claim.token},
                ":now": number(self._now()),
                ":lapses": number(claim.expires_at),
                ":time": number(claim.event.time_microseconds),
                ":expiration": self._expiration(),
            },
            **_RETURN_ITEM,
        )

    def settle(self, claim: Claim, outcome: Outcome, deadline: Deadline, *, release: bool) -> Known | Reused | None:
        """Remember the outcome, and release the claim.

        Args:
            release: False leaves the claim to expire, for a call that may yet take effect.

        Returns:
            None when that is done, else what is known of the event already; then nothing is changed.

        Raises:
            RenameFailedError: the claim is lost, or the ledger cannot be reached.
        """
        event = claim.event
        values: dict[str, Any] = {":token": {"S": claim.token}}
        change = "REMOVE #owner, lapses" if release else "SET #owner = :token"
        if outcome.failure is None:
            change += f"{' SET' if release else ','} newest_time = :time, newest_event = :event"
            change += ", kept_until = :kept_until, expiration = :kept_until"
            values |= {
                ":time": number(event.time_microseconds),
                ":event": {"S": json.dumps(EventName(event.source, event.id))},
                ":kept_until": self._expiration(NEWEST_RENAME_RETENTION),
            }
        settled = self._remember(Conclusion(event, claim.cycle, outcome))
        renamed = self._update(service_key(claim.target), change, _IS_HELD, {"#owner": "owner"}, values)
        refused = self._write(deadline, settled, renamed)
        if refused is None or remembers(refused[0], outcome):
            return None
        if refused[0] is not None:
            return known_from(event, refused[0])
        raise RenameFailedError(failures.claim_lost())

    def conclude(self, conclusion: Conclusion, deadline: Deadline) -> Known | Reused | Located | None:
        """Remember an outcome that no rename led to. Raises as ``settle``.

        Returns:
            As ``settle``; or the target that the event was claimed for, if the outcome is for another target only.
        """
        event, target = conclusion.event, conclusion.target
        request = self._remember(conclusion)
        refused = self._write(deadline, request)
        if refused is None or remembers(refused[0], conclusion.outcome):
            return None
        item = refused[0]
        if item is None:
            raise RenameFailedError(failures.in_progress())
        known = known_from(event, item) if item["digest"]["S"] != event.digest or "state" in item else None
        if known is not None and (isinstance(known, Reused) or known.next_cycle is None):
            return known
        wanted = target or Target("", "", event.vpc_endpoint_service_id)
        located = target_of(item, wanted)
        if (target is not None and located != target) or (conclusion.unclaimed and (known is None or "target" in item)):
            return Located(located)
        if known is None:
            raise RenameFailedError(failures.in_progress())
        return known

    def release(self, claim: Claim, deadline: Deadline) -> None:
        """Release the claim without an outcome. Where that fails, it expires by itself."""
        service, values = service_key(claim.target), {":token": {"S": claim.token}}
        request = self._update(service, "REMOVE #owner, lapses", _IS_HELD, {"#owner": "owner"}, values)
        for attempt in range(1, MAX_WRITE_ATTEMPTS + 1):
            try:
                self._client.update_item(deadline, **request)
            except ClientError as error:
                if error_code(error) == "TransactionConflictException":
                    self._back_off(attempt)
                    continue
            except BotoCoreError:
                pass
            return

    def _remember(self, conclusion: Conclusion) -> dict[str, Any]:
        outcome = conclusion.outcome
        given_up = outcome.failure is not None and outcome.failure.retryable
        return self._update_of_event(
            conclusion,
            "SET digest = :digest, #time = if_not_exists(#time, :time), #state = :state"
            ", #round = :round, outcome = :outcome, expiration = :expiration",
            {"#state": "state", "#round": "round", "#time": "time"},
            {
                ":time": {"S": conclusion.event.cloud_event["time"]},
                ":state": {"S": GIVEN_UP if given_up else SETTLED},
                ":round": number(conclusion.cycle.number),
                ":outcome": {"S": outcome.to_json()},
                ":expiration": self._expiration(),
            },
        )

    def _update_of_event(
        self, claim: Claim | Conclusion, change: str, names: dict[str, str], values: dict[str, Any]
    ) -> dict[str, Any]:
        """An update of the event's item, on the condition that it awaits this outcome."""
        condition, own_names, own_values = awaits_outcome_condition(claim)
        key = event_key(claim.event)
        return self._update(key, change, condition, own_names | names, own_values | values, **_RETURN_ITEM)

    def _update(
        self,
        key: Mapping[str, Any],
        change: str,
        condition: str,
        names: Mapping[str, str],
        values: Mapping[str, Any],
        **options: str,
    ) -> dict[str, Any]:
        return {
            "TableName": self._table,
            "Key": key,
            "UpdateExpression": change,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            **options,
        }

    def _write(self, deadline: Deadline, *updates: Mapping[str, Any]) -> list[Item | None] | None:
        """Make all of the updates or none; retried if another transaction is in conflict.

        Returns:
            None when they are written; else for each the stored item that failed the condition, None if none did. It
            may have been written by an earlier attempt whose response was lost.

        Raises:
            RenameFailedError: the ledger cannot be reached, or is busy.
        """
        for attempt in range(1, MAX_WRITE_ATTEMPTS + 1):
            reasons = self._transact(updates, deadline)
            if reasons is None:
                return None
            codes = {reason["Code"] for reason in reasons}
            if _BUSY not in codes or _REFUSED in codes:
                return [reason.get("Item") for reason in reasons]
            if attempt < MAX_WRITE_ATTEMPTS:
                self._back_off(attempt)
        raise RenameFailedError(failures.ledger_unavailable(_BUSY))

    def _back_off(self, attempt: int) -> None:
        self._sleep(full_jitter(attempt, base=WRITE_BACKOFF_SECONDS))

    def _transact(self, updates: Sequence[Mapping[str, Any]], deadline: Deadline) -> list[dict[str, Any]] | None:
        """Why nothing was written, for each update; None when all are. The token lets a client ask twice."""
        try:
            items = [{"Update": update} for update in updates]
            self._client.transact_write_items(deadline, TransactItems=items, ClientRequestToken=str(uuid.uuid4()))
        except ClientError as error:
            code = error_code(error)
            if code != "TransactionCanceledException":
                raise RenameFailedError(failures.ledger_unavailable(code)) from error
            reasons = cast("list[dict[str, Any]]", error.response["CancellationReasons"])
            refusals = [reason["Code"] for reason in reasons if reason["Code"] not in _ANSWERS]
            if refusals:
                raise RenameFailedError(failures.ledger_unavailable(refusals[0])) from error
            return reasons
        except BotoCoreError as error:
            raise RenameFailedError(failures.ledger_unavailable(error_code(error))) from error
        return None

    def _seconds_until_expiry(self, service: Item | None) -> float | None:
        """Until another's claim expires; a second more, for the condition is that it has expired."""
        if service is None or "lapses" not in service:
            return None
        return max(0.0, float(service["lapses"]["N"]) - self._now()) + 1.0

    def _expiration(self, retention: timedelta = RETENTION) -> dict[str, str]:
        return number(int(self._now() + retention.total_seconds()))
