"""A DynamoDB table behind the function's own client, in memory."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import botocore.session
from botocore.exceptions import ClientError, HTTPClientError
from botocore.model import ServiceModel, Shape
from botocore.validate import ParamValidator

from function.adapters.aws.client import Aws, DynamoDbClient, Key
from tests.fakes.aws import AwsCall
from tests.faults.dynamodb import Table, TransactionCanceledError


class _DynamoDbFault(NamedTuple):
    body: dict[str, Any]
    status: int = 400
    break_off: HTTPClientError | None = None
    applied: bool = False


class FakeDynamoDb:
    """A table behind the function's own client; no byte leaves the process.

    It refuses a request that boto3 would not send, and knows a transaction by its request token, as DynamoDB does: once
    done, the same request again changes nothing.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """``now`` is in seconds since the epoch, for the time to live."""
        self.calls: list[AwsCall] = []
        self.table = Table(lambda expiration: expiration < now())
        self._faults: deque[_DynamoDbFault] = deque()
        self._lock = threading.Lock()

    def client(self, sleep: Callable[[float], None] = lambda seconds: None) -> DynamoDbClient:
        """The function's own client."""
        aws = Aws(region="eu-west-1", endpoints={}, key=Key("local", "local", None), sleep=sleep)
        aws._http = cast("Any", SimpleNamespace(request=self._request))
        return DynamoDbClient(aws)

    def item(self, key: str) -> dict[str, Any] | None:
        return self.table.get({"id": {"S": key}})

    # -- commands of a test, each for the next calls

    def refuse(self, code: str, *, status: int = 400, times: int = 1) -> None:
        self._faults.extend([_DynamoDbFault({"__type": f"com.amazonaws#{code}", "message": "No."}, status)] * times)

    def cancel(self, *codes: str, applied: bool = False) -> None:
        """DynamoDB says that it canceled a transaction for these reasons, one for each of its items."""
        self._faults.append(_DynamoDbFault(_canceled([{"Code": code} for code in codes]), applied=applied))

    def break_off(self, error: HTTPClientError, *, applied: bool = False, times: int = 1) -> None:
        """No answer comes; the request has been carried out if ``applied``."""
        self._faults.extend([_DynamoDbFault({}, break_off=error, applied=applied)] * times)

    def recover(self) -> None:
        self._faults.clear()

    # -- what the client calls

    def _request(self, _: str, __: str, *, body: bytes, headers: Mapping[str, str], **___: Any) -> Any:
        """urllib3's."""
        operation = headers["X-Amz-Target"].partition(".")[2]
        parameters = json.loads(body)
        model = _dynamodb_model().operation_model(operation)
        report = ParamValidator().validate(parameters, cast("Shape", model.input_shape))
        assert not report.has_errors(), report.generate_report()
        with self._lock:
            self.calls.append(AwsCall(operation, parameters))
            fault = self._faults.popleft() if self._faults else None
            if fault is None or fault.applied:
                status, answer = self._answer(operation, parameters)
        if fault:
            status, answer = fault.status, fault.body
            if fault.break_off:
                raise fault.break_off
        return SimpleNamespace(status=status, data=json.dumps(answer).encode(), headers={})

    def _answer(self, operation: str, parameters: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if operation not in ("GetItem", "PutItem", "UpdateItem", "TransactWriteItems"):
            return 400, {"__type": "UnknownOperationException"}
        try:
            return 200, self.table.carry_out(operation, parameters)
        except TransactionCanceledError as error:
            return 400, _canceled(cast("dict[str, Any]", error.response)["CancellationReasons"])
        except ClientError:
            return 400, {"__type": "ConditionalCheckFailedException", "message": "The conditional request failed"}


@cache
def _dynamodb_model() -> ServiceModel:
    return botocore.session.get_session().get_service_model("dynamodb")


def _canceled(reasons: list[dict[str, Any]]) -> dict[str, Any]:
    return {"__type": "TransactionCanceledException", "Message": "No.", "CancellationReasons": reasons}
