"""The ledger's items: their keys, conditions and contents."""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from function.domain.failures import EventName
from function.domain.model import Outcome, RedriveCycle, RenameEvent, Target
from function.domain.outcomes import outcome_from_json
from function.domain.ports import Claim, Conclusion, Known, Reused, Superseded

SETTLED: Final = "settled"
GIVEN_UP: Final = "given_up"
Item = Mapping[str, Any]


def breaker_item(region: str) -> str:
    """The id of the item with the state of a region's circuit breaker."""
    return f"breaker#vpcep/{region}"


def key(name: str) -> dict[str, Any]:
    return {"id": {"S": name}}


def event_key(event: RenameEvent) -> dict[str, Any]:
    identity = json.dumps([event.source, event.id]).encode()
    return key(f"event#{hashlib.sha256(identity).hexdigest()}")


def service_key(target: Target) -> dict[str, Any]:
    """In lower case, because it is unknown whether Huawei Cloud's ids are case-sensitive."""
    return key(f"service#{place(target)}/{target.vpc_endpoint_service_id.lower()}")


def place(target: Target) -> str:
    return f"{target.region}/{target.project_id}"


def target_of(item: Item, target: Target) -> Target:
    """The target, in the region and project of the event's first claim."""
    if "target" not in item:
        return target
    region, _, project_id = item["target"]["S"].partition("/")
    return target._replace(region=region, project_id=project_id)


def awaits_outcome_condition(claim: Claim | Conclusion) -> tuple[str, dict[str, Any]]:
    """The condition that the event awaits the outcome of this cycle, and that no other event has its identity.

    Returns:
        The expression and its values.
    """
    event, cycle, target = claim.event, claim.cycle, claim.target
    unclaimed = isinstance(claim, Conclusion) and claim.unclaimed
    values: dict[str, Any] = {":digest": {"S": event.digest}}
    if cycle.number == 0 and unclaimed:
        return "attribute_not_exists(digest)", values
    same = "digest = :digest"
    if isinstance(claim, Claim) or claim.require_same_time:
        same += " AND #time = :time"
        values[":time"] = {"S": event.cloud_event["time"]}
    if target is not None:
        same += " AND (attribute_not_exists(#target) OR #target = :target)"
        values[":target"] = {"S": place(target)}
    if unclaimed:
        same += " AND attribute_not_exists(#target)"
    if cycle.number == 0:
        return f"attribute_not_exists(#state) AND (attribute_not_exists(digest) OR ({same}))", values
    values |= {":given_up": {"S": GIVEN_UP}, ":previous": number(cycle.number - 1)}
    return f"#state = :given_up AND #round = :previous AND {same}", values


def known_from(event: RenameEvent, item: Item) -> Known | Reused:
    if item["digest"]["S"] != event.digest:
        return Reused()
    outcome = outcome_from_json(item["outcome"]["S"])
    if item["state"]["S"] == SETTLED:
        return Known(outcome, next_cycle=None)
    return Known(outcome, RedriveCycle(int(item["round"]["N"]) + 1, outcome.id))


def superseded(service: Item | None, cycle: RedriveCycle, event: RenameEvent) -> Superseded | None:
    """The newest rename of the service, if it is newer than the event."""
    if service is None or "newest_time" not in service:
        return None
    if Decimal(service["newest_time"]["N"]) <= event.time_microseconds:
        return None
    return Superseded(EventName(*json.loads(service["newest_event"]["S"])), cycle, event)


def remembers(item: Item | None, outcome: Outcome) -> bool:
    """Whether an earlier attempt of the same write succeeded."""
    return item is not None and item.get("outcome") == {"S": outcome.to_json()}


def number(value: float | Decimal) -> dict[str, str]:
    return {"N": str(value)}
