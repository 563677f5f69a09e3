"""The SDK's HTTP transport: deadlines, calls in doubt, unmodified replies.

Works around defects of the SDK: it loses code and request id of a 429, hides whether a request was sent, treats a reply
without a name as a success, and waits for minutes.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, NoReturn, cast

import requests
from huaweicloudsdkcore.exceptions.exception_handler import ExceptionHandler
from huaweicloudsdkcore.exceptions.exceptions import ConnectionException, HostUnreachableException
from huaweicloudsdkcore.http.http_client import HttpClient
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ReadTimeoutError

from function.adapters.connections import DeadlinePassedError, Exchange, current_exchange, exchange_scope, use_deadlines
from function.adapters.huawei.error_codes import CODE_MAX_LENGTH, MESSAGE_MAX_LENGTH, from_reply
from function.adapters.huawei.redaction import Redactor
from function.adapters.tls import ssl_context
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Failure, RenameFailedError

CONNECT_SECONDS: Final = 3.0
MAX_REPLY_BYTES: Final = 1024 * 1024
MAX_REQUEST_ID: Final = 128
USER_AGENT: Final = "vpcep-rename"
_SECONDS: Final = re.compile(r"[0-9]{1,6}")


@dataclass(eq=False, repr=False, kw_only=True)
class Call(Exchange):
    """One call to Huawei Cloud, with the status and the request id of its reply."""

    redactor: Redactor
    status: int | None = None
    huawei_request_id: str | None = None

    def unconfirmed(self) -> Failure:
        return failures.unconfirmed_reply(self.status, self.huawei_request_id)


@contextmanager
def call_scope(deadline: Deadline, redactor: Redactor) -> Iterator[Call]:
    """Requests of this thread in this scope are one call.

    Raises:
        RenameFailedError: for any exception in the scope.
    """
    call = Call(deadline=deadline, redactor=redactor)
    try:
        with exchange_scope(call):
            yield call
    except Exception as error:
        raise RenameFailedError(_failure(error, call)) from error


def _failure(error: Exception, call: Call) -> Failure:
    if isinstance(error, RenameFailedError):
        return error.failure
    if isinstance(error, DeadlinePassedError):
        return failures.timeout(in_doubt=call.sent)
    if call.status is not None:  # there was a reply, and the SDK failed to parse it
        return call.unconfirmed()
    if isinstance(error, ConnectionException):
        return failures.connection_failed()
    return failures.internal_error()


def _current_call() -> Call:
    return cast("Call", current_exchange.get())


class ErrorReplies(ExceptionHandler):  # type: ignore[misc]
    """Keeps what the SDK's own handler drops: a code without a message, the request id in the body, Retry-After."""

    def handle_exception(self, request: object, response: requests.Response) -> NoReturn:  # noqa: ARG002 - the SDK's signature
        code, message, request_id = _error_body(response.content)
        call = _current_call()
        clean = call.redactor.clean
        raise RenameFailedError(
            from_reply(
                clean(code or "", CODE_MAX_LENGTH + 1),
                clean(message, MESSAGE_MAX_LENGTH),
                status=response.status_code,
                huawei_request_id=call.huawei_request_id or clean(request_id or "", MAX_REQUEST_ID),
                retry_after=_retry_after(response.headers.get("Retry-After", "")),
            )
        )


def _error_body(content: bytes) -> tuple[str | None, str, str | None]:
    """Code, message and request id, from all known formats of error bodies; empty for any other body."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return None, "", None
    nested = body.get("error")
    error = nested if isinstance(nested, dict) else body

    def text(*names: str) -> str | None:
        found = (error.get(name) or body.get(name) for name in names)
        return next((value for value in found if isinstance(value, str)), None)

    return text("error_code", "errorCode", "code"), text("error_msg", "errorMsg", "message") or "", text("request_id")


def _retry_after(header: str) -> float | None:
    """Seconds, from either form of the header; None if it is empty or malformed."""
    if _SECONDS.fullmatch(header):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


class _Adapter(HTTPAdapter):
    """Sends one request per call, within its deadline, and distinguishes unsent requests from those in doubt.

    Replaces the SDK's adapter, whose retries drop the body of a 429.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=ssl_context())
        use_deadlines(self.poolmanager)

    def cert_verify(self, conn: Any, *args: Any, **kwargs: Any) -> None:
        super().cert_verify(conn, *args, **kwargs)  # type: ignore[no-untyped-call]
        conn.ca_certs = None  # they are in the context, and each new connection would read them again

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        call = _current_call()
        if call.status is not None:
            # The SDK repeats the request if its parser raises a TypeError.
            raise RenameFailedError(call.unconfirmed())
        try:
            seconds = call.deadline.remaining()
            if seconds <= 0:
                raise DeadlinePassedError
            kwargs |= {"timeout": (min(CONNECT_SECONDS, seconds), seconds), "stream": True}
            response = super().send(*args, **kwargs)
        except (requests.exceptions.RequestException, HTTPError, OSError) as error:
            raise map_transport_error(error, sent=call.sent) from error
        call.status = response.status_code
        request_id = response.headers.get("X-Request-Id", "")
        call.huawei_request_id = call.redactor.clean(request_id, MAX_REQUEST_ID) or None
        read_body(response, call)
        return response


def map_transport_error(error: Exception, *, sent: bool) -> Exception:
    """The exception for a call without a reply."""
    reason: object = error
    if isinstance(error, requests.exceptions.ConnectionError) and error.args:
        reason = getattr(error.args[0], "reason", error.args[0])
    if isinstance(error, requests.exceptions.Timeout) or isinstance(reason, TimeoutError | ReadTimeoutError):
        return RenameFailedError(failures.timeout(in_doubt=sent))
    if sent:
        return RenameFailedError(failures.connection_failed(in_doubt=True))
    # The SDK tries the region's next endpoint, if there is one.
    return cast("Exception", HostUnreachableException(str(error)))


def read_body(response: requests.Response, call: Call) -> None:
    """Read the body. If it is incomplete, an error reply still has its status; any other reply confirms nothing."""
    body = bytearray()
    try:
        while len(body) <= MAX_REPLY_BYTES and (chunk := response.raw.read1(decode_content=True)):
            body += chunk
        broken = len(body) > MAX_REPLY_BYTES
    except (HTTPError, OSError):
        broken = True
    if broken:
        response.close()
        if response.status_code < HTTPStatus.BAD_REQUEST:
            late = call.deadline.remaining() <= 0
            failure = failures.timeout(in_doubt=True) if late else call.unconfirmed()
            raise RenameFailedError(failure._replace(huawei_request_id=call.huawei_request_id))
    response._content = bytes(body)  # noqa: SLF001 - requests has no public way to hand a body over
    response._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001


class _InCallingThread(Executor):
    """Runs each task at once, in the thread that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future raises it
            future.set_exception(error)
        return future


def install_adapter(http: HttpClient, pool_size: int) -> None:
    """Replace the transport adapter of an SDK client, and the threads that it signs requests in."""
    http._executor = _InCallingThread()  # noqa: SLF001 - the SDK would sign each request in another thread
    session = http._session  # noqa: SLF001 - the SDK offers no other way to its adapter
    session.trust_env = False  # a .netrc would replace the signature
    adapter = _Adapter(pool_connections=1, pool_maxsize=pool_size)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
