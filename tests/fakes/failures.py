"""Failures of Huawei Cloud, and the failure that a call ends in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from function.adapters.huawei.error_codes import from_reply
from function.domain.failures import Failure, RenameFailedError


def failed(call: Callable[..., object], *arguments: Any) -> Failure:
    """The failure that a call ends in. Any other exception is what the function must never let through."""
    with pytest.raises(RenameFailedError) as caught:
        call(*arguments)
    return caught.value.failure


def refusal(code: str, status: int, *, retry_after: float | None = None, message: str = "") -> Failure:
    """An error reply of Huawei Cloud."""
    return from_reply(code, message, status=status, huawei_request_id="refused", retry_after=retry_after)


def not_found() -> Failure:
    return refusal("EndPoint.2003", 400)


def unavailable() -> Failure:
    return refusal("EndPoint.0001", 500)


def wrong_key() -> Failure:
    return refusal("APIGW.0301", 401)


def throttled(retry_after: float | None = None) -> Failure:
    return refusal("APIGW.0308", 429, retry_after=retry_after)
