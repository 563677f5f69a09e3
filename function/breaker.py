"""The outage breaker: after a run of unavailable answers Huawei Cloud is left alone for a while.

Powertools' circuit breaker around the endpoint services, its state shared through the ledger's table. Calls that do not
go out leave their events to the queue, which brings them again later and later. It comes into play with the first
unavailable answer, here or in another environment: until then it would cost a cold start its imports.
"""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from function import failures
from function.deadline import Deadline
from function.failures import Kind, RenameFailedError
from function.rename import EndpointServices, Reply, Target

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.circuit_breaker import CircuitTransition
    from mypy_boto3_dynamodb import DynamoDBClient

FAILURE_THRESHOLD: Final = 10
RECOVERY_SECONDS: Final = 60
STATE_CACHE_SECONDS: Final = 15

Call = Callable[[], Reply]
Answer = Reply | RenameFailedError


class _OutageError(RenameFailedError):
    """An answer that counts towards an outage."""


class OutageBreaker:
    """Endpoint services that are left alone during an outage."""

    def __init__(
        self,
        services: EndpointServices,
        is_recorded: Callable[[Deadline], bool],
        client: "Callable[[], DynamoDBClient]",
        *,
        table: str,
        item: str,
        on_transition: "Callable[[CircuitTransition], None]",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            is_recorded: whether the table holds a state that is not closed. May raise for a table that will never do.
            client: boto3's, called at the first need.
            table: name or ARN; its key is the string ``id``.
            item: the key of the breaker's state.
            on_transition: hears when the breaker opens, probes and closes.
        """
        self._services = services
        self._is_recorded = is_recorded
        self._client = client
        self._table = table
        self._item = item
        self._on_transition = on_transition
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._look_again_at = 0.0
        self._guarded: Callable[[Call], Answer] | None = None

    def look(self, deadline: Deadline) -> None:
        """Learn of an outage that another environment has found. What was seen holds for a few seconds."""
        with self._lock:
            if self._guarded is None and self._monotonic() >= self._look_again_at:
                if self._is_recorded(deadline):
                    self._guarded = self._guard()
                self._look_again_at = self._monotonic() + STATE_CACHE_SECONDS

    def default_project(self, deadline: Deadline) -> str:
        return self._services.default_project(deadline)

    def allows_project(self, project_id: str, deadline: Deadline) -> bool:
        return self._services.allows_project(project_id, deadline)

    def raise_if_refused(self, target: Target, deadline: Deadline) -> None:
        self._services.raise_if_refused(target, deadline)

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        return self._unless_open(lambda: self._services.rename(target, name, deadline), deadline)

    def read(self, target: Target, deadline: Deadline) -> Reply:
        return self._unless_open(lambda: self._services.read(target, deadline), deadline)

    def _unless_open(self, call: Call, deadline: Deadline) -> Reply:
        self._services.default_project(deadline)  # a key that cannot be read is no outage of Huawei Cloud
        self.look(deadline)
        answer = self._guarded(call) if self._guarded else self._unguarded(call)
        if isinstance(answer, RenameFailedError):
            raise answer
        return answer

    def _unguarded(self, call: Call) -> Answer:
        try:
            return _answer(call)
        except _OutageError as error:
            first = error
        with self._lock:
            guarded = self._guarded = self._guarded or self._guard()

        def tell() -> Reply:
            raise first

        return guarded(tell)

    def _guard(self) -> Callable[[Call], Answer]:
        from aws_lambda_powertools.utilities.circuit_breaker import (  # noqa: PLC0415 - see the module's docstring
            CircuitBreakerConfig,
            CircuitBreakerOpenError,
            circuit_breaker,
        )
        from aws_lambda_powertools.utilities.circuit_breaker.persistence import (  # noqa: PLC0415
            CircuitBreakerDynamoDBPersistence,
        )

        guarded: Callable[[Call], Answer] = circuit_breaker(
            name=self._item,
            persistence_store=CircuitBreakerDynamoDBPersistence(table_name=self._table, boto3_client=self._client()),
            config=CircuitBreakerConfig(
                failure_threshold=FAILURE_THRESHOLD,
                recovery_timeout=RECOVERY_SECONDS,
                success_threshold=1,
                handled_exceptions=_OutageError,
                local_cache_max_age=STATE_CACHE_SECONDS,
            ),
            on_transition=self._on_transition,
        )(_answer)

        def unless_open(call: Call) -> Answer:
            try:
                return guarded(call)
            except CircuitBreakerOpenError:
                raise RenameFailedError(failures.outage()) from None

        return unless_open


def _answer(call: Call) -> Answer:
    """A failure of another kind is an answer too: to Powertools, what is raised ends neither a run nor a probe."""
    try:
        return call()
    except RenameFailedError as error:
        if error.failure.kind is Kind.UNAVAILABLE:
            raise _OutageError(error.failure) from error
        return error
