"""Many at a time: bounded, slower when throttled, orderly at the end."""

import threading
import time
from collections.abc import Iterator

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


def persisted(script: Script, pace: Pace | None = None) -> Problem | None:
    return retry(script, lambda problem: problem, pace or Pace())


def test_throttling_fails_nothing() -> None:
    script = Script(*[THROTTLED] * (MAX_TRIES + 3), None)

    assert persisted(script) is None
    assert script.calls == MAX_TRIES + 4


def test_throttling_stops_everybody_for_as_long_as_it_says() -> None:
    pace = Pace()
    pace.throttled(0.2)
    began = time.monotonic()

    assert persisted(Script(None), pace) is None

    assert time.monotonic() - began >= 0.19


def test_pauses_grow_and_shrink() -> None:
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


def test_many_throttled_at_once_make_one_pause() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    for _ in range(10):
        pace.throttled(None)

    assert pace._resume_at == pytest.approx(0.01)


def test_throttled_for_too_long_is_a_failure() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    now = runner.PATIENCE_SECONDS

    assert not pace.throttled(None)


def test_what_may_pass_is_tried_a_few_times() -> None:
    script = Script(UNAVAILABLE)

    assert persisted(script) is UNAVAILABLE
    assert script.calls == MAX_TRIES


def test_final_failure_is_tried_once() -> None:
    script = Script(FINAL)

    assert persisted(script) is FINAL
    assert script.calls == 1


def test_refused_key_stops_everything() -> None:
    with pytest.raises(StoppedError, match="the key"):
        persisted(Script(Problem("APIGW.0301", "the key", retryable=False, fatal=True)))


def test_outage_stops_everything() -> None:
    pace = Pace()

    def outage() -> None:
        for _ in range(MAX_UNANSWERED):
            persisted(Script(UNAVAILABLE), pace)

    with pytest.raises(StoppedError, match="run the same command again"):
        outage()


def test_success_ends_a_row_of_failures() -> None:
    pace = Pace()
    for _ in range(MAX_UNANSWERED):
        persisted(Script(UNAVAILABLE, None), pace)


def test_each_item_is_done_so_many_at_a_time() -> None:
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


def test_items_are_taken_no_earlier_than_they_are_worked_on() -> None:
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


def test_interrupt_finishes_what_is_in_flight() -> None:
    pace = Pace()
    started: list[int] = []
    done: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        time.sleep(0.02)
        pace.stopping.set()
        return item

    def collect() -> None:
        for item, _ in each(range(100), work, pace=pace, parallel=4):
            done.append(item)

    with pytest.raises(KeyboardInterrupt):
        collect()

    assert sorted(done) == sorted(started) == [0, 1, 2, 3]


def test_error_is_raised_after_what_is_in_flight() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item == 0:
            message = "stop"
            raise StoppedError(message)
        time.sleep(0.05)
        return item

    def collect() -> None:
        for item, _ in each(range(100), work, pace=Pace(), parallel=4):
            done.append(item)

    with pytest.raises(StoppedError):
        collect()

    assert sorted(done) == [1, 2, 3]
