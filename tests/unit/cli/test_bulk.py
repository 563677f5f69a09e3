"""What `apply` and `undo` decide, through a stack or without one."""

import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.bulk import Bulk
from cli.display import Display
from cli.input_file import Input
from cli.model import Answer, Event, Line, Preview, Problem, UsageError
from cli.results_file import ResultsFile
from cli.runner import Pace

REGION, PROJECT = "cn-north-4", "0f5b"
ONE_LINE = [Line(2, "one", "orders")]
NOT_FOUND = Problem("EndPoint.2003", "The VPC endpoint service does not exist.")


class InMemory:
    """Endpoint services by id, renamed in this process; ids are without regard to case."""

    where = "the memory"
    default = "", ""
    notes: Sequence[str] = ()

    def __init__(self, names: dict[str, str], *, queued: bool = False) -> None:
        self.names = {service_id.casefold(): name for service_id, name in names.items()}
        self.sent: list[Event] = []
        self.queued = queued
        self._lock = threading.Lock()

    def violations(self, line: Line) -> list[str]:
        return []

    def preview(self, event: Event) -> Preview:
        name = self.names.get(event["data"]["vpc_endpoint_service_id"].casefold())
        return Preview(REGION, PROJECT, name, NOT_FOUND if name is None else None)

    def rename(self, event: Event) -> Answer:
        data = event["data"]
        service_id = data["vpc_endpoint_service_id"].casefold()
        with self._lock:
            self.sent.append(event)
            if self.queued:
                return Answer(None, None)
            if self.names[service_id] not in (data["expected_name"], data["endpoint_service_name"]):
                return Answer({"data": {}}, Problem("Rename.PreconditionFailed", "another name"))
            self.names[service_id] = data["endpoint_service_name"]
        return Answer({"data": {}}, None)


def bulk(renamer: InMemory) -> Bulk:
    return Bulk(renamer, Display(), Pace(), parallel=10)


def apply(renamer: InMemory, lines: list[Line], path: Path, sha256: str = "abc") -> int:
    with ResultsFile(path) as results:
        return bulk(renamer).apply(Input(sha256, lines), results, yes=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "names.results.csv"


def test_apply_sends_the_name_it_has_read_as_expected_name_with_region_and_project(path: Path) -> None:
    renamer = InMemory({"one": "billing"})

    assert apply(renamer, ONE_LINE, path) == 0

    [event] = renamer.sent
    assert event["data"] == {
        "vpc_endpoint_service_id": "one",
        "endpoint_service_name": "orders",
        "expected_name": "billing",
        "region": REGION,
        "project_id": PROJECT,
    }


def test_apply_sends_nothing_for_a_service_with_its_new_name(path: Path) -> None:
    renamer = InMemory({"one": "orders"})

    assert apply(renamer, ONE_LINE, path) == 0

    assert renamer.sent == []


def test_two_lines_for_one_service_are_a_usage_error_with_both_line_numbers(path: Path) -> None:
    renamer = InMemory({"one": "billing"})
    lines = [Line(2, "one", "orders"), Line(3, "ONE", "cases", None, REGION)]

    with pytest.raises(UsageError, match="Lines 2 and 3 name the same endpoint service"):
        apply(renamer, lines, path)

    assert renamer.sent == []
    assert not path.exists()


def test_line_without_an_outcome_is_sent_again_as_planned(path: Path) -> None:
    renamer = InMemory({"one": "billing"}, queued=True)
    assert apply(renamer, ONE_LINE, path) == 1
    renamer.queued = False

    assert apply(renamer, ONE_LINE, path) == 0

    first, second = renamer.sent
    assert first == second


def test_line_with_a_final_failure_is_sent_again_with_a_new_id_and_the_present_name(path: Path) -> None:
    renamer = InMemory({"one": "billing"}, queued=True)
    assert apply(renamer, ONE_LINE, path) == 1
    renamer.queued = False
    renamer.names["one"] = "changed"
    assert apply(renamer, ONE_LINE, path) == 1

    assert apply(renamer, ONE_LINE, path) == 0

    *_, failed, renamed = renamer.sent
    assert failed["id"] != renamed["id"]
    assert failed["time"] <= renamed["time"]
    assert (failed["data"]["expected_name"], renamed["data"]["expected_name"]) == ("billing", "changed")


def test_line_that_was_renamed_is_skipped_and_keeps_its_first_old_name(path: Path) -> None:
    renamer = InMemory({"one": "billing", "two": "x"})
    lines = [Line(2, "one", "orders"), Line(3, "lost", "y")]
    assert apply(renamer, lines, path) == 1
    renamer.names["one"] = "changed"

    assert apply(renamer, lines, path) == 1

    assert len(renamer.sent) == 1
    with ResultsFile(path) as results:
        assert [plan.old_name for plan in results.renamed()] == ["billing"]


def test_undo_marks_a_service_with_its_old_name_as_undone_without_a_rename(path: Path) -> None:
    renamer = InMemory({"one": "billing"})
    assert apply(renamer, ONE_LINE, path) == 0
    renamer.names["one"] = "billing"

    with ResultsFile(path) as results:
        assert bulk(renamer).undo(results, yes=True, dry_run=False) == 0
        assert list(results.renamed()) == []

    assert len(renamer.sent) == 1


def test_dry_run_of_undo_leaves_the_results_file_unchanged(path: Path) -> None:
    renamer = InMemory({"one": "billing", "two": "x"})
    assert apply(renamer, [Line(2, "one", "orders"), Line(3, "two", "y")], path) == 0
    renamer.names["one"] = "billing"
    before = path.read_bytes()

    with ResultsFile(path) as results:
        assert bulk(renamer).undo(results, yes=True, dry_run=True) == 0

    assert path.read_bytes() == before
    assert len(renamer.sent) == 2


def test_declined_plan_leaves_no_results_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamer = InMemory({"one": "billing"})
    asked: list[str] = []
    monkeypatch.setattr(Display, "ask", lambda self, question: asked.append(question))

    with ResultsFile(path) as results:
        assert bulk(renamer).apply(Input("abc", ONE_LINE), results, yes=False) == 1

    assert asked == ["Rename 1 endpoint service at the memory?"]
    assert renamer.sent == []
    assert not path.exists()


def test_apply_of_ten_thousand_lines_takes_less_than_40_mebibytes(path: Path) -> None:
    ids = [f"{number:08}-8a62-448e-89ed-f2cbde8e6a3b" for number in range(10_000)]
    renamer = InMemory(dict.fromkeys(ids, "old"))
    renamer.sent = Discarding()
    lines = [Line(number, service_id, "new") for number, service_id in enumerate(ids, start=2)]

    tracemalloc.start()
    status = apply(renamer, lines, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert status == 0
    assert set(renamer.names.values()) == {"new"}
    assert peak < 40 * 2**20


class Discarding(list[Event]):
    def append(self, event: Event) -> None:
        """Keep nothing, so that only the command's own memory counts."""
