"""Calls endpoint services of Huawei Cloud with the official SDK.

One SDK client per key, region and project. ``transport`` sends their requests.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, Final, NamedTuple, cast

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkvpcep.v1.model.error import Error
from huaweicloudsdkvpcep.v1.model.list_service_details_request import ListServiceDetailsRequest
from huaweicloudsdkvpcep.v1.model.list_service_details_response import ListServiceDetailsResponse
from huaweicloudsdkvpcep.v1.model.port_list import PortList
from huaweicloudsdkvpcep.v1.model.tag_list import TagList
from huaweicloudsdkvpcep.v1.model.update_endpoint_service_name_request import UpdateEndpointServiceNameRequest
from huaweicloudsdkvpcep.v1.model.update_endpoint_service_name_request_body import UpdateEndpointServiceNameRequestBody
from huaweicloudsdkvpcep.v1.model.update_endpoint_service_name_response import UpdateEndpointServiceNameResponse
from huaweicloudsdkvpcep.v1.vpcep_client import VpcepClient

from function.adapters.huawei.credentials import Credentials, CredentialsProvider
from function.adapters.huawei.key_guard import KeyGuard
from function.adapters.huawei.redaction import Redactor
from function.adapters.huawei.regions import known_region
from function.adapters.huawei.transport import USER_AGENT, ErrorReplies, call_scope, install_adapter
from function.domain.deadline import Deadline
from function.domain.failures import Kind, RenameFailedError
from function.domain.model import Target
from function.domain.ports import ReadPurpose, Reply

# The previous key is kept for calls that started with it.
MAX_KEYS: Final = 2

# The SDK's models of replies. Its package of models, which imports a hundred modules, is not deployed.
_MODELS: Final = Error, ListServiceDetailsResponse, PortList, TagList, UpdateEndpointServiceNameResponse
_REPLY_MODELS: Final = SimpleNamespace(**{model.__name__: model for model in _MODELS})

_Operation = Callable[[Any], object]


class _Key(NamedTuple):
    """A key, with its guard, its redactor, and its SDK clients by region and project."""

    credentials: Credentials
    guard: KeyGuard
    redactor: Redactor
    clients: dict[tuple[str, str], VpcepClient]


@dataclass(eq=False, repr=False)
class HuaweiEndpointServices:
    """The endpoint services that a key has access to.

    Raises UnknownRegionError at construction if the SDK has no endpoint for a region.

    Attributes:
        credentials: asked before each call.
        region: the function's own.
        regions: all that events may name.
        endpoints: custom endpoints, by region.
        pool_size: connections kept alive.
        on_call: called with the duration of each request, in seconds, whatever its result.
        now: seconds since the epoch, by a clock that continues while the environment is frozen.
    """

    reply_models: ClassVar[Any] = _REPLY_MODELS

    credentials: CredentialsProvider
    _: KW_ONLY
    region: str
    regions: Iterable[str]
    endpoints: dict[str, str]
    pool_size: int
    on_call: Callable[[float], None] = lambda _: None
    now: Callable[[], float] = time.time
    _keys: dict[Credentials, _Key] = field(init=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._regions = {name: known_region(name, self.endpoints) for name in self.regions}

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        """``PUT /v1/{project_id}/vpc-endpoint-services/{vpc_endpoint_service_id}/name``

        Raises:
            RenameFailedError: for any exception of the SDK.
        """
        request = UpdateEndpointServiceNameRequest(
            vpc_endpoint_service_id=target.vpc_endpoint_service_id,
            body=UpdateEndpointServiceNameRequestBody(endpoint_service_name=name),
        )
        return self._call(
            target, lambda client: client.update_endpoint_service_name(request).endpoint_service_name, deadline
        )

    def read(self, target: Target, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply:
        """``GET /v1/{project_id}/vpc-endpoint-services/{vpc_endpoint_service_id}``

        Raises:
            RenameFailedError: for any exception of the SDK.
        """
        request = ListServiceDetailsRequest(vpc_endpoint_service_id=target.vpc_endpoint_service_id)
        return self._call(target, lambda client: client.list_service_details(request).service_name, deadline, purpose)

    def _call(
        self, target: Target, operation: _Operation, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION
    ) -> Reply:
        key = self._key(deadline)
        client = self._client(key, target)
        try:
            return key.guard.call(target, lambda: self._send(client, key, operation, deadline), deadline, purpose)
        except RenameFailedError as error:
            if error.failure.kind is Kind.ACCESS and self._has_other_than(key.credentials, deadline):
                raise RenameFailedError(error.failure._replace(retry_in_process=True)) from error
            raise

    def _send(self, client: VpcepClient, key: _Key, operation: _Operation, deadline: Deadline) -> Reply:
        began = time.monotonic()
        try:
            with call_scope(deadline, key.redactor) as call:
                name = operation(client)
        finally:
            self.on_call(time.monotonic() - began)
        reported = key.redactor.clean(name, len(name)) if isinstance(name, str) else None
        return Reply(reported, call.status, call.huawei_request_id)

    def _has_other_than(self, credentials: Credentials, deadline: Deadline) -> bool:
        try:
            return self.credentials.get(deadline) != credentials
        except RenameFailedError:
            return False

    def _key(self, deadline: Deadline) -> _Key:
        credentials = self.credentials.get(deadline)
        with self._lock:
            # By key, so that a call that started with an older key uses the guard of that key.
            if credentials not in self._keys:
                while len(self._keys) >= MAX_KEYS:
                    del self._keys[next(iter(self._keys))]
                self._keys[credentials] = _Key(
                    credentials,
                    KeyGuard(credentials, self.region, invalidate=self.credentials.invalidate, now=self.now),
                    Redactor((credentials.access_key, credentials.secret_key, credentials.security_token)),
                    {},
                )
            return self._keys[credentials]

    def _client(self, key: _Key, target: Target) -> VpcepClient:
        with self._lock:
            place = target.region, target.project_id
            if place not in key.clients:
                own = key.credentials._replace(project_id=target.project_id)
                key.clients[place] = _build(own, self._regions[target.region], self.pool_size, self.reply_models)
            return key.clients[place]


def _build(credentials: Credentials, region: Region, pool_size: int, reply_models: Any) -> VpcepClient:
    key = BasicCredentials(credentials.access_key, credentials.secret_key, credentials.project_id)
    if credentials.security_token:
        key = key.with_security_token(credentials.security_token)
    # Without a custom user agent, the SDK sends an id of this installation with each call.
    config = HttpConfig(user_agent=USER_AGENT, pool_maxsize=pool_size)
    client = cast(
        "VpcepClient",
        VpcepClient.new_builder()
        .with_http_config(config)
        .with_credentials(key)
        .with_region(region)
        .with_exception_handler(ErrorReplies())
        .build(),
    )
    client.model_package = reply_models
    install_adapter(client.get_http_client(), pool_size)
    return client
