"""The command's value objects, and the protocol of its renamers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from function.domain.event_parser import RENAME_REQUESTED
from function.domain.failures import Kind

Event = dict[str, Any]
Outcome = dict[str, Any]
SOURCE = "/vpcep-rename"


class UsageError(Exception):
    """A file, a setting or an option is wrong: exit status 2. Its text is for the operator."""


class StoppedError(Exception):
    """The command cannot go on: exit status 1. Its text is for the operator."""


class Line(NamedTuple):
    """One rename of an input file.

    Attributes:
        number: of its first line in the file, from 1.
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
    """A line with the values of its rename event.

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
        """With region and project of the plan, even if the defaults have changed."""
        line = self.line._replace(expected_name=self.old_name, region=self.region, project_id=self.project_id)
        return rename_event(line, self.id, self.time)


class Result(StrEnum):
    """The result of a line.

    ``queued``, ``unsettled`` and ``not_read`` are not final: the same command, run again, continues with these lines.
    """

    RENAMED = "renamed"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    QUEUED = "queued"
    UNSETTLED = "unsettled"
    NOT_READ = "not_read"
    SKIPPED = "skipped"


DONE = frozenset({Result.RENAMED, Result.UNCHANGED})


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something failed.

    Attributes:
        code: as in an outcome.
        retryable: the same event may succeed later.
        throttled: the calls were too fast.
        fatal: all other calls would fail too; the message says what to do.
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
        key_advice: what to do about a key that Huawei Cloud rejects.
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
    """The result that a rename event would have.

    Attributes:
        service_name: the service's current name, without region and id; None if it could not be read.
        problem: why it would fail; None if it would not.
        outcome: the event's recorded outcome, if any.
    """

    region: str
    project_id: str
    service_name: str | None
    problem: Problem | None
    outcome: Outcome | None = None


class Answer(NamedTuple):
    """The result of an event that was sent.

    Attributes:
        outcome: None if there is none yet.
        problem: None for a success, and for an event that waits in the queue.
    """

    outcome: Outcome | None
    problem: Problem | None


class Renamer(Protocol):
    """Renames endpoint services. Thread-safe. Does not raise for the failure of a single event."""

    @property
    def where(self) -> str:
        """Endpoint and project, for the confirmation before anything is changed."""

    @property
    def default(self) -> tuple[str, str]:
        """Region and project of lines that name none; empty if only the other side knows them."""

    @property
    def notes(self) -> Sequence[str]:
        """What an operator must know about this renamer."""

    def violations(self, line: Line) -> list[str]:
        """Violations of the settings by a line. Makes no call."""

    def preview(self, event: Event) -> Preview:
        """The result that the event would have, without carrying it out.

        Raises:
            StoppedError: the other side might carry it out.
        """

    def rename(self, event: Event) -> Answer:
        """Carry out the event."""


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
    """Replaces characters that could control a terminal, in texts from others."""
    return "".join(character if character.isprintable() else " " for character in text)
