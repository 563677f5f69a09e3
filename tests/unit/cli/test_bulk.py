"""What `apply` and `undo` decide, whichever way they go."""

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
NOT_FOUND = Problem("EndPoint.2003", "The VPC endpoint service does not exist.")


class InMemory:
    """Endpoint services by id, renamed in this process; ids are without regard to case."""

    where = "the memory"
    default = "", ""
    notes: Sequence[str] = ()

    def __init__(self, names: dict[str, str]) -> None:
        self.names = {service_id.casefold(): name for service_id, name in names.items()}
        self.sent: list[Event] = []
        self.queued = False
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


def test_names_that_were_read_are_sent_as_expected_name_with_region_and_project(path: Path) -> None:
    renamer = InMemory({"one": "billing"})

    assert apply(renamer, [Line(2, "one", "orders")], path) == 0

    [event] = renamer.sent
    assert event["data"] == {
        "vpc_endpoint_service_id": "one",
        "endpoint_service_name": "orders",
        "expected_name": "billing",
        "region": REGION,
        "project_id": PROJECT,
    }


def test_what_has_its_name_already_is_not_sent(path: Path) -> None:
    renamer = InMemory({"one": "orders"})

    assert apply(renamer, [Line(2, "one", "orders")], path) == 0

    assert renamer.sent == []


def test_two_lines_that_turn_out_to_be_one_service_are_an_error_with_both_lines(path: Path) -> None:
    renamer = InMemory({"one": "billing"})
    lines = [Line(2, "one", "orders"), Line(3, "ONE", "cases", None, REGION)]

    with pytest.raises(UsageError, match="Lines 2 and 3 name the same endpoint service"):
        apply(renamer, lines, path)

    assert renamer.sent == []
    assert not path.exists()


def test_line_without_an_outcome_goes_out_again_as_planned(path: Path) -> None:
    renamer = InMemory({"one": "billing"})
    renamer.queued = True
    assert apply(renamer, [Line(2, "one", "orders")], path) == 1
    renamer.queued = False

    assert apply(renamer, [Line(2, "one", "orders")], path) == 0

    first, second = renamer.sent
    assert first == second


def test_final_failure_gets_a_new_id_and_a_name_read_anew(path: Path) -> None:
    renamer = InMemory({"one": "billing"})
    renamer.queued = True
    lines = [Line(2, "one", "orders")]
    assert apply(renamer, lines, path) == 1
    renamer.queued = False
    renamer.names["one"] = "changed"
    assert apply(renamer, lines, path) == 1

    assert apply(renamer, lines, path) == 0

    *_, failed, renamed = renamer.sent
    assert failed["id"] != renamed["id"]
    assert failed["time"] <= renamed["time"]
    assert (failed["data"]["expected_name"], renamed["data"]["expected_name"]) == ("billing", "changed")


def test_success_is_skipped_and_keeps_its_first_old_name(path: Path) -> None:
    renamer = InMemory({"one": "billing", "two": "x"})
    lines = [Line(2, "one", "orders"), Line(3, "lost", "y")]
    assert apply(renamer, lines, path) == 1
    renamer.names["one"] = "changed"

    assert apply(renamer, lines, path) == 1

    assert len(renamer.sent) == 1
    with ResultsFile(path) as results:
        assert [plan.old_name for plan in results.renamed()] == ["billing"]


def test_undo_marks_what_has_its_old_name_again_already(path: Path) -> None:
    renamer = InMemory({"one": "billing"})
    assert apply(renamer, [Line(2, "one", "orders")], path) == 0
    renamer.names["one"] = "billing"

    with ResultsFile(path) as results:
        assert bulk(renamer).undo(results, yes=True, dry_run=False) == 0
        assert list(results.renamed()) == []

    assert len(renamer.sent) == 1


def test_dry_run_of_undo_marks_nothing(path: Path) -> None:
    renamer = InMemory({"one": "billing", "two": "x"})
    assert apply(renamer, [Line(2, "one", "orders"), Line(3, "two", "y")], path) == 0
    renamer.names["one"] = "billing"
    before = path.read_bytes()

    with ResultsFile(path) as results:
        assert bulk(renamer).undo(results, yes=True, dry_run=True) == 0

    assert path.read_bytes() == before
    assert len(renamer.sent) == 2


def test_plan_that_is_not_agreed_to_leaves_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamer = InMemory({"one": "billing"})
    asked: list[str] = []
    monkeypatch.setattr(Display, "ask", lambda self, question: asked.append(question))

    with ResultsFile(path) as results:
        assert bulk(renamer).apply(Input("abc", [Line(2, "one", "orders")]), results, yes=False) == 1

    assert asked == ["Rename 1 endpoint service at the memory?"]
    assert renamer.sent == []
    assert not path.exists()


def test_ten_thousand_lines_take_little_memory(path: Path) -> None:
    ids = [f"{number:08}-8a62-448e-89ed-f2cbde8e6a3b" for number in range(10_000)]
    renamer = InMemory(dict.fromkeys(ids, "old"))
    renamer.sent = Forgetful()
    lines = [Line(number, service_id, "new") for number, service_id in enumerate(ids, start=2)]

    tracemalloc.start()
    status = apply(renamer, lines, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert status == 0
    assert set(renamer.names.values()) == {"new"}
    assert peak < 40 * 2**20


class Forgetful(list[Event]):
    def append(self, event: Event) -> None:
        """Not even that."""
