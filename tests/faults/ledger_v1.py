"""The ledger of the first version, where it wrote something else. In a gradual deployment both use one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from math import floor
from typing import Any, Final

from function.adapters.aws.dynamodb_ledger import CLAIM_SLACK_SECONDS, DynamoDbLedger
from function.domain.deadline import Deadline

Update = Mapping[str, Any]

# After the end of the invocation; and the bounds for which this suffices.
CLAIM_SLACK_SECONDS_V1: Final = 6.0
LATEST_EFFECT_SECONDS_V1: Final = 3.0
MAX_SKEW_SECONDS_V1: Final = 2.0


def edited(ledger: type[DynamoDbLedger], edit: Callable[[dict[str, Any], bool], object]) -> type[DynamoDbLedger]:
    """The ledger, with other transactions.

    Args:
        edit: changes one update of a transaction; called with it, and whether the transaction claims a service.
    """

    class Edited(ledger):  # type: ignore[misc, valid-type]
        def _write(self, deadline: Deadline, *updates: Update) -> Any:
            copies = [dict(update) for update in updates]
            is_claim = not any(map(remembers, copies))
            for copy in copies:
                edit(copy, is_claim)
            return super()._write(deadline, *copies)

    return Edited


def remembers(request: Mapping[str, Any]) -> bool:
    """Whether an update writes an outcome."""
    return ":outcome" in request.get("ExpressionAttributeValues", {})


def first_version(ledger: type[DynamoDbLedger]) -> type[DynamoDbLedger]:
    """Whole microseconds, claims that last six seconds after the end of their invocation, and no pinned target."""

    def edit(request: dict[str, Any], is_claim: bool) -> None:
        in_whole_microseconds(request, is_claim)
        without_target(request, is_claim)
        values = request.get("ExpressionAttributeValues", {})
        if ":lapses" in values:
            expires_at = float(values[":lapses"]["N"]) - CLAIM_SLACK_SECONDS + CLAIM_SLACK_SECONDS_V1
            values[":lapses"] = {"N": repr(expires_at)}

    return edited(ledger, edit)


def without_target(request: dict[str, Any], is_claim: bool) -> None:
    """The event's item has no region and project, and they are not part of a condition."""
    request["UpdateExpression"] = request["UpdateExpression"].replace(", #target = :target", "")
    condition = request["ConditionExpression"]
    request["ConditionExpression"] = condition.replace(" AND (attribute_not_exists(#target) OR #target = :target)", "")


def in_whole_microseconds(request: dict[str, Any], is_claim: bool) -> None:
    values = request["ExpressionAttributeValues"] = dict(request.get("ExpressionAttributeValues", {}))
    if "N" in values.get(":time", {}):
        values[":time"] = {"N": str(floor(Decimal(values[":time"]["N"])))}
