"""DynamoDB in memory, as far as the ledger uses it: one table, and the expressions of its conditional writes.

Unsupported expressions raise an error, so that a ledger that uses more does not pass by accident.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, Final

from botocore.exceptions import ClientError

Value = Mapping[str, str]
Item = dict[str, Value]


class TransactionCanceledError(ClientError):
    """As ``client.exceptions.TransactionCanceledException``."""

    def __init__(self, reasons: list[dict[str, Any]]) -> None:
        codes = ", ".join(reason["Code"] for reason in reasons)
        response: Any = {
            "Error": {"Code": "TransactionCanceledException", "Message": f"Transaction cancelled [{codes}]"},
            "CancellationReasons": reasons,
        }
        super().__init__(response, "TransactWriteItems")


class Table:
    """A table whose key is the string ``id``, and whose time to live is ``expiration``."""

    def __init__(self, is_gone: Callable[[float], bool]) -> None:
        """
        Args:
            is_gone: whether the time to live has removed an item that expired at this time.
        """
        self._items: dict[str, Item] = {}
        self._tokens: set[str] = set()
        self._is_gone = is_gone

    def get(self, key: Mapping[str, Any]) -> Item | None:
        name = key["id"]["S"]
        item = self._items.get(name)
        if item and "expiration" in item and self._is_gone(float(item["expiration"]["N"])):
            del self._items[name]
            return None
        return item

    def items(self) -> list[Item]:
        return list(self._items.values())

    def transact(self, actions: list[dict[str, dict[str, Any]]]) -> None:
        """All of the actions, or none.

        Raises:
            TransactionCanceledError: a condition is not met.
        """
        reasons: list[dict[str, Any]] = []
        changes: dict[str, Item] = {}
        for action in actions:
            ((kind, request),) = action.items()
            key = request["Item"] if kind == "Put" else request["Key"]
            item = self.get(key)
            reasons.append(_reason(request, item))
            if reasons[-1]["Code"] == "None" and kind != "ConditionCheck":
                changes[key["id"]["S"]] = dict(request["Item"]) if kind == "Put" else _updated(request, item)
        if any(reason["Code"] != "None" for reason in reasons):
            raise TransactionCanceledError(reasons)
        self._items |= changes

    def carry_out(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """The response to a request of DynamoDB's API; a transaction takes effect once for each token.

        Raises:
            ClientError: a condition is not met.
        """
        match operation:
            case "GetItem":
                item = self.get(request["Key"])
                return {"Item": item} if item else {}
            case "PutItem" | "UpdateItem":
                try:
                    self.transact([{operation.removesuffix("Item"): request}])
                except TransactionCanceledError:
                    raise ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, operation) from None
            case "TransactWriteItems" if request["ClientRequestToken"] not in self._tokens:
                self.transact(request["TransactItems"])
                self._tokens.add(request["ClientRequestToken"])
        return {}


def conflict(actions: int, at: int) -> TransactionCanceledError:
    """The error of a transaction, one of whose items another transaction is writing."""
    reasons = [{"Code": "None"} for _ in range(actions)]
    reasons[at] = {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}
    return TransactionCanceledError(reasons)


def _reason(request: Mapping[str, Any], item: Item | None) -> dict[str, Any]:
    condition = request.get("ConditionExpression")
    if condition is None or _condition(condition)(_Scope(request, item)):
        return {"Code": "None"}
    reason: dict[str, Any] = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
    if item is not None and request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
        reason["Item"] = dict(item)
    return reason


def _updated(request: Mapping[str, Any], item: Item | None) -> Item:
    scope = _Scope(request, item)
    changed = {**(item or {}), **request["Key"]}
    for path, operand in _update(request["UpdateExpression"]):
        name = scope.names[path] if path.startswith("#") else path
        if operand is None:
            changed.pop(name, None)
        else:
            changed[name] = operand(scope)
    return changed


class _Scope:
    """The values of an expression's names and placeholders."""

    def __init__(self, request: Mapping[str, Any], item: Item | None) -> None:
        self.names: Mapping[str, str] = request.get("ExpressionAttributeNames", {})
        self.values: Mapping[str, Value] = request.get("ExpressionAttributeValues", {})
        self.item = item or {}


_Operand = Callable[[_Scope], Any]
_Condition = Callable[[_Scope], bool]

_TOKEN: Final = re.compile(r"\s*(<=|>=|[=<>(),]|[#:]?\w+)")
_COMPARISONS: Final = {
    "=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip


@cache
def _condition(text: str) -> _Condition:
    tokens = _Tokens(text)
    condition = _any_of(tokens)
    tokens.end()
    return condition


@cache
def _update(text: str) -> list[tuple[str, _Operand | None]]:
    """Each attribute with its new value; None removes it."""
    tokens = _Tokens(text)
    changes: list[tuple[str, _Operand | None]] = []
    while not tokens.at_end():
        clause = tokens.next()
        if clause not in ("SET", "REMOVE"):
            raise NotImplementedError(clause)
        while True:
            path = tokens.next()
            if clause == "SET":
                tokens.expect("=")
            changes.append((path, _operand(tokens) if clause == "SET" else None))
            if not tokens.skip(","):
                break
    return changes


class _Tokens:
    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        if "".join(self._tokens) != re.sub(r"\s", "", text):
            raise NotImplementedError(text)
        self._tokens.reverse()

    def at_end(self) -> bool:
        return not self._tokens

    def next(self) -> str:
        return str(self._tokens.pop())

    def skip(self, token: str) -> bool:
        if self._tokens and self._tokens[-1] == token:
            self._tokens.pop()
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.skip(token):
            raise NotImplementedError(self._tokens[::-1])

    def end(self) -> None:
        if self._tokens:
            raise NotImplementedError(self._tokens[::-1])


def _any_of(tokens: _Tokens) -> _Condition:
    one = _all_of(tokens)
    if not tokens.skip("OR"):
        return one
    other = _any_of(tokens)
    return lambda scope: one(scope) or other(scope)


def _all_of(tokens: _Tokens) -> _Condition:
    one = _single(tokens)
    if not tokens.skip("AND"):
        return one
    other = _all_of(tokens)
    return lambda scope: one(scope) and other(scope)


def _single(tokens: _Tokens) -> _Condition:
    if tokens.skip("("):
        inner = _any_of(tokens)
        tokens.expect(")")
        return inner
    for function in ("attribute_exists", "attribute_not_exists"):
        if tokens.skip(function):
            tokens.expect("(")
            attribute = _operand(tokens)
            tokens.expect(")")
            if function == "attribute_exists":
                return lambda scope: attribute(scope) is not None
            return lambda scope: attribute(scope) is None
    left, compare, right = _operand(tokens), _COMPARISONS[tokens.next()], _operand(tokens)
    return lambda scope: _holds(left(scope), compare, right(scope))


def _operand(tokens: _Tokens) -> _Operand:
    if tokens.skip("if_not_exists"):
        tokens.expect("(")
        attribute = _operand(tokens)
        tokens.expect(",")
        default = _operand(tokens)
        tokens.expect(")")
        return lambda scope: attribute(scope) or default(scope)
    token = tokens.next()
    if token.startswith(":"):
        return lambda scope: scope.values[token]
    if token.startswith("#"):
        return lambda scope: scope.item.get(scope.names[token])
    return lambda scope: scope.item.get(token)


def _holds(left: Value | None, compare: Callable[[Any, Any], bool], right: Value | None) -> bool:
    """A comparison with a missing attribute, or one of another type, is false."""
    if left is None or right is None or left.keys() != right.keys():
        return False
    ((kind, one),) = left.items()
    (other,) = right.values()
    return compare(_number(one), _number(other)) if kind == "N" else compare(one, other)


@lru_cache(4_096)
def _number(text: str) -> Decimal:
    return Decimal(text)
