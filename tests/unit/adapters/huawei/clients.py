"""Clients of the local Huawei Cloud."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from function.adapters.huawei.credentials import Credentials
from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.domain.deadline import Deadline
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import Target
from function.domain.ports import Reply
from tests.deadlines import within
from tests.fakes.failures import failed
from tests.fakes.identifiers import PROJECT, REGION, SERVICE

KEY = Credentials("LOCALACCESSKEY", "local-secret-key", None, PROJECT)
TARGET = Target(REGION, PROJECT, SERVICE)
SHORT = 0.3
LONG = 10.0


class Provider:
    """Credentials of two functions."""

    def __init__(self, get: Callable[[Deadline], Credentials], invalidate: Callable[[Credentials], None]) -> None:
        self.get, self.invalidate = get, invalidate


def adapter(
    url: str | dict[str, str],
    get: Callable[[Deadline], Credentials] = lambda _: KEY,
    *,
    invalidate: Callable[[Credentials], None] = lambda key: None,
    on_call: Callable[[float], None] = lambda _: None,
    now: Callable[[], float] = time.time,
) -> HuaweiEndpointServices:
    endpoints = {REGION: url} if isinstance(url, str) else url
    return HuaweiEndpointServices(
        Provider(get, invalidate),
        region=REGION,
        regions=set(endpoints) or {REGION},
        endpoints=endpoints,
        pool_size=10,
        on_call=on_call,
        now=now,
    )


def rename_failure(vpcep: HuaweiEndpointServices, most: float = LONG) -> Failure:
    return failed(vpcep.rename, TARGET, "orders", within(most))


def proves_nothing(call: Callable[[], Reply]) -> Reply | Failure:
    """What a reply without an error, but without a name too, becomes: either is fine, if it is no success."""
    try:
        reply = call()
    except RenameFailedError as error:
        failure = error.failure
    else:
        assert reply.name is None or "orders" not in reply.name
        return reply
    assert failure.in_doubt
    assert failure.retryable
    return failure


def http_reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "X-Request-Id: raw-1", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def in_parallel(count: int, call: Callable[[int], Any]) -> list[Any]:
    def outcome(number: int) -> Any:
        try:
            return call(number)
        except RenameFailedError as error:
            return error.failure

    with ThreadPoolExecutor(max_workers=count) as pool:
        return list(pool.map(outcome, range(count)))
