"""Huawei Cloud's VPC endpoint API on the loopback interface, as far as a rename needs it.

It supports three operations, and refuses everything else as the API gateway does:

- rename: ``PUT /v1/{project_id}/vpc-endpoint-services/{id}/name``
- read: ``GET /v1/{project_id}/vpc-endpoint-services/{id}``
- list: ``GET /v1/{project_id}/vpc-endpoint-services``, with ``limit`` and ``offset``, in the order of creation

A test can inject every fault of a service, a gateway or a network (`HuaweiCloud.fail`) and throttling
(`HuaweiCloud.throttle`), and read the journal of calls (`HuaweiCloud.calls`).

A call is checked in the order of the real cloud, gateway first: route, method, signature, throttling; then the injected
faults; then project, body, name, service. So an injected fault never hides a wrong signature.

Where Huawei Cloud's API page is silent, these are the choices:

- A project id that is not 1 to 64 letters, digits, ``_`` or ``-`` is malformed: 400 EndPoint.0014. A well-formed one
  which the account does not own is refused by the gateway: 403 APIGW.0304. A service in another project of the account
  does not exist in this one: 400 EndPoint.2003.
- The name is optional in the body and may be empty. An empty one is a name like any other; with an absent (or null) one
  the service keeps its name, which the reply reports.
- A service id of more than 64 characters is invalid (EndPoint.3062); any other that is not known is not found.
- No code is documented for a wrong method: 405 comes with the gateway's "no such API", APIGW.0101.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, quote, unquote

from tests.localcloud.server import ConnectionTrackingServer, LoopbackServer, reset

Operation = Literal["rename", "read", "list"]
Kind = Literal["status", "reset", "truncate", "garbage", "drip", "hang", "slow"]

CLOCK_TOLERANCE = 15 * 60.0
FAILURES_UNTIL_LOCK = 5
LOCK_SECONDS = 5 * 60.0

_AUTHORIZATION = re.compile(
    r"SDK-HMAC-SHA256 Access=(?P<ak>[^,]+), SignedHeaders=(?P<signed>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)
_PROJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9_-]*")
_WITHOUT_BODY = (204, 304)


@dataclass(frozen=True)
class Call:
    """One call, and its reply; `status` is None where there was no reply."""

    time: float
    method: str
    path: str
    operation: Operation | None
    service_id: str | None
    project_id: str | None
    name: str | None
    status: int | None
    code: str | None
    request_id: str
    authenticated: bool


@dataclass(frozen=True)
class _Reply:
    status: int
    body: bytes = b""
    code: str | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Fault:
    kind: Kind
    status: int
    code: str | None
    message: str
    times: int | None
    service_id: str | None
    on: Operation | Literal["any"]
    applied: bool
    body: bytes | None
    content_type: str
    headers: Mapping[str, str]
    delay: float
    pace: float


@dataclass
class _Service:
    project_id: str
    name: str
    created: float
    updated: float


@dataclass(frozen=True)
class _TemporaryKey:
    sk: str
    security_token: str
    expires_at: float


@dataclass(frozen=True)
class _Throttle:
    limit: int
    seconds: float
    retry_after: str | None


class _RefusalError(Exception):
    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class HuaweiCloud(LoopbackServer):
    """The cloud of one account, running until the end of the `with` block.

    `reply_form`, `error_generation` and `name_max_length` may be changed at any time. `now` is the clock of signatures,
    locks and throttling, so that a test can move it instead of waiting.
    """

    def __init__(
        self,
        ak: str,
        sk: str,
        project_id: str,
        region: str = "cn-north-4",
        *,
        security_token: str | None = None,
        name_max_length: int = 16,
        reply_form: Literal["short", "full"] = "short",
        error_generation: Literal["old", "new"] = "new",
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.project_id = project_id
        self.region = region
        self.name_max_length = name_max_length
        self.reply_form = reply_form
        self.error_generation = error_generation
        self._now = now
        self._lock = threading.RLock()
        self._defects: list[BaseException] = []
        self._projects = {project_id}
        self._services: dict[str, _Service] = {}
        self._temporary_keys: dict[str, _TemporaryKey] = {}
        self.set_credentials(ak, sk, security_token)
        self.reset()

    def _listen(self) -> _Server:
        return _Server(self)

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        if self._defects:
            # A defect of this module looks like a lost connection to the client, which many tests expect.
            raise self._defects[0]

    @property
    def calls(self) -> list[Call]:
        """The journal, oldest first. A call is in it before its reply is sent, or where none is."""
        with self._lock:
            return list(self._calls)

    def set_credentials(self, ak: str, sk: str, security_token: str | None = None) -> None:
        """Accept only these from now on, as after a rotation; a lock on an AK stays."""
        with self._lock:
            self._ak, self._sk, self._security_token = ak, sk, security_token

    def add_temporary_key(self, ak: str, sk: str, security_token: str, expires_at: float) -> None:
        """Accept this one as well as the account's own, until it expires."""
        with self._lock:
            self._temporary_keys[ak] = _TemporaryKey(sk, security_token, expires_at)

    def revoke_temporary_keys(self) -> None:
        with self._lock:
            self._temporary_keys = {ak: replace(key, expires_at=0.0) for ak, key in self._temporary_keys.items()}

    def temporary_secrets(self) -> list[str]:
        """The secret parts of the temporary keys."""
        with self._lock:
            return [secret for key in self._temporary_keys.values() for secret in (key.sk, key.security_token)]

    def add_project(self, project_id: str) -> None:
        with self._lock:
            self._projects.add(project_id)

    def add_service(self, service_id: str, name: str = "billing", project_id: str | None = None) -> str:
        """Create (or replace) a service and return its full name. Its project becomes one of the account's."""
        with self._lock:
            project_id = project_id or self.project_id
            self._projects.add(project_id)
            self._services[service_id] = _Service(project_id, name, created=self._now(), updated=self._now())
            return self.full_name_of(service_id)

    def name_of(self, service_id: str) -> str:
        with self._lock:
            return self._services[service_id].name

    def full_name_of(self, service_id: str) -> str:
        return self._full_name(service_id, self.name_of(service_id))

    def _full_name(self, service_id: str, name: str) -> str:
        """`region.name.id`, without the middle where the name is empty.

        The id in it is not the one of the service: the two differ in every documented example.
        """
        return ".".join(filter(None, [self.region, name, _other_id(service_id)]))

    def services(self) -> dict[str, str]:
        """The name of each endpoint service, by its id."""
        with self._lock:
            return {service_id: service.name for service_id, service in self._services.items()}

    def take_calls(self) -> list[Call]:
        """The journal so far, which is empty then."""
        with self._lock:
            taken = list(self._calls)
            self._calls.clear()
            return taken

    def reset(self) -> None:
        """Remove faults, throttling, locks and the journal; keep services, projects and credentials."""
        with self._lock:
            self._calls: list[Call] = []
            self.end_faults()

    def end_faults(self) -> None:
        """Remove faults, throttling and locks."""
        with self._lock:
            self._faults: list[_Fault] = []
            self._throttle: _Throttle | None = None
            self._recent: deque[float] = deque()
            self._failures: Counter[str] = Counter()
            self._locked_until: dict[str, float] = {}

    def throttle(self, limit: int | None, seconds: float = 60.0, retry_after: str | int | None = None) -> None:
        """Let `limit` calls pass in any `seconds`, counting the refused ones too; None lifts it."""
        with self._lock:
            self._recent.clear()
            header = None if retry_after is None else str(retry_after)
            self._throttle = None if limit is None else _Throttle(limit, seconds, header)

    def fail(
        self,
        status: int = 503,
        code: str | None = None,
        times: int | None = 1,
        service_id: str | None = None,
        on: Operation | Literal["any"] = "rename",
        *,
        kind: Kind = "status",
        applied: bool = False,
        message: str = "The request failed.",
        body: str | bytes | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
        pace: float = 0.05,
    ) -> None:
        """Inject a fault into the next `times` calls (None: until `reset`); faults apply in the order they were given.

        Only correctly signed, unthrottled calls count. With `applied` a valid rename takes effect, and only its reply
        is faulty. The reply is sent `delay` seconds after the rename.
        The kinds:

        - status: `status` with an error body for `code`, or, without one, with `body` as it is
        - garbage: 200 with `body` as it is
        - slow: the correct reply, late; always applied
        - truncate: half of the body the Content-Length announces, then the end of the connection
        - drip: the body byte by byte, `pace` seconds apart
        - reset: the connection is reset without a reply
        - hang: no reply until the cloud stops

        truncate and drip send `body` with 200, or, without one, the reply of an applied call.
        """
        if kind not in get_args(Kind) or on not in (*get_args(Operation), "any"):
            raise ValueError(f"no such failure: {kind} on {on}")
        raw = body.encode() if isinstance(body, str) else body
        fault = _Fault(
            kind=kind,
            status=status,
            code=code,
            message=message,
            times=times,
            service_id=service_id,
            on=on,
            applied=applied or kind == "slow",
            body=raw,
            content_type=content_type,
            headers=headers or {},
            delay=delay,
            pace=pace,
        )
        with self._lock:
            self._faults.append(fault)

    def _receive(self, method: str, target: str, headers: Message, body: bytes) -> tuple[_Reply, _Fault | None]:
        """The reply to a call. Under one lock, so that the journal has the order in which calls took effect."""
        with self._lock:
            arrived, request_id = self._now(), uuid.uuid4().hex
            operation, project_id, service_id = None, None, None
            authenticated, fault = False, None
            try:
                operation, project_id, service_id = _route(method, target)
                self._authenticate(method, target, headers, body)
                authenticated = True
                self._check_throttle()
                fault = self._next_fault(operation, service_id)
                reply = self._perform(
                    operation, project_id, service_id, target, body, apply=fault is None or fault.applied
                )
            except _RefusalError as refusal:
                reply = self._error(refusal, request_id)
            if fault:
                reply = self._faulty(fault, reply, request_id)
            unsent = fault is not None and fault.kind in ("reset", "hang")
            self._calls.append(
                Call(
                    time=arrived,
                    method=method,
                    path=target,
                    operation=operation,
                    service_id=service_id,
                    project_id=project_id,
                    name=_requested_name(body),
                    status=None if unsent else reply.status,
                    code=None if unsent else reply.code,
                    request_id=request_id,
                    authenticated=authenticated,
                )
            )
            return replace(reply, headers={"X-Request-Id": request_id, **reply.headers}), fault

    def _authenticate(self, method: str, target: str, headers: Message, body: bytes) -> None:
        authorization = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
        if not authorization:
            raise _unauthorized("authorization header not found")
        ak = authorization["ak"]
        if self._now() < self._locked_until.get(ak, 0.0):
            raise _unauthorized("AK access failed to reach the limit,forbidden")
        sk, security_token, is_known = self._sk, self._security_token, _same(ak, self._ak)
        if key := self._temporary_keys.get(ak):
            sk, security_token, is_known = key.sk, key.security_token, self._now() < key.expires_at
        expected = _sign(sk, method, target, headers, authorization["signed"].split(";"), body)
        if (
            is_known
            and _same(authorization["signature"], expected)
            and (security_token is None or _same(headers.get("X-Security-Token", ""), security_token))
            and self._is_recent(headers.get("X-Sdk-Date", ""))
        ):
            self._failures.pop(ak, None)
            return
        self._failures[ak] += 1
        if self._failures[ak] >= FAILURES_UNTIL_LOCK:
            self._locked_until[ak] = self._now() + LOCK_SECONDS
            del self._failures[ak]
        raise _unauthorized("verify aksk signature fail")

    def _is_recent(self, date: str) -> bool:
        try:
            signed_at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            return False
        return abs(self._now() - signed_at) <= CLOCK_TOLERANCE

    def _check_throttle(self) -> None:
        throttle = self._throttle
        if not throttle:
            return
        self._recent.append(self._now())
        while self._recent[0] <= self._now() - throttle.seconds:
            self._recent.popleft()
        if len(self._recent) > throttle.limit:
            policy = f"policy user over ratelimit,limit:{throttle.limit},time:{_span(throttle.seconds)}"
            headers = {} if throttle.retry_after is None else {"Retry-After": throttle.retry_after}
            raise _RefusalError(429, "APIGW.0308", f"The throttling threshold has been reached: {policy}", headers)

    def _next_fault(self, operation: Operation, service_id: str) -> _Fault | None:
        for fault in self._faults:
            if fault.on in (operation, "any") and fault.service_id in (service_id, None) and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def _perform(
        self, operation: Operation, project_id: str, service_id: str, target: str, body: bytes, *, apply: bool
    ) -> _Reply:
        if not _PROJECT_ID.fullmatch(project_id):
            raise _RefusalError(400, "EndPoint.0014", "Invalid project ID.")
        if project_id not in self._projects:
            raise _RefusalError(403, "APIGW.0304", "The app is not allowed to access the project.")
        if operation == "list":
            return self._list(project_id, target)
        name = self._valid_name(body) if operation == "rename" else None
        if len(service_id) > 64:
            raise _RefusalError(400, "EndPoint.3062", "Invalid endpoint service ID.")
        service = self._services.get(service_id)
        if service is None or service.project_id != project_id:
            raise _RefusalError(400, "EndPoint.2003", "The VPC endpoint service does not exist.")
        if operation == "read":
            return _Reply(200, json.dumps(self._details(service_id, service)).encode())
        if name is None:
            name = service.name
        elif apply:
            service.name, service.updated = name, self._now()
        reported = self._full_name(service_id, name) if self.reply_form == "full" else name
        return _Reply(200, json.dumps({"endpoint_service_name": reported}).encode())

    def _list(self, project_id: str, target: str) -> _Reply:
        query = dict(parse_qsl(target.partition("?")[2]))
        limit, offset = int(query.get("limit", 10)), int(query.get("offset", 0))
        found = [
            self._details(service_id, service)
            for service_id, service in self._services.items()
            if service.project_id == project_id
        ]
        page = {"endpoint_services": found[offset : offset + limit], "total_count": len(found)}
        return _Reply(200, json.dumps(page).encode())

    def _valid_name(self, body: bytes) -> str | None:
        if not body:
            raise _RefusalError(504, "EndPoint.0011", "The request body is missing.")
        try:
            data = json.loads(body)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise _RefusalError(400, "EndPoint.1004", "Invalid request.")
        name = data.get("endpoint_service_name")
        if name is None:
            return None
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > self.name_max_length:
            raise _RefusalError(400, "EndPoint.1003", "Invalid endpoint service name.")
        return name

    def _details(self, service_id: str, service: _Service) -> dict[str, Any]:
        return {
            "id": service_id,
            "service_name": self.full_name_of(service_id),
            "status": "available",
            "project_id": service.project_id,
            "vpc_id": _other_id(f"vpc of {service_id}"),
            "port_id": _other_id(f"port of {service_id}"),
            "service_type": "interface",
            "server_type": "LB",
            "approval_enabled": False,
            "cidr_type": "internal",
            "tcp_proxy": "close",
            "ports": [{"client_port": 8080, "server_port": 80, "protocol": "TCP"}],
            "tags": [],
            "enable_policy": False,
            "description": "",
            "created_at": _timestamp(service.created),
            "updated_at": _timestamp(service.updated),
        }

    def _error(self, refusal: _RefusalError, request_id: str) -> _Reply:
        """The gateway's errors have the new form, whichever the service's have."""
        data: dict[str, Any]
        if self.error_generation == "old" and not refusal.code.upper().startswith(("APIGW.", "APIG.")):
            data = {"error": {"code": refusal.code, "message": refusal.message}}
        else:
            data = {"error_code": refusal.code, "error_msg": refusal.message, "request_id": request_id}
        return _Reply(refusal.status, json.dumps(data).encode(), refusal.code, headers=refusal.headers)

    def _faulty(self, fault: _Fault, correct: _Reply, request_id: str) -> _Reply:
        if fault.kind == "status" and fault.code is not None:
            reply = self._error(_RefusalError(fault.status, fault.code, fault.message), request_id)
        elif fault.kind in ("status", "garbage"):
            status = fault.status if fault.kind == "status" else 200
            reply = _Reply(status, fault.body or b"", content_type=fault.content_type)
        elif fault.body is not None:
            reply = _Reply(200, fault.body, content_type=fault.content_type)
        else:
            reply = correct
        return replace(reply, headers=fault.headers)


class _Server(ConnectionTrackingServer):
    def __init__(self, cloud: HuaweiCloud) -> None:
        self.cloud = cloud
        super().__init__(_Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error and not isinstance(error, OSError):  # an OSError is a client that has closed the connection
            self.cloud._defects.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "api-gateway", ""
    # Headers and body in one segment: in two, the second would wait for the client's delayed acknowledgement.
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            self.send_error(411)
            return
        body = self.rfile.read(int(length))
        reply, fault = self.server.cloud._receive(self.command, self.path, self.headers, body)
        stopping = self.server.cloud._stopping
        kind = fault.kind if fault else "status"
        if fault and stopping.wait(None if kind == "hang" else fault.delay):
            self.close_connection = True
        elif kind == "reset":
            reset(self)
        else:
            self._start(reply)
            if self.command == "HEAD" or reply.status in _WITHOUT_BODY:
                return
            if fault and kind == "drip":
                for byte in reply.body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    if stopping.wait(fault.pace):
                        self.close_connection = True
                        return
            elif kind == "truncate":
                self.wfile.write(reply.body[: len(reply.body) // 2])
                self.close_connection = True
            else:
                self.wfile.write(reply.body)

    def _start(self, reply: _Reply) -> None:
        headers = {"Content-Type": reply.content_type, **reply.headers}
        if reply.status not in _WITHOUT_BODY:
            headers["Content-Length"] = str(len(reply.body))
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = _serve


def _route(method: str, target: str) -> tuple[Operation, str, str]:
    operation: Operation
    match [unquote(segment) for segment in target.partition("?")[0].split("/")]:
        case ["", "v1", project_id, "vpc-endpoint-services", service_id] if service_id:
            operation, allowed = "read", "GET"
        case ["", "v1", project_id, "vpc-endpoint-services", service_id, "name"] if service_id:
            operation, allowed = "rename", "PUT"
        case ["", "v1", project_id, "vpc-endpoint-services"]:
            operation, allowed, service_id = "list", "GET", ""
        case _:
            message = "The API does not exist or has not been published in the environment."
            raise _RefusalError(404, "APIGW.0101", message)
    if method != allowed:
        raise _RefusalError(405, "APIGW.0101", "The API does not exist.", {"Allow": allowed})
    return operation, project_id, service_id


def _sign(sk: str, method: str, target: str, headers: Message, signed: list[str], body: bytes) -> str:
    """The signature of a received request by SDK-HMAC-SHA256.

    The hash is always that of the received body: a client that declares its payload unsigned (the SDK does so for
    content types other than JSON) is refused. A signed header that is missing counts as empty, so the signature does
    not match. Header values are the received bytes, which `http.server` decodes as Latin-1.
    """
    path, _, query = target.partition("?")
    uri = quote(unquote(path), safe="/~")
    parameters = sorted(parse_qsl(query, keep_blank_values=True))
    lines = [
        method,
        uri if uri.endswith("/") else uri + "/",
        "&".join(f"{quote(key, safe='~')}={quote(value, safe='~')}" for key, value in parameters),
        *(f"{name}:{headers.get(name, '').strip()}" for name in signed),
        "",
        ";".join(signed),
        hashlib.sha256(body).hexdigest(),
    ]
    canonical = hashlib.sha256("\n".join(lines).encode("latin-1")).hexdigest()
    text = f"SDK-HMAC-SHA256\n{headers.get('X-Sdk-Date', '')}\n{canonical}"
    return hmac.new(sk.encode(), text.encode("latin-1"), hashlib.sha256).hexdigest()


def _other_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _unauthorized(reason: str) -> _RefusalError:
    return _RefusalError(401, "APIGW.0301", f"Incorrect IAM authentication information: {reason}")


def _requested_name(body: bytes) -> str | None:
    """For the journal, whether or not the call is accepted."""
    try:
        name = json.loads(body)["endpoint_service_name"]
    except (ValueError, TypeError, KeyError):
        return None
    return name if isinstance(name, str) else None


def _span(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} second"


def _timestamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
