"""What would be logged and counted, in memory."""

from __future__ import annotations

from typing import Any, NamedTuple

from function.domain.dry_run import DryRun
from function.domain.model import ParsedEvent
from function.domain.rename_service import Result


class Handled(NamedTuple):
    event: ParsedEvent
    result: Result
    trigger: str
    keys: dict[str, Any]


class FakeTelemetry:
    """What would be logged and counted."""

    def __init__(self) -> None:
        self.lines: list[Handled] = []
        self.defects: list[BaseException | None] = []
        self.dry_runs: list[DryRun] = []
        self.not_extended: list[str] = []

    def handled(self, event: ParsedEvent, result: Result, trigger: str, **keys: Any) -> None:
        self.lines.append(Handled(event, result, trigger, keys))

    def dry_run(self, dry_run: DryRun, trigger: str, **keys: Any) -> None:
        self.dry_runs.append(dry_run)

    def unexpected(self, error: BaseException | None, **keys: Any) -> None:
        self.defects.append(error)

    def visibility_not_extended(self, aws_error_code: str) -> None:
        self.not_extended.append(aws_error_code)

    def flush(self) -> None:
        """There is nothing to write."""
