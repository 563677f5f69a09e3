"""Many at a time: bounded, slower when throttled, orderly at the end."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cli import runner
from cli.model import Problem, StoppedError
from cli.runner import MAX_TRIES, MAX_UNANSWERED, Pace, each, retry

THROTTLED = Problem("APIGW.0308", "slower", retryable=True, throttled=True)
UNAVAILABLE = Problem("EndPoint.0001", "later", retryable=True)
FINAL = Problem("EndPoint.2003", "gone")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "FIRST_PAUSE_SECONDS", 0.01)


class Script:
    """Answers in turn, the last one for ever."""

    def __init__(self, *answers: Problem | None) -> None:
        self._answers = answers
        self.calls = 0

    def __call__(self) -> Problem | None:
        self.calls += 1
        return self._answers[min(self.calls, len(self._answers)) - 1]


def retried(script: Script, pace: Pace | None = None) -> Problem | None:
    return retry(script, lambda problem: problem, pace or Pace())


def test_throttled_call_is_repeated_until_it_succeeds() -> None:
    script = Script(*[THROTTLED] * (MAX_TRIES + 3), None)

    assert retried(script) is None
    assert script.calls == MAX_TRIES + 4


def test_all_calls_wait_as_long_as_a_throttled_one_was_told_to() -> None:
    pace = Pace()
    pace.throttled(0.2)
    began = time.monotonic()

    assert retried(Script(None), pace) is None

    assert time.monotonic() - began >= 0.19


def test_pause_doubles_with_each_throttled_call_and_shrinks_after_a_success() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    pauses = []
    for _ in range(3):
        pace.throttled(None)
        pauses.append(pace._resume_at - now)
        now = pace._resume_at
    pace.succeeded()
    pace.throttled(None)
    pauses.append(pace._resume_at - now)

    assert pauses == pytest.approx([0.01, 0.02, 0.04, 0.04])


def test_calls_throttled_at_the_same_time_make_one_pause() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    for _ in range(10):
        pace.throttled(None)

    assert pace._resume_at == pytest.approx(0.01)


def test_throttling_that_outlasts_patience_is_a_failure() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    now = runner.PATIENCE_SECONDS

    assert not pace.throttled(None)


@pytest.mark.parametrize(("problem", "calls"), [(UNAVAILABLE, MAX_TRIES), (FINAL, 1)], ids=["retryable", "final"])
def test_call_is_repeated_only_after_a_retryable_failure(problem: Problem, calls: int) -> None:
    script = Script(problem)

    assert retried(script) is problem
    assert script.calls == calls


def test_rejected_key_stops_the_run() -> None:
    with pytest.raises(StoppedError, match="the key"):
        retried(Script(Problem("APIGW.0301", "the key", retryable=False, fatal=True)))


def test_many_failures_in_a_row_stop_the_run() -> None:
    pace = Pace()

    def outage() -> None:
        for _ in range(MAX_UNANSWERED):
            retried(Script(UNAVAILABLE), pace)

    with pytest.raises(StoppedError, match="run the same command again"):
        outage()


def test_success_resets_the_count_of_failures_in_a_row() -> None:
    pace = Pace()
    for _ in range(MAX_UNANSWERED):
        retried(Script(UNAVAILABLE, None), pace)


def test_each_item_is_done_and_at_most_four_at_a_time() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return item * 2

    done = dict(each(range(40), work, pace=Pace(), parallel=4))

    assert done == {item: item * 2 for item in range(40)}
    assert most == 4


def test_items_are_taken_when_a_worker_is_free() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(10_000):
            taken += 1
            yield item

    for done, _ in enumerate(each(items(), lambda item: item, pace=Pace(), parallel=4), start=1):
        assert taken <= done + 4
        if done == 100:
            break


def collect(work: Callable[[int], int], done: list[int], pace: Pace | None = None) -> None:
    for item, _ in each(range(100), work, pace=pace or Pace(), parallel=4):
        done.append(item)


def test_interrupt_is_raised_after_items_in_flight_are_done() -> None:
    pace = Pace()
    started: list[int] = []
    done: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        time.sleep(0.02)
        pace.stopping.set()
        return item

    with pytest.raises(KeyboardInterrupt):
        collect(work, done, pace)

    assert sorted(done) == sorted(started) == [0, 1, 2, 3]


def test_error_is_raised_after_items_in_flight_are_done() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item == 0:
            raise StoppedError("stop")
        time.sleep(0.05)
        return item

    with pytest.raises(StoppedError):
        collect(work, done)

    assert sorted(done) == [1, 2, 3]
