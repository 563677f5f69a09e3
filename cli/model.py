"""What the command works on, as values, and what it needs of either way to rename, as a protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from function.domain.failures import Kind
from function.domain.model import RENAME_REQUESTED

Event = dict[str, Any]
Outcome = dict[str, Any]
SOURCE = "/vpcep-rename"


class UsageError(Exception):
    """A file, a setting or an option is wrong: exit status 2. Its text is for the operator."""


class StoppedError(Exception):
    """It makes no sense to go on: exit status 1. Its text is for the operator."""


class Line(NamedTuple):
    """One rename that a file asks for.

    Attributes:
        number: where it begins in the file, from 1.
        project_id, region: None for the default.
        expected_name: None for any.
    """

    number: int
    vpc_endpoint_service_id: str
    endpoint_service_name: str
    expected_name: str | None = None
    region: str | None = None
    project_id: str | None = None

    @property
    def data(self) -> dict[str, str]:
        """The ``data`` of its rename event."""
        return {name: value for name, value in self._asdict().items() if isinstance(value, str)}


class Planned(NamedTuple):
    """A line with what its rename event holds.

    Attributes:
        old_name: as read for the plan, and sent as ``expected_name``.
        id, time: of the event.
    """

    line: Line
    region: str
    project_id: str
    old_name: str
    id: str
    time: str

    @property
    def event(self) -> Event:
        """With region and project as the plan showed them, whatever the defaults are by now."""
        line = self.line._replace(expected_name=self.old_name, region=self.region, project_id=self.project_id)
        return rename_event(line, self.id, self.time)


class Result(StrEnum):
    """What became of a line.

    ``queued``, ``unsettled`` and ``not_read`` are no ends: the same command goes on with these lines.
    """

    RENAMED = "renamed"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    QUEUED = "queued"
    UNSETTLED = "unsettled"
    NOT_READ = "not_read"
    SKIPPED = "skipped"


DONE = frozenset({Result.RENAMED, Result.UNCHANGED})
FINAL = frozenset({Result.RENAMED, Result.UNCHANGED, Result.FAILED})


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something failed.

    Attributes:
        code: as in an outcome.
        retryable: the same event may succeed later.
        throttled: it is only too fast.
        fatal: so would everything else; what to do about it.
        retry_after: seconds that the other side asked to wait.
    """

    code: str
    message: str
    retryable: bool = False
    throttled: bool = False
    fatal: bool = False
    retry_after: float | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def problem_of_error(error: Mapping[str, Any], retry_after: float | None, *, key_advice: str) -> Problem:
    """
    Args:
        error: as in an outcome.
        retry_after: seconds that the other side asked to wait.
        key_advice: what to do about a key that Huawei Cloud refuses.
    """
    message = str(error["message"])
    if error["violations"]:
        message = "; ".join(f"{each['path'].removeprefix('/data/')} {each['message']}" for each in error["violations"])
    kind = error["kind"]
    is_key = kind == Kind.ACCESS and error["http_status"] == HTTPStatus.UNAUTHORIZED
    if is_key:
        message = f"{message} {key_advice}"
    return Problem(
        str(error["code"]),
        message,
        retryable=bool(error["retryable"]) and kind != Kind.ACCESS,
        throttled=kind == Kind.THROTTLED,
        fatal=is_key,
        retry_after=retry_after,
    )


class Preview(NamedTuple):
    """What a rename event would do.

    Attributes:
        service_name: what the service is called now, without region and id; None where it could not be read.
        problem: why it would fail; None where it would not.
        outcome: of an event that has one.
    """

    region: str
    project_id: str
    service_name: str | None
    problem: Problem | None
    outcome: Outcome | None = None


class Answer(NamedTuple):
    """What became of an event that was sent.

    Attributes:
        outcome: None where there is none yet.
        problem: None for a success, and for an event that waits in the queue.
    """

    outcome: Outcome | None
    problem: Problem | None


class Renamer(Protocol):
    """A way to rename endpoint services. Safe for threads; never raises for what is wrong with one event."""

    @property
    def where(self) -> str:
        """Endpoint and project, for the question before anything is changed."""

    @property
    def default(self) -> tuple[str, str]:
        """Region and project of lines that name none; empty where only the other side knows them."""

    @property
    def notes(self) -> Sequence[str]:
        """What an operator must know of this way."""

    def violations(self, line: Line) -> list[str]:
        """What the settings forbid of a line, before any call."""

    def preview(self, event: Event) -> Preview:
        """What the event would do, without doing it.

        Raises:
            StoppedError: it is not sure that nothing would be done.
        """

    def rename(self, event: Event) -> Answer:
        """Do what the event asks for."""


def rename_event(line: Line, event_id: str, time: str) -> Event:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": RENAME_REQUESTED,
        "time": time,
        "datacontenttype": "application/json",
        "data": line.data,
    }


def printable(text: str) -> str:
    """Without what would command a terminal, for texts that others wrote."""
    return "".join(character if character.isprintable() else " " for character in text)
