"""The results file keeps plans and outcomes, wherever its run is cut off."""

import csv
import stat
from pathlib import Path

import pytest

from cli.model import Line, Planned, Problem, Result, UsageError
from cli.results_file import COLUMNS, ResultsFile

LINE = Line(2, "one", "orders")
PLANNED = Planned(LINE, "cn-north-4", "p", "billing", "id-1", "2026-11-25T00:00:00Z")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "names.results.csv"


def start(results: ResultsFile) -> None:
    results.start("abc")
    results.plan(PLANNED)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_plan_is_written_before_the_results_file_is_closed(path: Path) -> None:
    with ResultsFile(path) as results:
        start(results)

        header, plan = rows(path)

    assert (header["record"], header["input_sha256"]) == ("input", "abc")
    assert list(plan) == list(COLUMNS)
    assert {name: plan[name] for name in ("line", "old_name", "new_name", "event_id", "event_time", "region")} == {
        "line": "2",
        "old_name": "billing",
        "new_name": "orders",
        "event_id": "id-1",
        "event_time": "2026-11-25T00:00:00Z",
        "region": "cn-north-4",
    }


def test_next_run_reads_results_and_what_was_undone(path: Path) -> None:
    with ResultsFile(path) as results:
        start(results)
        results.outcome(LINE, Result.RENAMED, None, PLANNED)

    with ResultsFile(path) as results:
        results.start("abc")
        assert not results.is_new
        assert results.states[2].result is Result.RENAMED
        [plan] = results.renamed()
        assert plan.of(LINE) == PLANNED
        results.undone(plan)
        assert list(results.renamed()) == []

    with ResultsFile(path) as results:
        assert results.states[2].undone


def test_new_plan_replaces_plan_and_result_of_a_line(path: Path) -> None:
    with ResultsFile(path) as results:
        start(results)
        results.outcome(LINE, Result.FAILED, Problem("EndPoint.2003", "gone"), PLANNED)
        results.plan(PLANNED._replace(id="id-2"))

    with ResultsFile(path) as results:
        state = results.states[2]
        assert state.plan
        assert (state.plan.id, state.result) == ("id-2", None)


def test_incomplete_last_row_is_dropped(path: Path) -> None:
    with ResultsFile(path) as results:
        start(results)
    whole = path.read_bytes()
    path.write_bytes(whole + b"outcome,2,one,cn-nor")

    with ResultsFile(path) as results:
        assert results.states[2].result is None
        results.outcome(LINE, Result.RENAMED, None, PLANNED)

    assert path.read_bytes().startswith(whole + b"outcome,2,one,cn-north-4,")


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_results_file_that_ends_anywhere_is_continued(path: Path, cut: int) -> None:
    with ResultsFile(path) as results:
        start(results)
        results.outcome(LINE, Result.RENAMED, None, PLANNED)
    path.write_bytes(path.read_bytes()[:cut])

    with ResultsFile(path) as results:
        start(results)

    assert [row["record"] for row in rows(path)][:2] == ["input", "plan"]


def test_results_of_another_input_are_a_usage_error_and_kept(path: Path) -> None:
    with ResultsFile(path) as results:
        results.start("abc")
    before = path.read_bytes()

    with ResultsFile(path) as results, pytest.raises(UsageError, match="of another input"):
        results.start("def")

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["vpc_endpoint_service_id,endpoint_service_name\none,orders\n", "\n", f"{','.join(COLUMNS)}\nx\n"]
)
def test_file_that_is_no_results_file_is_a_usage_error_and_kept(path: Path, content: str) -> None:
    path.write_text(content)

    with pytest.raises(UsageError, match="this is no results file"):
        ResultsFile(path)

    assert path.read_text() == content


def test_second_run_on_one_results_file_is_a_usage_error(path: Path) -> None:
    with ResultsFile(path), pytest.raises(UsageError, match="in use by another"):
        ResultsFile(path)


def test_message_with_line_feed_quotes_and_escape_stays_in_its_row(path: Path) -> None:
    with ResultsFile(path) as results:
        results.start("abc")
        results.outcome(LINE, Result.FAILED, Problem("EndPoint.0001", 'two\nlines, "quoted"\x1b[2J'), PLANNED)

    assert rows(path)[-1]["message"] == 'two lines, "quoted" [2J'
    with ResultsFile(path) as results:
        assert results.states[2].result is Result.FAILED


def test_results_file_is_readable_by_its_owner_alone(path: Path) -> None:
    with ResultsFile(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
