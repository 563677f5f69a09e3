"""The local Huawei Cloud with random faults, and a callback for each rename that reaches it."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from random import Random
from typing import Any, Final

from tests.fakes.environment import ENVIRONMENT
from tests.fakes.identifiers import PROJECT, REGION
from tests.localcloud.huawei import HuaweiCloud

# The faults of any call, with their weights. None of them is permanent.
FAULTS: Final[tuple[tuple[float, dict[str, Any]], ...]] = (
    (4, {"kind": "reset"}),
    (4, {"kind": "reset", "applied": True}),
    (0.3, {"kind": "hang"}),
    (0.3, {"kind": "hang", "applied": True}),
    (4, {"kind": "slow", "delay": 0.3}),
    (2, {"kind": "truncate", "applied": True}),
    (2, {"kind": "garbage", "body": "{}", "applied": True}),
    (2, {"kind": "garbage", "body": "{}"}),
    (2, {"status": 504, "body": "", "applied": True}),
    (2, {"status": 504, "body": ""}),
    (2, {"status": 500, "code": "EndPoint.0001", "applied": True}),
    (2, {"status": 500, "code": "EndPoint.0001"}),
    (2, {"status": 503, "code": "APIGW.0613"}),
    (2, {"status": 429, "body": ""}),
    (2, {"status": 400, "code": "EndPoint.3045"}),
)
_IN_DOUBT_KINDS: Final = ("reset", "hang", "truncate", "garbage")


class FaultyHuaweiCloud(HuaweiCloud):
    """
    Attributes:
        fault_rate: of all calls, as a probability.
        faults: how many have been injected.
    """

    def __init__(self, seed: int, on_rename: Callable[[str, str, bool, bool], None]) -> None:
        """
        Args:
            on_rename: called with the id of the service, the name, whether it took effect, and whether the response
                leaves that in doubt.
        """
        ak, sk = ENVIRONMENT["HUAWEICLOUD_SDK_AK"], ENVIRONMENT["HUAWEICLOUD_SDK_SK"]
        super().__init__(ak, sk, PROJECT, REGION)
        self.fault_rate = 0.0
        self.faults = 0
        self._random = Random(seed)
        self._on_rename = on_rename

    def _next_fault(self, operation: Any, service_id: str) -> Any:
        if self._random.random() < self.fault_rate:
            self.faults += 1
            weights, faults = zip(*FAULTS, strict=True)
            self.fail(**self._random.choices(faults, weights)[0], on="any", service_id=service_id)
        return super()._next_fault(operation, service_id)

    def _receive(self, method: str, target: str, headers: Message, body: bytes) -> Any:
        with self._lock:
            reply, fault = super()._receive(method, target, headers, body)
            call = self._calls.pop()  # a journal of thousands would be copied at each read
            if call.operation == "rename" and call.service_id is not None and call.name is not None:
                applied, in_doubt = True, False
                if fault is not None and fault.kind != "slow":
                    applied = fault.applied
                    in_doubt = fault.kind in _IN_DOUBT_KINDS or fault.status == 504
                self._on_rename(call.service_id, call.name, applied, in_doubt)
            return reply, fault
