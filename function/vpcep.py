"""Talks to Huawei Cloud, through the official SDK.

The only module that knows the SDK, and where its traps are closed: as shipped it loses code and request id of a 429,
hides whether a request had been sent, gives a reply without a name for a success, and waits for minutes.
"""

import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any, Final, NamedTuple, NoReturn, cast

import requests
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.auth.internal import IamHelper
from huaweicloudsdkcore.exceptions.exception_handler import ExceptionHandler
from huaweicloudsdkcore.exceptions.exceptions import ConnectionException, HostUnreachableException
from huaweicloudsdkcore.http.http_client import HttpClient
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkvpcep.v1 import (
    ListServiceDetailsRequest,
    UpdateEndpointServiceNameRequest,
    UpdateEndpointServiceNameRequestBody,
    VpcepClient,
)
from huaweicloudsdkvpcep.v1.region.vpcep_region import VpcepRegion
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.util import Retry

from function import failures
from function.deadline import Deadline
from function.failures import Failure, Kind, RenameFailedError
from function.rename import Reply, Target
from function.tls import trust

CONNECT_SECONDS: Final = 3.0
MAX_REPLY_BYTES: Final = 1024 * 1024
MAX_REQUEST_ID: Final = 128
# Five wrong signatures in a row lock the key for five minutes; a refused key is left alone for this long.
REFUSED_KEY_PAUSE_SECONDS: Final = 60.0
# How long a key that was accepted is trusted to be so still.
ACCEPTED_KEY_SECONDS: Final = 60.0
# Between a quarter of an hour and a day. How long a key goes on that somebody has got hold of.
TEMPORARY_KEY_SECONDS: Final = 3_600
USER_AGENT: Final = "vpcep-rename"

_SECONDS: Final = re.compile(r"[0-9]{1,6}")


class UnknownRegionError(ValueError):
    """VPCEP is not known in a region; carries the region's name."""


class Credentials(NamedTuple):
    """A key for Huawei Cloud."""

    access_key: str
    secret_key: str
    security_token: str | None
    project_id: str


class _Call(threading.local):
    """The call that this thread makes: when it must end, how far it came, and what is known of the reply."""

    deadline: float = 0.0
    connected: bool = False
    status: int | None = None
    huawei_request_id: str | None = None

    def begin(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.connected, self.status, self.huawei_request_id = False, None, None

    def seconds_left(self) -> float:
        """Raises TimeoutError where none is left."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


_call = _Call()


class Vpcep:
    """The endpoint services of one account."""

    def __init__(
        self,
        credentials: Callable[[Deadline], Credentials],
        *,
        forget: Callable[[Credentials], None] = lambda _: None,
        regions: Iterable[str],
        endpoints: dict[str, str],
        allowed_projects: frozenset[str],
        pool_size: int,
        on_call: Callable[[float], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            credentials: cheap to call; raises RenameFailedError.
            forget: hears of a key that was refused, so that ``credentials`` looks whether there is another.
            regions: all that events may name.
            endpoints: by region, where another endpoint than the region's own is to be used.
            allowed_projects: what events may name beside the key's own project.
            pool_size: connections kept alive.
            on_call: hears how many seconds each call took, whatever came of it.

        Raises:
            UnknownRegionError: the SDK knows no endpoint there.
        """
        self._regions = {name: _region(name, endpoints) for name in regions}
        self._allowed_projects = allowed_projects
        self._credentials = credentials
        self._forget = forget
        self._pool_size = pool_size
        self._on_call = on_call
        self._monotonic = monotonic
        self._clients: dict[tuple[str, str], _Client] = {}
        self._key: _Key | None = None
        self._lock = threading.Lock()

    def default_project(self, deadline: Deadline) -> str:
        return self._credentials(deadline).project_id

    def allows_project(self, project_id: str, deadline: Deadline) -> bool:
        return project_id in self._allowed_projects or project_id == self.default_project(deadline)

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        """``PUT /v1/{project_id}/vpc-endpoint-services/{vpc_endpoint_service_id}/name``

        Raises:
            RenameFailedError: whatever the SDK raised.
        """
        request = UpdateEndpointServiceNameRequest(
            vpc_endpoint_service_id=target.vpc_endpoint_service_id,
            body=UpdateEndpointServiceNameRequestBody(endpoint_service_name=name),
        )
        return self._call(
            target, lambda client: client.update_endpoint_service_name(request).endpoint_service_name, deadline
        )

    def read(self, target: Target, deadline: Deadline) -> Reply:
        """``GET /v1/{project_id}/vpc-endpoint-services/{vpc_endpoint_service_id}``

        Raises:
            RenameFailedError: whatever the SDK raised.
        """
        request = ListServiceDetailsRequest(vpc_endpoint_service_id=target.vpc_endpoint_service_id)
        return self._call(target, lambda client: client.list_service_details(request).service_name, deadline)

    def _call(self, target: Target, operation: Callable[[Any], object], deadline: Deadline) -> Reply:
        client = self._client(target, deadline)
        try:
            return client.call(operation, deadline.remaining())
        except RenameFailedError as error:
            failure = error.failure
            if failure.kind is Kind.ACCESS and self._has_other_than(client.key.credentials, deadline):
                raise RenameFailedError(replace(failure, quick=True)) from error
            raise

    def _has_other_than(self, credentials: Credentials, deadline: Deadline) -> bool:
        try:
            return self._credentials(deadline) != credentials
        except RenameFailedError:
            return False

    def _client(self, target: Target, deadline: Deadline) -> "_Client":
        with self._lock:
            credentials = self._credentials(deadline)  # within the lock: none comes after a newer one
            if self._key is None or self._key.credentials != credentials:
                self._key = _Key(credentials, self._forget, self._monotonic)
                self._clients.clear()
            client = self._clients.get((target.region, target.project_id))
            if client is None:
                own = credentials._replace(project_id=target.project_id)
                sdk = _build(own, self._regions[target.region], self._pool_size)
                client = _Client(sdk, self._key, self._on_call)
                self._clients[target.region, target.project_id] = client
            return client


class Iam:
    """Gives a temporary key to whom an identity provider vouches for, by the requests of the SDK.

    Its own credentials take the token from a file, wait for minutes, and let every thread ask for itself.
    """

    def __init__(self, idp_id: str, project_id: str, *, region: str, endpoint: str | None) -> None:
        """
        Args:
            idp_id: of the identity provider, as it is registered.
            project_id: what the key is used for.
            endpoint: another one than the region's own.
        """
        self._idp_id = idp_id
        self._project_id = project_id
        self._endpoint = endpoint or IamHelper.get_iam_endpoint(region)
        self._config = HttpConfig(user_agent=USER_AGENT)

    def temporary_key(self, id_token: str, seconds: float) -> tuple[Credentials, datetime]:
        """A key, and when it expires.

        ``POST /v3.0/OS-AUTH/id-token/tokens``, then ``POST /v3.0/OS-CREDENTIAL/securitytokens``

        Raises:
            RenameFailedError: whatever the SDK raised.
        """
        # Anew each time: a connection of an hour ago would have gone stale.
        http = HttpClient(self._config, http_handler=None, exception_handler=_ErrorReplies(), logger=None)
        _take_over(http, pool_size=1)
        try:
            _call.begin(seconds)
            request = IamHelper.get_create_unscoped_token_by_id_token_request(
                self._config, self._endpoint, self._idp_id, id_token
            )
            token = IamHelper.create_unscoped_token_by_id_token(http, request)
            _call.begin(_call.seconds_left())
            request = IamHelper.get_create_temporary_access_key_by_token_request(
                self._config, self._endpoint, token, TEMPORARY_KEY_SECONDS
            )
            return self._read(IamHelper.create_temporary_access_key_by_token(http, request))
        except Exception as error:
            raise RenameFailedError(_failure(error)) from error
        finally:
            http.close()

    def _read(self, credential: object) -> tuple[Credentials, datetime]:
        match credential:
            case {"access": str(ak), "secret": str(sk), "securitytoken": str(token), "expires_at": str(expires_at)} if (
                ak and sk and token
            ):
                expires = datetime.fromisoformat(expires_at)
                return Credentials(ak, sk, token, self._project_id), expires.replace(tzinfo=expires.tzinfo or UTC)
            case _:
                raise _TransportError(_unconfirmed())


class _Key:
    """Whether a key has been accepted of late, or refused.

    Until it has been accepted calls go one by one, and none follows a refusal: a batch that renames side by side would
    lock a wrong key at once.
    """

    def __init__(
        self, credentials: Credentials, forget: Callable[[Credentials], None], monotonic: Callable[[], float]
    ) -> None:
        self.credentials = credentials
        self.one_by_one = threading.Lock()
        self._forget = forget
        self._monotonic = monotonic
        self._accepted_until = 0.0
        self._refusals: dict[object, tuple[float, Failure]] = {}

    @property
    def is_accepted(self) -> bool:
        return self._monotonic() < self._accepted_until

    def accept(self) -> None:
        self._accepted_until = self._monotonic() + ACCEPTED_KEY_SECONDS

    def refuse(self, failure: Failure, by: object) -> None:
        """A key that is wrong is wrong everywhere; one that may not do a thing may do others."""
        self._forget(self.credentials)  # first: who sees the refusal looks for another key at once
        everywhere = failure.http_status == HTTPStatus.UNAUTHORIZED
        if everywhere:
            self._accepted_until = 0.0
        self._refusals[None if everywhere else by] = (self._monotonic() + REFUSED_KEY_PAUSE_SECONDS, failure)

    def raise_refusal(self, by: object) -> None:
        """Raises RenameFailedError where the key was refused a moment ago."""
        for refused_by in (None, by):
            until, failure = self._refusals.get(refused_by, (0.0, None))
            if failure is not None and self._monotonic() < until:
                raise RenameFailedError(replace(failure, called=False))


class _Client:
    """The SDK's client for one region and project."""

    def __init__(self, client: VpcepClient, key: _Key, on_call: Callable[[float], None]) -> None:
        self._client = client
        self.key = key
        self._on_call = on_call

    def call(self, operation: Callable[[Any], object], seconds: float) -> Reply:
        if self.key.is_accepted:
            return self._call(operation, seconds)
        began = time.monotonic()
        if not self.key.one_by_one.acquire(timeout=seconds):
            raise RenameFailedError(replace(failures.timeout(), called=False))
        try:
            if not self.key.is_accepted:
                return self._call(operation, seconds - (time.monotonic() - began))
        finally:
            self.key.one_by_one.release()
        return self._call(operation, seconds - (time.monotonic() - began))

    def _call(self, operation: Callable[[Any], object], seconds: float) -> Reply:
        self.key.raise_refusal(by=self)
        began = time.monotonic()
        _call.begin(seconds)
        try:
            name = operation(self._client)
        except Exception as error:
            failure = _failure(error)
            if failure.kind is Kind.ACCESS:
                self.key.refuse(failure, by=self)
            elif failure.http_status is not None:
                self.key.accept()
            raise RenameFailedError(failure) from error
        finally:
            self._on_call(time.monotonic() - began)
        self.key.accept()
        return Reply(name if isinstance(name, str) else None, _call.status, _call.huawei_request_id)


class _TransportError(Exception):
    """Carries a failure past the SDK, which would make a ConnectionException of it and lose what had happened."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


def _failure(error: Exception) -> Failure:
    if isinstance(error, _TransportError):
        return error.failure
    if _call.status is not None:  # the reply had come, and the SDK failed on what it says
        return _unconfirmed()
    if isinstance(error, ConnectionException):
        return failures.connection_failed()
    return failures.internal_error()


class _ErrorReplies(ExceptionHandler):  # type: ignore[misc]
    """Keeps what the SDK's own handler drops: a code without a message, the request id in the body, Retry-After."""

    def handle_exception(self, request: object, response: requests.Response) -> NoReturn:  # noqa: ARG002 - the SDK's signature
        code, message, request_id = _error_body(response.content)
        raise _TransportError(
            failures.from_reply(
                code,
                message,
                status=response.status_code,
                huawei_request_id=_call.huawei_request_id or request_id,
                retry_after=_retry_after(response.headers.get("Retry-After")),
            )
        )


def _error_body(content: bytes) -> tuple[str | None, str, str | None]:
    """Code, message and request id of every generation of error bodies; nothing of anything else."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None, "", None
    if not isinstance(body, dict):
        return None, "", None
    nested = body.get("error")
    error = nested if isinstance(nested, dict) else body

    def text(*names: str) -> str | None:
        found = (error.get(name) or body.get(name) for name in names)
        return next((value for value in found if isinstance(value, str)), None)

    return text("error_code", "errorCode", "code"), text("error_msg", "errorMsg", "message") or "", text("request_id")


def _retry_after(header: str | None) -> float | None:
    """Seconds from either form of the header; None where it says nothing."""
    if header is None:
        return None
    if _SECONDS.fullmatch(header):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


class _Incoming(socket.SocketIO):
    """Ends a reply by its call's deadline; a socket's own time-out starts anew with each byte that trickles in."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, "r")
        self._connection = connection

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(_call.seconds_left())
        return super().readinto(buffer)


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        sock._io_refs += 1  # type: ignore[attr-defined]  # noqa: SLF001 - what makefile() does; SocketIO.close() takes it back
        self.fp = io.BufferedReader(_Incoming(sock))


class _Watched:
    """Tells whether a request may have left: a connection was there."""

    response_class: Any = _Response

    def request(self, *args: Any, **kwargs: Any) -> None:
        _call.connected = self.sock is not None  # type: ignore[attr-defined]
        super().request(*args, **kwargs)  # type: ignore[misc]

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        _call.connected = True


class _HttpConnection(_Watched, HTTPConnection):
    """Without TLS, for another endpoint."""


class _HttpsConnection(_Watched, HTTPSConnection):
    """With TLS, verified."""


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    """Makes one request a call, ends it by its deadline, and tells one that never left from one in doubt.

    Mounted in place of the SDK's adapter, whose retries swallow the body of a 429.
    """

    def __init__(self, pool_size: int) -> None:
        never = Retry(total=0, status_forcelist=[], respect_retry_after_header=False)
        super().__init__(pool_connections=1, pool_maxsize=pool_size, max_retries=never)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=trust())
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def cert_verify(self, conn: Any, *args: Any, **kwargs: Any) -> None:
        super().cert_verify(conn, *args, **kwargs)  # type: ignore[no-untyped-call]
        conn.ca_certs = None  # the context has them, and each new connection would read them again

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        if _call.status is not None:
            # The SDK repeats a whole request when a reply makes its parser raise a TypeError.
            raise _TransportError(_unconfirmed())
        try:
            seconds = _call.seconds_left()
            kwargs |= {"timeout": (min(CONNECT_SECONDS, seconds), seconds), "stream": True}
            response = super().send(*args, **kwargs)
        except (requests.exceptions.RequestException, HTTPError, OSError) as error:
            raise _lost(error) from error
        _call.status = response.status_code
        _call.huawei_request_id = response.headers.get("X-Request-Id", "")[:MAX_REQUEST_ID] or None
        _take_body(response)
        return response


def _lost(error: Exception) -> Exception:
    """What a call without a reply ends with."""
    reason: object = error
    if isinstance(error, requests.exceptions.ConnectionError) and error.args:
        reason = getattr(error.args[0], "reason", error.args[0])
    if isinstance(error, requests.exceptions.Timeout) or isinstance(reason, TimeoutError | ReadTimeoutError):
        return _TransportError(failures.timeout(in_doubt=_call.connected))
    if _call.connected:
        return _TransportError(failures.connection_failed(in_doubt=True))
    # The SDK tries the region's next endpoint, where there is one.
    return cast("Exception", HostUnreachableException(str(error)))


def _take_body(response: requests.Response) -> None:
    """Read the body. Where it breaks, an error reply still has its status; any other reply proves nothing."""
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
            late = time.monotonic() >= _call.deadline
            failure = failures.timeout(in_doubt=True) if late else _unconfirmed()
            raise _TransportError(replace(failure, huawei_request_id=_call.huawei_request_id))
        body.clear()
    response._content = bytes(body)  # noqa: SLF001 - requests has no public way to hand a body over
    response._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001


def _unconfirmed() -> Failure:
    return failures.unconfirmed_reply(status=_call.status, huawei_request_id=_call.huawei_request_id)


def _region(name: str, endpoints: dict[str, str]) -> Region:
    if name in endpoints:
        return Region(name, endpoints[name])
    try:
        return VpcepRegion.value_of(name)
    except KeyError:
        raise UnknownRegionError(name) from None


def _build(credentials: Credentials, region: Region, pool_size: int) -> VpcepClient:
    key = BasicCredentials(credentials.access_key, credentials.secret_key, credentials.project_id)
    if credentials.security_token:
        key = key.with_security_token(credentials.security_token)
    # Without a user agent of ours the SDK sends an id of this installation with each call.
    config = HttpConfig(user_agent=USER_AGENT, pool_maxsize=pool_size)
    client = cast(
        "VpcepClient",
        VpcepClient.new_builder()
        .with_http_config(config)
        .with_credentials(key)
        .with_region(region)
        .with_exception_handler(_ErrorReplies())
        .build(),
    )
    _take_over(client.get_http_client(), pool_size)
    return client


def _take_over(http: HttpClient, pool_size: int) -> None:
    session = http._session  # noqa: SLF001 - the SDK offers no other way to its adapter
    session.trust_env = False  # a .netrc would take the place of the signature
    adapter = _Adapter(pool_size)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
