"""The outage breaker: after a run of unavailable answers Huawei Cloud is left alone for a while.

Powertools' circuit breaker around the endpoint services, its state shared through the ledger's table. Calls that do not
go out leave their events to the queue, which brings them again later and later.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from aws_lambda_powertools.utilities.circuit_breaker import (
    CircuitBreakerConfig,
    CircuitBreakerOpenError,
    CircuitTransition,
    circuit_breaker,
)
from aws_lambda_powertools.utilities.circuit_breaker.persistence import CircuitBreakerDynamoDBPersistence

from function import failures
from function.failures import Kind, RenameFailedError
from function.rename import EndpointServices, Reply, Target

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NAME: Final = "breaker#vpcep"
FAILURE_THRESHOLD: Final = 10
RECOVERY_SECONDS: Final = 60
STATE_CACHE_SECONDS: Final = 15


class _OutageError(RenameFailedError):
    """An answer that counts towards an outage."""


class OutageBreaker:
    """Endpoint services that are left alone during an outage."""

    def __init__(
        self,
        services: EndpointServices,
        client: "DynamoDBClient",
        table: str,
        on_transition: Callable[[CircuitTransition], None],
    ) -> None:
        """
        Args:
            table: name or ARN; its key is the string ``id``.
            on_transition: hears when the breaker opens, probes and closes.
        """
        self._services = services
        guard = circuit_breaker(
            name=NAME,
            persistence_store=CircuitBreakerDynamoDBPersistence(table_name=table, boto3_client=client),
            config=CircuitBreakerConfig(
                failure_threshold=FAILURE_THRESHOLD,
                recovery_timeout=RECOVERY_SECONDS,
                success_threshold=1,
                handled_exceptions=_OutageError,
                local_cache_max_age=STATE_CACHE_SECONDS,
            ),
            on_transition=on_transition,
        )
        self._guarded: Callable[[Callable[[], Reply]], Reply | RenameFailedError] = guard(_answer)

    def default_project(self) -> str:
        return self._services.default_project()

    def allows_project(self, project_id: str) -> bool:
        return self._services.allows_project(project_id)

    def rename(self, target: Target, name: str, seconds: float) -> Reply:
        return self._unless_open(lambda: self._services.rename(target, name, seconds))

    def read(self, target: Target, seconds: float) -> Reply:
        return self._unless_open(lambda: self._services.read(target, seconds))

    def _unless_open(self, call: Callable[[], Reply]) -> Reply:
        self._services.default_project()  # a key that cannot be read is no outage of Huawei Cloud
        try:
            answer = self._guarded(call)
        except CircuitBreakerOpenError:
            raise RenameFailedError(failures.outage()) from None
        if isinstance(answer, RenameFailedError):
            raise answer
        return answer


def _answer(call: Callable[[], Reply]) -> Reply | RenameFailedError:
    """A failure of another kind is an answer too: to Powertools, what is raised ends neither a run nor a probe."""
    try:
        return call()
    except RenameFailedError as error:
        if error.failure.kind is Kind.UNAVAILABLE:
            raise _OutageError(error.failure) from error
        return error
