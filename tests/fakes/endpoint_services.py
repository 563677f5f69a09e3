"""Huawei Cloud's endpoint services in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import Target
from function.domain.ports import ReadPurpose, Reply
from tests.fakes.clock import FakeClock
from tests.fakes.failures import not_found
from tests.fakes.identifiers import HUAWEI_REQUEST_ID, OTHER_SERVICE, PROJECT, REGION, SERVICE


class ServiceCall(NamedTuple):
    operation: str
    target: Target
    name: str | None
    seconds: float


class _Answer(NamedTuple):
    failure: Failure | None = None
    reply: Reply | None = None
    crash: Exception | None = None
    applied: bool = False
    takes: float = 0.0


class FakeEndpointServices:
    """Endpoint services that do as they are asked, unless the next answers have been commanded to be others."""

    def __init__(self, clock: FakeClock, project_id: str = PROJECT) -> None:
        self.names = {SERVICE: "billing", OTHER_SERVICE: "reports"}
        self.calls: list[ServiceCall] = []
        self.answers: list[Failure | None] = []
        self.purposes: list[ReadPurpose] = []
        self.during: Callable[[Target], object] = lambda _: None
        self._clock = clock
        self._project_id = project_id
        self._no_project: Failure | None = None
        self._next: dict[str, deque[_Answer]] = {"rename": deque(), "read": deque()}
        self._always: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    # -- what the decision calls

    def default_project(self, deadline: Deadline) -> str:
        if self._no_project:
            raise RenameFailedError(self._no_project)
        return self._project_id

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        return self._call("rename", target, name, deadline.remaining())

    def read(self, target: Target, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply:
        self.purposes.append(purpose)
        return self._call("read", target, None, deadline.remaining())

    # -- what a test commands

    def refuse(self, failure: Failure, *, on: str = "rename", times: int | None = 1, takes: float = 0.0) -> None:
        """Answer with this failure and do nothing; `times=None` for ever."""
        self._command(on, times, _Answer(failure=failure, takes=takes))

    def lose_reply(
        self, *, applied: bool, failure: Failure | None = None, times: int | None = 1, takes: float = 0.0
    ) -> None:
        """The rename happens, or does not, and no reply tells."""
        doubt = failure or failures.timeout(in_doubt=True)
        self._command("rename", times, _Answer(failure=doubt, applied=applied, takes=takes))

    def report(self, name: str | None, *, on: str = "rename", applied: bool = True, times: int | None = 1) -> None:
        """A reply without an error that names the service so, whatever it is called."""
        self._command(on, times, _Answer(reply=Reply(name, 200, "reported"), applied=applied))

    def crash(self, error: Exception, *, on: str = "rename", times: int | None = 1) -> None:
        """Something nobody expected."""
        self._command(on, times, _Answer(crash=error))

    def recover(self) -> None:
        """From now on do again as asked."""
        self._next = {"rename": deque(), "read": deque()}
        self._always.clear()

    def lose_credentials(self, failure: Failure | None) -> None:
        self._no_project = failure

    # -- what a test looks at

    def calls_of(self, operation: str) -> list[ServiceCall]:
        return [call for call in self.calls if call.operation == operation]

    def _command(self, operation: str, times: int | None, answer: _Answer) -> None:
        if times is None:
            self._always[operation] = answer
        else:
            self._next[operation].extend([answer] * times)

    def _call(self, operation: str, target: Target, name: str | None, seconds: float) -> Reply:
        with self._lock:
            self.calls.append(ServiceCall(operation, target, name, seconds))
            number = len(self.calls)
            commanded = self._next[operation]
            answer = commanded.popleft() if commanded else self._always.get(operation)
            self.answers.append(answer.failure if answer else None)
        self.during(target)
        if answer:
            self._clock.seconds += min(answer.takes, seconds)
            if answer.applied and name is not None:
                self.names[target.vpc_endpoint_service_id] = name
            if answer.crash:
                raise answer.crash
            if answer.failure:
                raise RenameFailedError(answer.failure)
            if answer.reply:
                return answer.reply
        if target.vpc_endpoint_service_id not in self.names:
            raise RenameFailedError(not_found())
        if name is not None:
            self.names[target.vpc_endpoint_service_id] = name
            return Reply(name, 200, f"request-{number}")
        return Reply(full_name(target.vpc_endpoint_service_id, self.names), 200, f"request-{number}")


def full_name(service_id: str, names: Mapping[str, str]) -> str:
    """`region.name.id`, the id not being that of the path; `region.id` where the name is empty."""
    return ".".join(filter(None, [REGION, names[service_id], f"other-{service_id}"]))


@dataclass
class CountingServices:
    """Huawei Cloud in memory, where every endpoint service has one name; keeps what was asked of it.

    Attributes:
        name: of every endpoint service.
        failure: what each rename fails with.
    """

    name: str = "billing"
    failure: Failure | None = None
    renames: list[tuple[Target, str]] = field(default_factory=list)
    reads: list[Target] = field(default_factory=list)

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        self.renames.append((target, name))
        if self.failure:
            raise RenameFailedError(self.failure)
        self.name = name
        return Reply(name, 200, HUAWEI_REQUEST_ID)

    def read(self, target: Target, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply:
        self.reads.append(target)
        return Reply(self.name, 200, HUAWEI_REQUEST_ID)
