"""``apply`` and ``undo``: a plan, a confirmation, and then each line with its result in the results file."""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cli.display import Display
from cli.input_file import Input, identity
from cli.model import (
    DONE,
    Answer,
    Line,
    Planned,
    Preview,
    Problem,
    Renamer,
    Result,
    UsageError,
    rename_event,
)
from cli.results_file import Plan, ResultsFile, State
from cli.runner import Item, Pace, Value, each, retry
from function.domain.model import rfc3339

_GOES_ON: Final = frozenset({None, Result.QUEUED, Result.UNSETTLED})


@dataclass(slots=True)
class Bulk:
    """Many renames with one renamer.

    Attributes:
        parallel: renames at once.
        counts: number of lines by result.
    """

    renamer: Renamer
    display: Display
    pace: Pace
    parallel: int
    counts: Counter[Result] = field(default_factory=Counter)

    def apply(self, file: Input, results: ResultsFile | None, *, yes: bool) -> int:
        """Carry out a file's renames.

        Args:
            results: None for a dry run.

        Returns:
            The exit status.

        Raises:
            UsageError: the results are of another input, or two lines name the same endpoint service.
        """
        states = {} if results is None else results.states
        if results is not None:
            results.start(file.sha256)
        resumed = [line for line in file.lines if _has_ended(states.get(line.number))]
        if resumed:
            self.display.note(f"{len(resumed):,} of {len(file.lines):,} lines are done since an earlier run.")
            self.counts.update(states[line.number].result or Result.RENAMED for line in resumed)
        done = {line.number for line in resumed}
        planned = [plan.of(line) for line in file.lines if (plan := _open_plan(states.get(line.number)))]
        if planned:
            self.display.note(f"{len(planned):,} lines were planned in an earlier run, and go out as planned.")
        known = done | {each_planned.line.number for each_planned in planned}
        fresh = self._plan([line for line in file.lines if line.number not in known], planned, results)
        if results is None:
            return self._end(None, len(fresh))
        everything = sorted([*planned, *fresh], key=lambda each_planned: each_planned.line.number)
        if everything and not self._agreed("Rename", len(everything), yes=yes):
            if results.is_new:
                results.remove()
            else:
                for each_planned in fresh:
                    results.outcome(each_planned.line, Result.SKIPPED, None, each_planned)
            return 1
        try:
            for each_planned, answer in self._send("Renaming", everything):
                result = _result_of(answer)
                results.outcome(each_planned.line, result, answer.problem, each_planned)
                self._count(each_planned.line, result, answer.problem)
        finally:
            self._summary(results.path)
        return self._status()

    def undo(self, results: ResultsFile, *, yes: bool, dry_run: bool) -> int:
        """Rename back the services that still have their new name. Returns the exit status."""
        plans = {plan.line: plan for plan in results.renamed()}
        if not plans:
            self.display.note(f"{results.path} has nothing to undo.")
            return 0
        back = [
            Line(plan.line, plan.vpc_endpoint_service_id, plan.old_name, None, plan.region, plan.project_id)
            for plan in plans.values()
        ]
        planned: list[Planned] = []
        shown = self.display.plan()
        for line, (event_id, time, preview) in self._previews("Reading names", back):
            plan = plans[line.number]
            if preview.problem is None and preview.service_name == plan.old_name:
                self.counts[Result.UNCHANGED] += 1
                if not dry_run:
                    results.undone(plan)
            elif reason := _why_not(plan, preview):
                shown.add(line, preview.service_name, reason)
                self._count(line, Result.SKIPPED, reason, quietly=True)
            else:
                shown.add(line, preview.service_name, None)
                planned.append(Planned(line, plan.region, plan.project_id, plan.new_name, event_id, time))
        shown.show()
        if dry_run:
            return self._end(results.path, len(planned))
        if planned and not self._agreed("Undo the rename of", len(planned), yes=yes):
            return 1
        try:
            for each_planned, answer in self._send("Undoing", planned):
                result = _result_of(answer)
                if result is Result.RENAMED:
                    results.undone(plans[each_planned.line.number])
                self._count(each_planned.line, result, answer.problem)
        finally:
            self._summary(results.path)
        return self._status()

    def _plan(self, lines: list[Line], open_plans: list[Planned], results: ResultsFile | None) -> list[Planned]:
        """Read the current names. Returns the lines to rename, and records the results of the others."""
        planned: list[Planned] = []
        seen: dict[tuple[str, str, str], int] = {}
        shown = self.display.plan()
        for each_planned in open_plans:
            shown.add(each_planned.line, each_planned.old_name, None)
        try:
            for line, (event_id, time, preview) in self._previews("Reading names", lines):
                found = Planned(line, preview.region, preview.project_id, preview.service_name or "", event_id, time)
                if preview.region and (first := _first(seen, line, preview)) != line.number:
                    raise _named_twice(first, line)
                result = _result_without_rename(preview, line)
                if result is None:
                    shown.add(line, preview.service_name, None)
                    planned.append(found)
                    if results is not None:
                        results.plan(found)
                    continue
                if result is not Result.UNCHANGED:
                    shown.add(line, preview.service_name, preview.problem)
                self._count(line, result, preview.problem, quietly=True)
                if results is not None:
                    results.outcome(line, result, preview.problem, found if preview.region else None)
        except UsageError:
            if results is not None and results.is_new:
                results.remove()
            raise
        shown.show()
        return planned

    def _previews(self, title: str, lines: list[Line]) -> Iterator[tuple[Line, tuple[str, str, Preview]]]:
        def preview(line: Line) -> tuple[str, str, Preview]:
            event_id, time = str(uuid.uuid4()), rfc3339(datetime.now(UTC))
            event = rename_event(line, event_id, time)
            found = retry(lambda: self.renamer.preview(event), lambda preview: preview.problem, self.pace)
            return event_id, time, found

        return self._with_progress(title, len(lines), each(lines, preview, pace=self.pace, parallel=self.parallel))

    def _send(self, title: str, planned: list[Planned]) -> Iterator[tuple[Planned, Answer]]:
        def send(each_planned: Planned) -> Answer:
            event = each_planned.event
            return retry(lambda: self.renamer.rename(event), lambda answer: answer.problem, self.pace)

        answers = each(planned, send, pace=self.pace, parallel=self.parallel)
        for each_planned, answer in self._with_progress(title, len(planned), answers):
            if answer.outcome is not None:
                self.display.outcome(answer.outcome)
            yield each_planned, answer

    def _with_progress(
        self, title: str, total: int, done: Iterable[tuple[Item, Value]]
    ) -> Iterator[tuple[Item, Value]]:
        with self.display.progress(title, total) as advance:
            for item in done:
                yield item
                advance()

    def _agreed(self, verb: str, number: int, *, yes: bool) -> bool:
        services = "1 endpoint service" if number == 1 else f"{number:,} endpoint services"
        if yes or self.display.ask(f"{verb} {services} at {self.renamer.where}?"):
            return True
        self.display.note("Nothing has been renamed.")
        return False

    def _count(self, line: Line, result: Result, problem: Problem | None, *, quietly: bool = False) -> None:
        self.counts[result] += 1
        if problem is not None and not quietly:
            self.display.note(f"line {line.number}: {line.vpc_endpoint_service_id}: {problem}")

    def _end(self, results: Path | None, planned: int) -> int:
        self.display.say(f"{planned:,} would be renamed")
        self._summary(results, dry_run=True)
        return self._status()

    def _summary(self, results: Path | None, *, dry_run: bool = False) -> None:
        self.display.summary(self.counts, results, dry_run=dry_run)

    def _status(self) -> int:
        return 0 if self.counts.keys() <= DONE else 1


def _has_ended(state: State | None) -> bool:
    return state is not None and state.result in DONE and not state.undone


def _open_plan(state: State | None) -> Plan | None:
    """A plan that must be repeated unchanged: an event with its identity may have been sent already."""
    if state is None or state.undone or state.result not in _GOES_ON:
        return None
    return state.plan


def _result_without_rename(preview: Preview, line: Line) -> Result | None:
    """The result of a line that needs no rename, or cannot be renamed; None if it is to be renamed."""
    if preview.problem is not None:
        return Result.NOT_READ if preview.problem.retryable else Result.FAILED
    return Result.UNCHANGED if preview.service_name == line.endpoint_service_name else None


def _first(seen: dict[tuple[str, str, str], int], line: Line, preview: Preview) -> int:
    return seen.setdefault(identity(line, (preview.region, preview.project_id)), line.number)


def _named_twice(first: int, line: Line) -> UsageError:
    lines = " and ".join(map(str, sorted((first, line.number))))
    message = f"Lines {lines} name the same endpoint service, {line.vpc_endpoint_service_id}. Nothing has been renamed."
    return UsageError(message)


def _result_of(answer: Answer) -> Result:
    if answer.problem is not None:
        return Result.UNSETTLED if answer.problem.retryable else Result.FAILED
    return Result.QUEUED if answer.outcome is None else Result.RENAMED


def _why_not(plan: Plan, preview: Preview) -> Problem | None:
    if preview.problem is not None:
        return preview.problem
    if preview.service_name != plan.new_name:
        return Problem(
            "Rename.PreconditionFailed", f"it is called {preview.service_name!r} by now, not {plan.new_name!r}"
        )
    return None
