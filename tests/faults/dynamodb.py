"""DynamoDB in memory, as far as the ledger uses it: one table, and the expressions of its conditional writes.

Whatever it does not know it refuses loudly, so that a ledger that comes to use more cannot pass by accident.
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

    def put(self, request: dict[str, Any]) -> None:
        """
        Raises:
            ClientError: the condition is not met.
        """
        self._write("Put", request)

    def update(self, request: dict[str, Any]) -> None:
        """
        Raises:
            ClientError: the condition is not met.
        """
        self._write("Update", request)

    def _write(self, action: str, request: dict[str, Any]) -> None:
        try:
            self.transact([{action: request}])
        except TransactionCanceledError:
            raise ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, f"{action}Item") from None


def conflict(actions: int, at: int) -> TransactionCanceledError:
    """What a transaction hears when another one is at one of its items."""
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
    """What the words of an expression stand for."""

    def __init__(self, request: Mapping[str, Any], item: Item | None) -> None:
        self.names: Mapping[str, str] = request.get("ExpressionAttributeNames", {})
        self.values: Mapping[str, Value] = request.get("ExpressionAttributeValues", {})
        self.item = item or {}


_Operand = Callable[[_Scope], Any]
_Condition = Callable[[_Scope], bool]

_WORD: Final = re.compile(r"\s*(<=|>=|[=<>(),]|[#:]?\w+)")
_COMPARISONS: Final = {
    "=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip


@cache
def _condition(text: str) -> _Condition:
    words = _Words(text)
    condition = _any_of(words)
    words.end()
    return condition


@cache
def _update(text: str) -> list[tuple[str, _Operand | None]]:
    """Which attribute becomes what; None removes it."""
    words = _Words(text)
    changes: list[tuple[str, _Operand | None]] = []
    while not words.at_end():
        clause = words.next()
        if clause not in ("SET", "REMOVE"):
            raise NotImplementedError(clause)
        while True:
            path = words.next()
            if clause == "SET":
                words.expect("=")
            changes.append((path, _operand(words) if clause == "SET" else None))
            if not words.skip(","):
                break
    return changes


class _Words:
    def __init__(self, text: str) -> None:
        self._words = _WORD.findall(text)
        if "".join(self._words) != re.sub(r"\s", "", text):
            raise NotImplementedError(text)
        self._words.reverse()

    def at_end(self) -> bool:
        return not self._words

    def next(self) -> str:
        return str(self._words.pop())

    def skip(self, word: str) -> bool:
        if self._words and self._words[-1] == word:
            self._words.pop()
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.skip(word):
            raise NotImplementedError(self._words[::-1])

    def end(self) -> None:
        if self._words:
            raise NotImplementedError(self._words[::-1])


def _any_of(words: _Words) -> _Condition:
    one = _all_of(words)
    if not words.skip("OR"):
        return one
    other = _any_of(words)
    return lambda scope: one(scope) or other(scope)


def _all_of(words: _Words) -> _Condition:
    one = _single(words)
    if not words.skip("AND"):
        return one
    other = _all_of(words)
    return lambda scope: one(scope) and other(scope)


def _single(words: _Words) -> _Condition:
    if words.skip("NOT"):
        negated = _single(words)
        return lambda scope: not negated(scope)
    if words.skip("("):
        inner = _any_of(words)
        words.expect(")")
        return inner
    for function in ("attribute_exists", "attribute_not_exists"):
        if words.skip(function):
            words.expect("(")
            attribute = _operand(words)
            words.expect(")")
            if function == "attribute_exists":
                return lambda scope: attribute(scope) is not None
            return lambda scope: attribute(scope) is None
    left, compare, right = _operand(words), _COMPARISONS[words.next()], _operand(words)
    return lambda scope: _holds(left(scope), compare, right(scope))


def _operand(words: _Words) -> _Operand:
    if words.skip("if_not_exists"):
        words.expect("(")
        attribute = _operand(words)
        words.expect(",")
        otherwise = _operand(words)
        words.expect(")")
        return lambda scope: attribute(scope) or otherwise(scope)
    word = words.next()
    if word.startswith(":"):
        return lambda scope: scope.values[word]
    if word.startswith("#"):
        return lambda scope: scope.item.get(scope.names[word])
    return lambda scope: scope.item.get(word)


def _holds(left: Value | None, compare: Callable[[Any, Any], bool], right: Value | None) -> bool:
    """What is not there, or of another type, compares as false."""
    if left is None or right is None or left.keys() != right.keys():
        return False
    ((kind, one),) = left.items()
    (other,) = right.values()
    return compare(_number(one), _number(other)) if kind == "N" else compare(one, other)


@lru_cache(4_096)
def _number(text: str) -> Decimal:
    return Decimal(text)
