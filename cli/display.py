"""Output for the operator: results on standard output, messages about them on standard error."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from cli.model import Line, Outcome, Problem, Result, UsageError, printable

# Lines of a plan; the results file has all of them.
SHOWN: Final = 20
# Without a terminal, which could redraw a line: a new line per this many per cent.
STEP_PERCENT: Final = 10
_WIDE: Final = 240
_WORDS: Final = {
    Result.RENAMED: "renamed",
    Result.UNCHANGED: "had that name already",
    Result.FAILED: "failed",
    Result.QUEUED: "in the queue of the stack, without an outcome yet",
    Result.UNSETTLED: "not settled: run the same command again",
    Result.NOT_READ: "could not be read: run the same command again",
    Result.SKIPPED: "skipped",
}


class Display:
    """
    Attributes:
        json: print outcomes as JSON Lines, and nothing else on standard output.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        for stream in (sys.stdout, sys.stderr):
            if callable(reconfigure := getattr(stream, "reconfigure", None)):
                reconfigure(errors="replace")  # for a terminal without the arrow character
        self._err = _console(sys.stderr)
        self._out = self._err if json else _console(sys.stdout)

    def note(self, text: str) -> None:
        self._err.print(_safe(text), soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a result."""
        self._out.print(_safe(text), soft_wrap=True)

    def outcome(self, outcome: Outcome) -> None:
        if self.json:
            print(json.dumps(outcome), flush=True)  # noqa: T201 - as it is, whatever the terminal

    def table(self, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*map(printable, row))
        self._out.print(table)

    def plan(self) -> "PlanTable":
        return PlanTable(self)

    def must_answer(self) -> None:
        """
        Raises:
            UsageError: there is no terminal to ask on.
        """
        if not sys.stdin.isatty():
            raise UsageError("There is no terminal to ask on before anything is renamed: add --yes, or --dry-run.")

    def ask(self, question: str) -> bool:
        self._err.print(_safe(question), "[y/N] ", end="", soft_wrap=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Yields a function to be called for each item that is done."""
        if not total:
            yield lambda: None
        elif self._err.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._err) as progress:
                task = progress.add_task(title, total=total)
                yield lambda: progress.advance(task)
        else:
            done = 0

            def advance() -> None:
                nonlocal done
                done += 1
                if done == total or done * 100 // total // STEP_PERCENT > (done - 1) * 100 // total // STEP_PERCENT:
                    self.note(f"{title}: {done:,} of {total:,}")

            yield advance

    def summary(self, counts: Counter[Result], results: Path | None, *, dry_run: bool) -> None:
        for result in Result:
            if counts[result]:
                words = "would fail" if dry_run and result is Result.FAILED else _WORDS[result]
                self.say(f"{counts[result]:,} {words}")
        if dry_run:
            self.say("A dry run: nothing has been changed.")
        elif results is not None:
            self.note(f"Results: {results}")


class PlanTable:
    """Old and new names of the first lines, and what would fail; a count of the others."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._entries: list[tuple[int, Line, str | None, Problem | None]] = []

    def add(self, line: Line, old_name: str | None, problem: Problem | None) -> None:
        self._entries.append((line.number, line, old_name, problem))

    def show(self) -> None:
        if not self._entries:
            return
        self._entries.sort(key=lambda entry: entry[0])
        right = [entry for entry in self._entries if entry[3] is None][:SHOWN]
        wrong = [entry for entry in self._entries if entry[3] is not None][:SHOWN]
        rows = [
            (
                str(number),
                line.vpc_endpoint_service_id,
                "?" if old_name is None else repr(old_name),
                f"→ {line.endpoint_service_name!r}",
                "" if problem is None else str(problem),
            )
            for number, line, old_name, problem in sorted(right + wrong, key=lambda entry: entry[0])
        ]
        self._display.table(("line", "endpoint service", "is called", "would be", ""), rows)
        if (more := len(self._entries) - len(rows)) > 0:
            self._display.say(f"… and {more:,} more")


def _console(stream: IO[str]) -> Console:
    """Names and messages are not markup. Without a terminal the width is fixed."""
    options: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}
    return Console(file=stream, width=None if stream.isatty() else _WIDE, **options)


def _safe(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
