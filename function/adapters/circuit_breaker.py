"""The circuit breaker: after several unavailable replies in a row, a region of Huawei Cloud is not called for a while.

Powertools' circuit breaker around the endpoint services, one per region, with a shared state in the ledger's table.
Events whose calls are not made stay in the queue, which redelivers them with growing delays. The breaker is created at
the first unavailable reply, here or in another environment: its imports would slow down every cold start.

The result of a call that was made is returned, even if the breaker fails afterwards. If it fails before, the call is
made.
"""

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from function.adapters.aws.client import DynamoDbClient
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import Target
from function.domain.ports import EndpointServices, ReadPurpose, Reply

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.circuit_breaker import CircuitTransition

FAILURE_THRESHOLD: Final = 10
RECOVERY_SECONDS: Final = 60
STATE_CACHE_SECONDS: Final = 15
STATE_CHECK_SECONDS: Final = 3.0
# For each request of Powertools for the shared state.
STORE_SECONDS: Final = 1.0


@dataclass(eq=False, repr=False)
class OutageBreaker:
    """Endpoint services that are not called during an outage of their region.

    Attributes:
        is_recorded: whether the table has a state of this region that is not closed. May raise if the table is
            unsuitable.
        table: name or ARN; its key is the string ``id``.
        item: the key of a region's state.
        on_transition: called when a breaker opens, probes or closes.
        on_error: called with an exception of the breaker; the call is made nevertheless.
        now: seconds since the epoch.
    """

    services: EndpointServices
    is_recorded: Callable[[str, Deadline], bool]
    client: DynamoDbClient
    _: KW_ONLY
    table: str
    item: Callable[[str], str]
    on_transition: "Callable[[CircuitTransition], None]"
    on_error: Callable[[Exception], None] = lambda _: None
    now: Callable[[], float] = time.time
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _breakers: "dict[str, _Breaker]" = field(init=False, default_factory=dict)
    _check_lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _check_again_at: dict[str, float] = field(init=False, default_factory=dict)

    def check_state(self, region: str, deadline: Deadline) -> None:
        """Check whether another environment has recorded an outage. The answer is cached for a few seconds."""
        if region in self._breakers or not self._check_lock.acquire(timeout=STATE_CHECK_SECONDS):
            return
        try:
            if self.now() >= self._check_again_at.get(region, 0.0):
                if self.is_recorded(region, deadline.within(STATE_CHECK_SECONDS)):
                    self._breaker(region)
                self._check_again_at[region] = self.now() + STATE_CACHE_SECONDS
        finally:
            self._check_lock.release()

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        send = partial(self.services.rename, target, name, deadline)
        return self._unless_open(_Call(target.region, send, deadline))

    def read(self, target: Target, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply:
        send = partial(self.services.read, target, deadline, purpose)
        return self._unless_open(_Call(target.region, send, deadline, purpose))

    def _unless_open(self, call: "_Call") -> Reply:
        try:
            self._ask_breaker(call)
        except _OutageError:
            pass  # only for Powertools
        except Exception as error:  # noqa: BLE001 - the breaker must not cause an outage
            if error is not call.result:
                self.on_error(error)
        result = call.make()
        if isinstance(result, Exception):
            raise result
        return result

    def _ask_breaker(self, call: "_Call") -> None:
        self.check_state(call.region, call.deadline)
        if call.region not in self._breakers:
            call.make()
            if not call.is_outage or call.purpose is ReadPurpose.OUTCOME:
                return
        _current_call.set(call)
        breaker = self._breaker(call.region)
        if not (call.decides or breaker.is_closed()):
            call.refuse()  # only a call that decides may probe
        elif call.purpose is not ReadPurpose.OUTCOME:
            breaker.guard(call)

    def _breaker(self, region: str) -> "_Breaker":
        with self._lock:
            if region not in self._breakers:
                self._breakers[region] = self._new_breaker(self.item(region))
            return self._breakers[region]

    def _new_breaker(self, item: str) -> "_Breaker":
        # See the module's docstring.
        from aws_lambda_powertools.utilities.circuit_breaker import CircuitBreakerConfig, circuit_breaker, persistence  # noqa: PLC0415

        client = cast("Any", _Store(self.client))
        store = persistence.CircuitBreakerDynamoDBPersistence(table_name=self.table, boto3_client=client)
        guard: Callable[[_Call], None] = circuit_breaker(
            name=item,
            persistence_store=store,
            config=CircuitBreakerConfig(
                failure_threshold=FAILURE_THRESHOLD,
                recovery_timeout=RECOVERY_SECONDS,
                success_threshold=1,
                handled_exceptions=_OutageError,
                local_cache_max_age=STATE_CACHE_SECONDS,
            ),
            on_circuit_open=_Call.refuse,
            on_transition=self.on_transition,
        )(_Call.report)
        return _Breaker(guard, lambda: store.get_state(item).state.value == "CLOSED")


class _Breaker(NamedTuple):
    """Powertools' breaker of one region.

    Attributes:
        guard: makes a call unless the breaker is open, and records its result.
        is_closed: neither open nor half open. Changes nothing.
    """

    guard: "Callable[[_Call], None]"
    is_closed: Callable[[], bool]


class _OutageError(Exception):
    """A reply that counts towards an outage."""


@dataclass(eq=False, repr=False)
class _Call:
    """One call to Huawei Cloud, made at most once.

    Attributes:
        result: the reply, or the exception; None before the call.
    """

    region: str
    send: Callable[[], Reply]
    deadline: Deadline
    purpose: ReadPurpose = ReadPurpose.DECISION
    result: Reply | Exception | None = None

    @property
    def decides(self) -> bool:
        """Whether the outcome depends on it. Else its result is kept only in Powertools' memory."""
        return self.purpose is ReadPurpose.DECISION

    @property
    def is_outage(self) -> bool:
        """Not a 400: that is how VPCEP reports one endpoint service as unavailable (EndPoint.2004)."""
        failure = self.failed_attempt
        return (
            failure is not None and failure.kind is Kind.UNAVAILABLE and failure.http_status != HTTPStatus.BAD_REQUEST
        )

    @property
    def failed_attempt(self) -> Failure | None:
        """The failure if Huawei Cloud was called: not if there was no key, or a lock was not released in time."""
        failure = self.result.failure if isinstance(self.result, RenameFailedError) else None
        return failure if failure and failure.counts_as_attempt else None

    def make(self) -> Reply | Exception:
        if self.result is None:
            try:
                self.result = self.send()
            except Exception as error:  # noqa: BLE001 - raised to the caller
                self.result = error
        return self.result

    def refuse(self, circuit: object = None) -> None:  # noqa: ARG002 - Powertools' signature
        if self.result is None:
            self.result = RenameFailedError(failures.outage())

    def report(self) -> None:
        """Make the call, and let Powertools count what it says about the region.

        A reply other than unavailable ends a run of failures, and a probe. A call that was not made says nothing: its
        exception passes Powertools without being counted, and a probe lasts until its lease expires.
        """
        result = self.make()
        if self.is_outage:
            raise _OutageError
        if isinstance(result, Exception) and not self.failed_attempt:
            raise result


# Of this thread. Set before each use of the store, whose methods Powertools calls.
_current_call: Final[ContextVar[_Call]] = ContextVar("_current_call")


class _Store:
    """The function's own client, with the methods of boto3's client that Powertools calls."""

    def __init__(self, client: DynamoDbClient) -> None:
        self._client = client

    def get_item(self, **request: Any) -> dict[str, Any]:
        return self._client.get_item(self._deadline(), **request)

    def put_item(self, **request: Any) -> dict[str, Any]:
        return self._client.put_item(self._deadline(), **request) if _current_call.get().decides else {}

    def update_item(self, **request: Any) -> dict[str, Any]:
        return self._client.update_item(self._deadline(), **request) if _current_call.get().decides else {}

    @staticmethod
    def _deadline() -> Deadline:
        """The later deadline, so that a call that used up its time is recorded too."""
        return _current_call.get().deadline.to_report().within(STORE_SECONDS)
