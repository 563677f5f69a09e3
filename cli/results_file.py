"""The results file: the plan and the result of each line, as CSV that is only appended to.

Each record is a row, and the last one of a line is valid. So a run that is killed loses no result, and the next run
continues after the last complete row.
"""

import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from cli.input_file import MAX_LINES
from cli.model import Line, Planned, Problem, Result, UsageError, printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

COLUMNS: Final = (
    *("record", "line", "vpc_endpoint_service_id", "region", "project_id", "old_name", "new_name"),
    *("event_id", "event_time", "result", "error_code", "message", "input_sha256"),
)
INPUT: Final = "input"
PLAN: Final = "plan"
OUTCOME: Final = "outcome"
UNDONE: Final = "undone"
SUFFIX: Final = ".results.csv"


class Plan(NamedTuple):
    """The latest plan of a line in a results file.

    Attributes:
        line: its number in the input.
    """

    line: int
    vpc_endpoint_service_id: str
    region: str
    project_id: str
    old_name: str
    new_name: str
    id: str
    time: str

    def of(self, line: Line) -> Planned:
        return Planned(line, self.region, self.project_id, self.old_name, self.id, self.time)


@dataclass(slots=True)
class State:
    """The state of a line.

    Attributes:
        result: None if there is none yet.
    """

    plan: Plan | None = None
    result: Result | None = None
    undone: bool = False


class ResultsFile:
    """A results file, which only one process may open at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states: dict[int, State] = {}
        self.sha256: str | None = None
        self._file = self._open()
        self.is_new = self.sha256 is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def start(self, sha256: str) -> None:
        """Write the input's hash, or check that the file has it.

        Raises:
            UsageError: the results are of another input.
        """
        if self.sha256 is None:
            self._file.seek(0)
            self._file.truncate()  # there may be a header
            self._write([",".join(COLUMNS)])
            self._append(record=INPUT, input_sha256=sha256)
            self.sha256 = sha256
        elif self.sha256 != sha256:
            raise UsageError(f"{self.path} has the results of another input. Name another results file by --results.")

    def plan(self, planned: Planned) -> None:
        self._append(record=PLAN, line=str(planned.line.number), **self._of(planned))
        self.states[planned.line.number] = State(_plan_of(planned))

    def outcome(self, line: Line, result: Result, problem: Problem | None, planned: Planned | None = None) -> None:
        values = {"vpc_endpoint_service_id": line.vpc_endpoint_service_id, "new_name": line.endpoint_service_name}
        if planned is not None:
            values |= self._of(planned)
        if problem is not None:
            values |= {"error_code": problem.code, "message": printable(problem.message)}
        self._append(record=OUTCOME, line=str(line.number), result=result, **values)
        self.states.setdefault(line.number, State()).result = result

    def undone(self, plan: Plan) -> None:
        self._append(
            record=UNDONE,
            line=str(plan.line),
            vpc_endpoint_service_id=plan.vpc_endpoint_service_id,
            region=plan.region,
            project_id=plan.project_id,
            old_name=plan.new_name,
            new_name=plan.old_name,
        )
        self.states[plan.line].undone = True

    def remove(self) -> None:
        """For a plan that is not carried out."""
        self.path.unlink()

    def renamed(self) -> Iterator[Plan]:
        """What has been renamed and not undone."""
        for state in self.states.values():
            if state.plan is not None and state.result is Result.RENAMED and not state.undone:
                yield state.plan

    @staticmethod
    def _of(planned: Planned) -> dict[str, str]:
        return {
            "vpc_endpoint_service_id": planned.line.vpc_endpoint_service_id,
            "region": planned.region,
            "project_id": planned.project_id,
            "old_name": planned.old_name,
            "new_name": planned.line.endpoint_service_name,
            "event_id": planned.id,
            "event_time": planned.time,
        }

    def _append(self, **values: str) -> None:
        buffer = io.StringIO()
        csv.DictWriter(buffer, COLUMNS, restval="", lineterminator="").writerow(values)
        self._write([buffer.getvalue()])

    def _write(self, rows: list[str]) -> None:
        """Flushes at once: a rename must be in the file before anything else happens."""
        self._file.write("".join(f"{row}\n" for row in rows).encode())
        self._file.flush()

    def _open(self) -> io.BufferedRandom:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            file = os.fdopen(descriptor, "r+b")
        except OSError as error:
            raise UsageError(f"The results file {self.path} cannot be written: {error.strerror}.") from None
        try:
            _lock(file, self.path)
            self._load(file)
        except BaseException:
            file.close()
            raise
        return file

    def _load(self, file: io.BufferedRandom) -> None:
        whole = 0
        for number, row in enumerate(file, start=1):
            if not row.endswith(b"\n"):
                break  # the last row of a run that was killed
            whole += len(row)
            try:
                [cells] = csv.reader([row.decode()], strict=True)
                record = dict(zip(COLUMNS, cells, strict=True))
                if number == 1 and cells == list(COLUMNS):
                    continue
                if number == 1 or not self._take(record):
                    raise ValueError  # noqa: TRY301 - one answer to whatever is wrong with the file
            except (ValueError, KeyError, csv.Error):
                raise UsageError(
                    f"{self.path}, line {number}: this is no results file. Name another one by --results."
                ) from None
        file.seek(whole)
        file.truncate()

    def _take(self, record: dict[str, str]) -> bool:
        if record["record"] == INPUT:
            self.sha256 = record["input_sha256"]
            return True
        number = int(record["line"])
        match record["record"]:
            case "plan":
                values = {name: record[name] for name in ("vpc_endpoint_service_id", "region", "project_id")}
                values |= {"old_name": record["old_name"], "new_name": record["new_name"]}
                plan = Plan(number, id=record["event_id"], time=record["event_time"], **values)
                self.states[number] = State(plan)
            case "outcome":
                self.states.setdefault(number, State()).result = Result(record["result"])
            case "undone":
                self.states[number].undone = True
            case _:
                return False
        return len(self.states) <= MAX_LINES


def _plan_of(planned: Planned) -> Plan:
    line = planned.line
    return Plan(
        line.number,
        line.vpc_endpoint_service_id,
        planned.region,
        planned.project_id,
        planned.old_name,
        line.endpoint_service_name,
        planned.id,
        planned.time,
    )


def _lock(file: io.BufferedRandom, path: Path) -> None:
    """Two runs with one file would rename everything twice."""
    if fcntl is None:
        return
    lock: Callable[[int, int], None] = fcntl.flock
    try:
        lock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UsageError(f"{path} is in use by another vpcep-rename.") from None
