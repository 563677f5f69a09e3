"""The official SDK's client of the local Huawei Cloud."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import SdkException, ServiceResponseException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.http.http_handler import HttpHandler
from huaweicloudsdkvpcep.v1 import (
    ListServiceDetailsRequest,
    UpdateEndpointServiceNameRequest,
    UpdateEndpointServiceNameRequestBody,
    VpcepClient,
)
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from urllib3.util import Retry

from tests.fakes.identifiers import PROJECT, SERVICE
from tests.localcloud.huawei import HuaweiCloud

AK, SK = "LOCALACCESSKEY", "local-secret-key"


def client_of(
    cloud: HuaweiCloud,
    *,
    ak: str = AK,
    sk: str = SK,
    project_id: str | None = PROJECT,
    token: str | None = None,
    after_signing: Callable[..., None] | None = None,
    read_timeout: float = 10.0,
) -> Any:
    credentials = BasicCredentials(ak, sk, project_id)
    if token is not None:
        credentials.with_security_token(token)
    builder = VpcepClient.new_builder().with_credentials(credentials).with_endpoint(cloud.url)
    builder.with_http_config(HttpConfig(timeout=(10.0, read_timeout)))
    if after_signing:
        builder.with_http_handler(HttpHandler().add_request_handler(after_signing))
    client = builder.build()
    # As shipped, the SDK retries a 429 into an exception without its body.
    retry = Retry(total=0, read=False, connect=False, status_forcelist=[], respect_retry_after_header=False)
    client.get_http_client()._session.mount("http://", HTTPAdapter(max_retries=retry))
    return client


def rename(client: Any, name: str | None = "orders", service_id: str = SERVICE) -> Any:
    body = UpdateEndpointServiceNameRequestBody(name)
    return client.update_endpoint_service_name(UpdateEndpointServiceNameRequest(service_id, body))


def read(client: Any, service_id: str = SERVICE) -> Any:
    return client.list_service_details(ListServiceDetailsRequest(service_id))


def result_of(client: Any, name: str = "orders", service_id: str = SERVICE) -> object:
    """Status and name of a success, status and code of an error in one text, or the type of another exception."""
    try:
        reply = rename(client, name, service_id)
    except ServiceResponseException as error:
        return f"{error.status_code} {error.error_code}"
    except (SdkException, RequestException) as error:
        return type(error)
    return reply.status_code, reply.endpoint_service_name


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[int, str]:
    """Status and error code of the reply to a call that is refused."""
    with pytest.raises(ServiceResponseException) as caught:
        call(*args, **kwargs)
    return caught.value.status_code, caught.value.error_code


def path_of(service_id: str = SERVICE, project_id: str = PROJECT) -> str:
    return f"/v1/{project_id}/vpc-endpoint-services/{service_id}"
