"""Talks to Huawei Cloud, through the official SDK.

The only module that knows the SDK, and where its traps are closed: as shipped it loses code and request id of a 429,
hides whether a request had been sent, gives a reply without a name for a success, and waits for minutes.
"""

import io
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
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
from function.failures import CODE_MAX_LENGTH, MESSAGE_MAX_LENGTH, Failure, Kind, RenameFailedError
from function.redaction import Redactor
from function.rename import MIN_CALL_SECONDS, Reply, Target
from function.tls import trust

CONNECT_SECONDS: Final = 3.0
MAX_REPLY_BYTES: Final = 1024 * 1024
MAX_REQUEST_ID: Final = 128
# Five wrong signatures in a row lock the key for five minutes; a refused key is left alone for this long.
REFUSED_KEY_PAUSE_SECONDS: Final = 60.0
# How long a key that was accepted is trusted to be so still.
ACCEPTED_KEY_SECONDS: Final = 60.0
# Of other projects in a row, before the key is left alone for all of them; the default project's may follow.
MAX_REFUSALS_OF_OTHER_PROJECTS: Final = 2
MAX_REMEMBERED_REFUSALS: Final = 1_000
# The one before is kept for calls that began with it.
MAX_KEYS: Final = 2
# NATs and load balancers forget an idle connection, and tell neither side.
MAX_IDLE_SECONDS: Final = 60.0
# Between a quarter of an hour and a day. How long a key goes on that somebody has got hold of.
TEMPORARY_KEY_SECONDS: Final = 3_600
USER_AGENT: Final = "vpcep-rename"

# SO_LINGER on, for no time: the connection is reset when it is closed.
_RESET: Final = struct.pack("ii", 1, 0)
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
    """The call that this thread makes: when it must end, how far it came, and what is known of the reply.

    Attributes:
        sent: a part of the request may have left.
    """

    deadline: Deadline = Deadline(0.0, 0.0)
    redactor: Redactor = Redactor(())
    sent: bool = False
    status: int | None = None
    huawei_request_id: str | None = None

    def begin(self, deadline: Deadline, redactor: Redactor) -> None:
        self.deadline, self.redactor = deadline, redactor
        self.sent, self.status, self.huawei_request_id = False, None, None

    def seconds_left(self) -> float:
        """Raises TimeoutError where none is left."""
        seconds = self.deadline.remaining()
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
        region: str,
        regions: Iterable[str],
        endpoints: dict[str, str],
        allowed_projects: frozenset[str],
        pool_size: int,
        on_call: Callable[[float], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            credentials: cheap to call as a rule, and waits no longer than its deadline; raises RenameFailedError.
            forget: called with a key that was refused, so that ``credentials`` looks whether there is another.
            region: the function's own.
            regions: all that events may name.
            endpoints: by region, where another endpoint than the region's own is to be used.
            allowed_projects: what events may name beside the key's own project.
            pool_size: connections kept alive.
            on_call: called with the duration of each call in seconds, whatever came of it.
            now: seconds since the epoch; a clock that also goes on while the environment is frozen.

        Raises:
            UnknownRegionError: the SDK knows no endpoint there.
        """
        self._region = region
        self._regions = {name: _region(name, endpoints) for name in regions}
        self._allowed_projects = allowed_projects
        self._credentials = credentials
        self._forget = forget
        self._pool_size = pool_size
        self._on_call = on_call
        self._now = now
        self._keys: dict[Credentials, _Key] = {}
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
        key = self._key(deadline)
        client = self._client(key, target)
        try:
            return key.guard.call(target, lambda: self._send(client, key, operation, deadline), deadline)
        except RenameFailedError as error:
            failure = error.failure
            if failure.kind is Kind.ACCESS and self._has_other_than(key.credentials, deadline):
                raise RenameFailedError(replace(failure, quick=True)) from error
            raise

    def _send(self, client: VpcepClient, key: "_Key", operation: Callable[[Any], object], deadline: Deadline) -> Reply:
        began = time.monotonic()
        _call.begin(deadline, key.redactor)
        try:
            name = operation(client)
        except Exception as error:
            raise RenameFailedError(_failure(error)) from error
        finally:
            self._on_call(time.monotonic() - began)
        reported = key.redactor.clean(name, len(name)) if isinstance(name, str) else None
        return Reply(reported, _call.status, _call.huawei_request_id)

    def _has_other_than(self, credentials: Credentials, deadline: Deadline) -> bool:
        try:
            return self._credentials(deadline) != credentials
        except RenameFailedError:
            return False

    def _key(self, deadline: Deadline) -> "_Key":
        credentials = self._credentials(deadline)
        with self._lock:
            # By the key itself: whoever was slow to take an older one to a call meets what is known of that one.
            if credentials not in self._keys:
                while len(self._keys) >= MAX_KEYS:
                    del self._keys[next(iter(self._keys))]
                self._keys[credentials] = _Key(credentials, self._region, self._forget, self._now)
            return self._keys[credentials]

    def _client(self, key: "_Key", target: Target) -> VpcepClient:
        with self._lock:
            place = target.region, target.project_id
            if place not in key.clients:
                own = key.credentials._replace(project_id=target.project_id)
                key.clients[place] = _build(own, self._regions[target.region], self._pool_size)
            return key.clients[place]


def iam_endpoint(region: str, endpoints: dict[str, str]) -> str | None:
    """The address of a region's IAM: in the domain that VPCEP has there. None where that tells nothing.

    The SDK's own list lacks regions, and for those names the IAM of another site.

    Args:
        endpoints: of VPCEP by region, where another endpoint than the region's own is to be used.

    Raises:
        UnknownRegionError: the SDK knows no endpoint there.
    """
    known = VpcepRegion.static_fields.get(region) or _region(region, endpoints)
    scheme, separator, domain = known.endpoints[0].partition("://vpcep.")
    return f"{scheme}://iam.{domain}" if separator else None


class Iam:
    """Gives a temporary key to whom an identity provider vouches for, by the requests of the SDK.

    Its own credentials take the token from a file, wait for minutes, and let every thread ask for itself.
    """

    def __init__(self, idp_id: str, project_id: str, *, endpoint: str) -> None:
        """
        Args:
            idp_id: of the identity provider, as it is registered.
            project_id: what the key is used for.
            endpoint: of IAM.
        """
        self._idp_id = idp_id
        self._project_id = project_id
        self._endpoint = endpoint
        self._config = HttpConfig(user_agent=USER_AGENT)

    def temporary_key(self, id_token: str, deadline: Deadline) -> tuple[Credentials, datetime]:
        """A key, and when it expires.

        ``POST /v3.0/OS-AUTH/id-token/tokens``, then ``POST /v3.0/OS-CREDENTIAL/securitytokens``

        Raises:
            RenameFailedError: whatever the SDK raised.
        """
        # Anew each time: a connection of an hour ago would have gone stale.
        http = HttpClient(self._config, http_handler=None, exception_handler=_ErrorReplies(), logger=None)
        _take_over(http, pool_size=1)
        try:
            _call.begin(deadline, Redactor(id_token.split(".")))
            request = IamHelper.get_create_unscoped_token_by_id_token_request(
                self._config, self._endpoint, self._idp_id, id_token
            )
            token = IamHelper.create_unscoped_token_by_id_token(http, request)
            _call.begin(deadline, Redactor([token, *id_token.split(".")]))
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


class KeyGuard:
    """Whether a key has been accepted of late, and what it was refused for.

    Five wrong signatures in a row lock a key. So until it has been accepted calls go one by one, and what was refused
    is left alone for a while. A 401 for the default project is about the key. One for another project or region may be
    about that alone; two in a row are taken to be about the key, but the default project may still prove the contrary.
    Any other refusal is about the one endpoint service.
    """

    _EVERYBODY: Final = "everybody"
    _OTHER_PROJECTS: Final = "other projects"

    def __init__(
        self,
        credentials: Credentials,
        region: str,
        *,
        forget: Callable[[Credentials], None],
        now: Callable[[], float],
    ) -> None:
        """
        Args:
            region: where the key's own project is the default one.
            forget: called with a key that was refused.
            now: seconds since the epoch.
        """
        self._credentials = credentials
        self._home = region, credentials.project_id
        self._forget = forget
        self._now = now
        self._probe = _Probe()
        self._lock = threading.Lock()
        self._accepted_until = 0.0
        self._refused_in_a_row = 0
        self._refusals: dict[object, tuple[float, Failure]] = {}

    def call(self, target: Target, send: Callable[[], Reply], deadline: Deadline) -> Reply:
        """Make a call and learn from what comes of it; while it is open whether the key is accepted, alone.

        Raises:
            RenameFailedError: the call's failure; the refusal that is remembered, or that there was no time for a call,
                with ``called`` False.
        """
        if not self._is_accepted():
            with self._alone(deadline):
                if not self._is_accepted():
                    return self._call(target, send, deadline)
        return self._call(target, send, deadline)

    def raise_if_refused(self, target: Target) -> None:
        """Raises RenameFailedError with ``called`` False where a call for this target was refused a moment ago."""
        now = self._now()
        with self._lock:
            for scope in self._scopes(target):
                until, failure = self._refusals.get(scope, (0.0, None))
                if failure is not None and now < until:
                    raise RenameFailedError(replace(failure, called=False))

    @contextmanager
    def _alone(self, deadline: Deadline) -> Iterator[None]:
        probe = self._probe
        if not probe.lock.acquire(blocking=False):
            probe = self._waited(deadline)
        try:
            probe.deadline = deadline
            yield
        finally:
            probe.lock.release()

    def _waited(self, deadline: Deadline) -> "_Probe":
        while (seconds := deadline.remaining() - MIN_CALL_SECONDS) > 0:
            probe = self._probe
            if probe.lock.acquire(timeout=min(seconds, max(MIN_CALL_SECONDS, probe.deadline.remaining()))):
                return probe
            if probe.deadline.remaining() < 0:
                # Stuck before its request, which it does not send any more.
                with self._lock:
                    if self._probe is probe:
                        self._probe = _Probe()
        raise _not_called()

    def _is_accepted(self) -> bool:
        return self._now() < self._accepted_until

    def _call(self, target: Target, send: Callable[[], Reply], deadline: Deadline) -> Reply:
        self.raise_if_refused(target)
        if deadline.remaining() <= 0:
            raise _not_called()
        try:
            reply = send()
        except RenameFailedError as error:
            failure = error.failure
            if failure.kind is Kind.ACCESS:
                self._refuse(target, failure)
            elif failure.code.lower().startswith("endpoint."):  # VPCEP's own, which answers behind the gateway only
                self._accept()
            raise
        if reply.name is not None:
            self._accept()
        return reply

    def _accept(self) -> None:
        with self._lock:
            self._accepted_until = self._now() + ACCEPTED_KEY_SECONDS
            self._refused_in_a_row = 0
            self._refusals.pop(self._OTHER_PROJECTS, None)

    def _refuse(self, target: Target, failure: Failure) -> None:
        self._forget(self._credentials)  # first: who sees the refusal looks for another key at once
        with self._lock:
            now = self._now()
            self._refusals = {scope: refusal for scope, refusal in self._refusals.items() if now < refusal[0]}
            while len(self._refusals) > MAX_REMEMBERED_REFUSALS:
                del self._refusals[next(iter(self._refusals))]
            for scope in self._refused_scopes(target, failure):
                self._refusals[scope] = now + REFUSED_KEY_PAUSE_SECONDS, failure

    def _refused_scopes(self, target: Target, failure: Failure) -> Iterable[object]:
        *_, place, service = self._scopes(target)
        if failure.http_status != HTTPStatus.UNAUTHORIZED:
            return [service]
        self._accepted_until = 0.0
        self._refused_in_a_row += 1
        if place == self._home:
            return [self._EVERYBODY]
        if self._refused_in_a_row >= MAX_REFUSALS_OF_OTHER_PROJECTS:
            return [self._OTHER_PROJECTS, place]
        return [place]

    def _scopes(self, target: Target) -> list[object]:
        """Whose refusals concern a target, from everybody's to its own."""
        place = target.region, target.project_id
        others = [] if place == self._home else [self._OTHER_PROJECTS]
        return [self._EVERYBODY, *others, place, (*place, target.vpc_endpoint_service_id.casefold())]


class _Probe:
    """The right to make a call alone.

    Attributes:
        deadline: of the call that has it, or had it last.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.deadline = Deadline(0.0, 0.0)


class _Key:
    """A key, with its guard, the SDK's clients by region and project, and what takes it out of texts."""

    def __init__(
        self, credentials: Credentials, region: str, forget: Callable[[Credentials], None], now: Callable[[], float]
    ) -> None:
        self.credentials = credentials
        self.guard = KeyGuard(credentials, region, forget=forget, now=now)
        self.redactor = Redactor((credentials.access_key, credentials.secret_key, credentials.security_token))
        self.clients: dict[tuple[str, str], VpcepClient] = {}


def _not_called() -> RenameFailedError:
    return RenameFailedError(replace(failures.timeout(), called=False))


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
        clean = _call.redactor.clean
        raise _TransportError(
            failures.from_reply(
                clean(code or "", CODE_MAX_LENGTH + 1),
                clean(message, MESSAGE_MAX_LENGTH),
                status=response.status_code,
                huawei_request_id=_call.huawei_request_id or clean(request_id or "", MAX_REQUEST_ID),
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


class _Connection:
    """Sends nothing of a request after its call's deadline, and tells whether some of it may have left."""

    response_class: Any = _Response
    kept_since: float | None = None
    awaits_reply: bool = False

    def send(self, data: Any) -> None:
        # Names are looked up without a time-out, and an environment may freeze at any point: time may be over by now.
        if self.sock is None:  # type: ignore[attr-defined]
            self.connect()  # type: ignore[attr-defined]
        if _call.deadline.remaining() <= 0:
            raise _TransportError(failures.timeout(in_doubt=_call.sent))
        _call.sent = self.awaits_reply = True
        super().send(data)  # type: ignore[misc]

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        self.awaits_reply = False
        return response

    def close(self) -> None:
        if self.awaits_reply and self.sock is not None:  # type: ignore[attr-defined]
            # Else the kernel would go on to repeat what nobody has acknowledged, for minutes.
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # type: ignore[attr-defined]
        self.awaits_reply = False
        super().close()  # type: ignore[misc]


class _HttpConnection(_Connection, HTTPConnection):
    """Without TLS, for another endpoint."""


class _HttpsConnection(_Connection, HTTPSConnection):
    """With TLS, verified."""


class _Pool:
    """Uses no connection again that was idle for long, by a clock that goes on while the environment is frozen."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)  # type: ignore[misc]
        if connection.kept_since is not None:
            idle = _call.deadline.now() - connection.kept_since
            if not 0 <= idle < MAX_IDLE_SECONDS:
                connection.close()  # which connects anew when it is used
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.kept_since = _call.deadline.now()
        super()._put_conn(conn)  # type: ignore[misc]


class _HttpPool(_Pool, HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(_Pool, HTTPSConnectionPool):
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
        request_id = response.headers.get("X-Request-Id", "")
        _call.huawei_request_id = _call.redactor.clean(request_id, MAX_REQUEST_ID) or None
        _take_body(response)
        return response


def _lost(error: Exception) -> Exception:
    """What a call without a reply ends with."""
    reason: object = error
    if isinstance(error, requests.exceptions.ConnectionError) and error.args:
        reason = getattr(error.args[0], "reason", error.args[0])
    if isinstance(error, requests.exceptions.Timeout) or isinstance(reason, TimeoutError | ReadTimeoutError):
        return _TransportError(failures.timeout(in_doubt=_call.sent))
    if _call.sent:
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
            late = _call.deadline.remaining() <= 0
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
