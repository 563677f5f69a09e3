"""The ledger in DynamoDB: what is recorded about rename events across invocations.

One table with the string key ``id``. This module stores two kinds of items, and the circuit breaker a third:

* ``event#…``: a rename event that has had a claim or has an outcome. Contains the digest of its ``data``, its time, and
  the region and project of its first claim; once it has an outcome, also the outcome, its state (``settled`` or
  ``given_up``) and its redrive cycle (stored as ``round``).
* ``service#…``: an endpoint service. Contains the claim of the invocation that is renaming it, and its newest rename:
  the time of the event, in microseconds since the epoch with up to three decimals, and the event's source and id.
  Ids of services are case-insensitive here.

The format of the items is kept from version 1.0 on: during a gradual deployment two versions use one table.

Guarantees, and the writes that provide them:

* *One outcome per event*: ``settle`` and ``conclude`` write the event's item on the condition that it has no outcome,
  or that of the given-up cycle before this one. The second writer gets the first one's outcome, to publish it again.
* *No stale rename*: ``claim`` has the condition that the service's newest rename is not newer than the event;
  ``settle`` updates the newest rename in the transaction that settles the event.
* *One rename in flight per service*: ``claim`` has the condition that there is no claim, or that it has expired;
  ``settle`` fails if the invocation has lost its claim. A claim is written before any call, and lasts until a minute
  after the end of its invocation. This assumes that a rename takes effect at most fifty seconds after the end of its
  invocation, and that the clocks of two environments differ by at most ten seconds.
* *No call for a duplicate*: ``claim`` checks the event's item in the transaction that takes the claim, so there is no
  race between two copies.
* *One event per identifier*: every write of the event's item has the condition that its digest, if any, is this
  event's. An event also keeps the time of its first claim: a copy whose time comes from the transport is not newer
  because it arrives later. And it keeps its endpoint service: an event that names no region or project keeps those that
  the settings and the secret had at its first claim.

What remains after a crash: before ``claim``, nothing. Between ``claim`` and ``settle``, a claim that expires a minute
after the invocation's timeout; the event is redelivered, and the service renamed again to the same name. After
``settle``, an outcome that may not be on the bus; the event is redelivered, and the outcome published again.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any, Final, cast

from botocore.exceptions import BotoCoreError, ClientError

from function.adapters.aws import ledger_items as items
from function.adapters.aws.client import DynamoDbClient, error_code
from function.domain import failures
from function.domain.backoff import full_jitter
from function.domain.deadline import Deadline
from function.domain.failures import EventName, RenameFailedError
from function.domain.model import FIRST_CYCLE, Outcome, RedriveCycle, RenameEvent, Target
from function.domain.ports import Claim, Conclusion, Known, Located, Reused, Superseded

# Queue and dead-letter queue keep a message for up to 14 days each, and a redrive starts again with the queue.
RETENTION: Final = timedelta(days=35)
# A stale event may be replayed from an archive, and there is only one of these items per endpoint service. An item
# without a rename expires like an event's, because an event can create one for any id.
NEWEST_RENAME_RETENTION: Final = timedelta(days=3_650)
# A rename may take effect after the end of its invocation, and clocks differ.
CLAIM_SLACK_SECONDS: Final = 60.0
# Of a transaction in conflict with another one, which the client does not retry.
MAX_WRITE_ATTEMPTS: Final = 4
WRITE_BACKOFF_SECONDS: Final = 0.02
_BUSY: Final = "TransactionConflict"
_REFUSED: Final = "ConditionalCheckFailed"
_ANSWERS: Final = frozenset({"None", _REFUSED, _BUSY})
_CLOSED: Final = {"S": "CLOSED"}
_IS_HELD: Final = "#owner = :token"
# DynamoDB reserves these words: expressions have "#" before them.
_RESERVED: Final = ("owner", "round", "state", "target", "time")
_RETURN_ITEM: Final = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


class LedgerSchemaError(ValueError):
    """The table does not exist, or its key is not the string ``id`` alone. The text is AWS's error code."""


@dataclass(eq=False, repr=False)
class DynamoDbLedger:
    """The ledger in a DynamoDB table.

    Attributes:
        table: name or ARN.
        now: seconds since the epoch.
    """

    client: DynamoDbClient
    table: str
    _: KW_ONLY
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def outage_is_recorded(self, region: str, deadline: Deadline) -> bool:
        """Whether the region's circuit breaker has a state here that is not closed. False if it cannot be read.

        This is the first request to the table, so an unsuitable table is found before any call to Huawei Cloud.

        Raises:
            LedgerSchemaError: the table cannot be used.
        """
        try:
            item = self._get(items.key(items.breaker_item(region)), deadline)
        except RenameFailedError as error:
            code = error.failure.aws_error_code
            if code in ("ResourceNotFoundException", "ValidationException"):
                raise LedgerSchemaError(code) from None
            return False
        return item is not None and item.get("state", _CLOSED) != _CLOSED

    def claim(
        self, event: RenameEvent, target: Target, deadline: Deadline, cycle: RedriveCycle = FIRST_CYCLE
    ) -> Claim | Known | Reused | Superseded:
        """Claim the endpoint service for this event.

        Args:
            target: used if the event has not had a claim in another region or project.
            deadline: the claim expires a minute after the end of its invocation.

        Returns:
            The claim, or why the event must not be carried out.

        Raises:
            RenameFailedError: another claim on the service has not expired, or the ledger is unavailable.
        """
        claim = Claim(uuid.uuid4().hex, cycle, event, target, deadline.invocation_ends_at + CLAIM_SLACK_SECONDS)
        change = "SET digest = :digest, #time = :time, #target = :target, expiration = :expiration"
        claimed = self._update_of_event(claim, change, {":expiration": self._expiration()})
        refused = self._write(deadline, claimed, self._claim_service(claim))
        item, service = refused or (None, None)
        if refused is None or (service is not None and service.get("owner") == {"S": claim.token}):
            return claim
        if item is None:
            if newer := items.superseded(service, cycle, event):
                return newer
            raise RenameFailedError(failures.in_progress(self._seconds_until_expiry(service)))
        if item["digest"]["S"] == event.digest:
            first, located = event.at(item["time"]["S"]), items.target_of(item, target)
            if (first, located) != (event, target):
                return self.claim(first, located, deadline, cycle)
        known = items.known_from(event, item)
        if isinstance(known, Known) and known.next_cycle not in (None, cycle):
            return self.claim(event, target, deadline, known.next_cycle)
        return known

    def preview(
        self, event: RenameEvent, target: Target, deadline: Deadline, *, if_claimed: bool = False
    ) -> Claim | Known | Reused | Superseded | None:
        """What ``claim`` would return, from two reads. Raises the same errors."""
        item, cycle = self._get(items.event_key(event), deadline), FIRST_CYCLE
        if item is not None and (item["digest"]["S"] != event.digest or "state" in item):
            known = items.known_from(event, item)
            if isinstance(known, Reused) or known.next_cycle is None:
                return known
            cycle = known.next_cycle
        if if_claimed and (item is None or ("state" in item and "target" not in item)):
            return None
        if item is not None:
            event, target = event.at(item["time"]["S"]), items.target_of(item, target)
        service = self._get(items.service_key(target), deadline)
        if newer := items.superseded(service, cycle, event):
            return newer
        if service and "owner" in service and float(service["lapses"]["N"]) >= self.now():
            raise RenameFailedError(failures.in_progress(self._seconds_until_expiry(service)))
        return Claim("", cycle, event, target)

    def _get(self, name: Mapping[str, Any], deadline: Deadline) -> items.Item | None:
        try:
            return self.client.get_item(deadline, TableName=self.table, Key=name, ConsistentRead=True).get("Item")
        except (ClientError, BotoCoreError) as error:
            raise RenameFailedError(failures.ledger_unavailable(error_code(error))) from error

    def _claim_service(self, claim: Claim) -> dict[str, Any]:
        return self._update(
            items.service_key(claim.target),
            "SET #owner = :token, lapses = :lapses, expiration = if_not_exists(kept_until, :expiration)",
            "(attribute_not_exists(#owner) OR lapses < :now)"
            " AND (attribute_not_exists(newest_time) OR newest_time <= :time)",
            {
                ":token": {"S": claim.token},
                ":now": items.number(self.now()),
                ":lapses": items.number(claim.expires_at),
                ":time": items.number(claim.event.time_microseconds),
                ":expiration": self._expiration(),
            },
            **_RETURN_ITEM,
        )

    def settle(self, claim: Claim, outcome: Outcome, deadline: Deadline, *, release: bool) -> Known | Reused | None:
        """Record the outcome, and release the claim.

        Args:
            release: False keeps the claim until it expires, because a call may still take effect.

        Returns:
            None if recorded. Else what is already recorded for the event, and nothing is changed.

        Raises:
            RenameFailedError: the claim is lost, or the ledger is unavailable.
        """
        event = claim.event
        values: dict[str, Any] = {":token": {"S": claim.token}}
        change = "REMOVE #owner, lapses" if release else "SET #owner = :token"
        if outcome.failure is None:
            change += f"{' SET' if release else ','} newest_time = :time, newest_event = :event"
            change += ", kept_until = :kept_until, expiration = :kept_until"
            values |= {
                ":time": items.number(event.time_microseconds),
                ":event": {"S": json.dumps(EventName(event.source, event.id))},
                ":kept_until": self._expiration(NEWEST_RENAME_RETENTION),
            }
        settled = self._remember(Conclusion(event, claim.cycle, outcome))
        renamed = self._update(items.service_key(claim.target), change, _IS_HELD, values)
        refused = self._write(deadline, settled, renamed)
        if refused is None or items.remembers(refused[0], outcome):
            return None
        if refused[0] is not None:
            return items.known_from(event, refused[0])
        raise RenameFailedError(failures.claim_lost())

    def conclude(self, conclusion: Conclusion, deadline: Deadline) -> Known | Reused | Located | None:
        """Record an outcome without a rename.

        Returns:
            As ``settle``; or the target of the event's first claim, if the outcome is only for another target.

        Raises:
            RenameFailedError: the event's item was changed concurrently, or the ledger is unavailable.
        """
        event, target = conclusion.event, conclusion.target
        refused = self._write(deadline, self._remember(conclusion))
        if refused is None or items.remembers(refused[0], conclusion.outcome):
            return None
        item = refused[0]
        if item is None:
            raise RenameFailedError(failures.in_progress())
        known = items.known_from(event, item) if item["digest"]["S"] != event.digest or "state" in item else None
        if known is not None and (isinstance(known, Reused) or known.next_cycle is None):
            return known
        located = items.target_of(item, target or Target("", "", event.vpc_endpoint_service_id))
        if (target is not None and located != target) or (conclusion.unclaimed and (known is None or "target" in item)):
            return Located(located)
        if known is None:
            raise RenameFailedError(failures.in_progress())
        return known

    def release(self, claim: Claim, deadline: Deadline) -> None:
        """Release the claim without an outcome. If that fails, the claim expires."""
        service, values = items.service_key(claim.target), {":token": {"S": claim.token}}
        with suppress(RenameFailedError):
            self._write(deadline, self._update(service, "REMOVE #owner, lapses", _IS_HELD, values))

    def _remember(self, conclusion: Conclusion) -> dict[str, Any]:
        outcome = conclusion.outcome
        given_up = outcome.failure is not None and outcome.failure.retryable
        return self._update_of_event(
            conclusion,
            "SET digest = :digest, #time = if_not_exists(#time, :time), #state = :state"
            ", #round = :round, outcome = :outcome, expiration = :expiration",
            {
                ":time": {"S": conclusion.event.cloud_event["time"]},
                ":state": {"S": items.GIVEN_UP if given_up else items.SETTLED},
                ":round": items.number(conclusion.cycle.number),
                ":outcome": {"S": outcome.to_json()},
                ":expiration": self._expiration(),
            },
        )

    def _update_of_event(self, claim: Claim | Conclusion, change: str, values: dict[str, Any]) -> dict[str, Any]:
        """An update of the event's item, on the condition that the event awaits this outcome."""
        condition, own_values = items.awaits_outcome_condition(claim)
        return self._update(items.event_key(claim.event), change, condition, own_values | values, **_RETURN_ITEM)

    def _update(
        self, key: Mapping[str, Any], change: str, condition: str, values: Mapping[str, Any], **options: str
    ) -> dict[str, Any]:
        """DynamoDB requires that the names an expression uses, and no others, are declared."""
        names = {f"#{name}": name for name in _RESERVED if f"#{name}" in f"{change} {condition}"}
        return {
            "TableName": self.table,
            "Key": key,
            "UpdateExpression": change,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            **options,
        }

    def _write(self, deadline: Deadline, *updates: Mapping[str, Any]) -> list[items.Item | None] | None:
        """Write all updates or none. Retried if another transaction is in conflict.

        Returns:
            None if written. Else for each update the stored item if its condition failed, or None. That item may be the
            result of an earlier attempt whose response was lost.

        Raises:
            RenameFailedError: the ledger is unavailable or busy.
        """
        writes = [{"Update": update} for update in updates]
        for attempt in range(1, MAX_WRITE_ATTEMPTS + 1):
            try:
                # The token makes the client's retry idempotent.
                self.client.transact_write_items(deadline, TransactItems=writes, ClientRequestToken=str(uuid.uuid4()))
            except (ClientError, BotoCoreError) as error:
                reasons = _reasons(error)
                codes = [reason["Code"] for reason in reasons]
                if others := [code for code in codes if code not in _ANSWERS]:
                    raise RenameFailedError(failures.ledger_unavailable(others[0])) from error
            else:
                return None
            if _BUSY not in codes or _REFUSED in codes:
                return [reason.get("Item") for reason in reasons]
            if attempt < MAX_WRITE_ATTEMPTS:
                self.sleep(full_jitter(attempt, base=WRITE_BACKOFF_SECONDS))
        raise RenameFailedError(failures.ledger_unavailable(_BUSY))

    def _seconds_until_expiry(self, service: items.Item | None) -> float | None:
        """Until another claim expires, plus a second, so that it has expired then."""
        if service is None or "lapses" not in service:
            return None
        return max(0.0, float(service["lapses"]["N"]) - self.now()) + 1.0

    def _expiration(self, retention: timedelta = RETENTION) -> dict[str, str]:
        return items.number(int(self.now() + retention.total_seconds()))


def _reasons(error: ClientError | BotoCoreError) -> list[dict[str, Any]]:
    """Why a transaction was cancelled, for each of its writes; for any other error, its code."""
    response = cast("dict[str, Any]", error.response) if isinstance(error, ClientError) else {}
    reasons: list[dict[str, Any]] = response.get("CancellationReasons", [{"Code": error_code(error)}])
    return reasons
