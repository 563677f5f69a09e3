"""The outcome bus: an outcome is on it, or the caller gets a failure."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from function.adapters.aws.eventbridge import MAX_PUBLISH_ATTEMPTS, MAX_REQUEST_SECONDS, EventBridge
from function.domain.deadline import Deadline
from function.domain.failures import Kind, RenameFailedError
from function.domain.model import Outcome
from tests.deadlines import within
from tests.fakes.aws import FakeAws
from tests.fakes.clock import FakeClock
from tests.fakes.failures import failed, unavailable
from tests.fakes.identifiers import BUS
from tests.unit.adapters.aws.ledger import EVENT, event, failure_of

MODULE = "function.adapters.aws.eventbridge"
OUTCOME = failure_of(EVENT, unavailable())
Publish = Callable[..., None]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """What the bus sleeps by."""
    clock = FakeClock()
    monkeypatch.setattr(f"{MODULE}.time", SimpleNamespace(sleep=clock.sleep))
    return clock


@pytest.fixture
def publish(aws: FakeAws, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Each attempt is one request."""
    monkeypatch.setattr("function.adapters.aws.client.MAX_REQUEST_ATTEMPTS", 1)

    def publish(outcome: Outcome = OUTCOME, *, bus: str = BUS, seconds: float = 60.0) -> None:
        EventBridge(aws.events(), bus).publish(outcome, clock.until(seconds))

    return publish


@pytest.mark.parametrize("bus", [BUS, "arn:aws:events:eu-west-1:123456789012:event-bus/rename-outcomes"])
def test_outcome_is_one_entry_on_the_bus(aws: FakeAws, publish: Publish, bus: str) -> None:
    publish(bus=bus)

    [call] = aws.calls_of("PutEvents")
    [entry] = call["Entries"]
    assert json.loads(entry.pop("Detail")) == OUTCOME.cloud_event
    assert entry == {
        "EventBusName": bus,
        "Source": "vpcep.rename",
        "DetailType": "vpcep.endpoint_service.rename_failed.v1",
    }


FAULTS = pytest.mark.parametrize(
    ("fault", "arguments", "reason"),
    [
        ("refuse_entry", ["ThrottlingException"], "ThrottlingException"),
        ("refuse_entry", ["MalformedDetail"], "MalformedDetail"),
        ("fail", ["PutEvents", "ThrottlingException"], "ThrottlingException"),
        ("fail", ["PutEvents", "AccessDeniedException"], "AccessDeniedException"),
        ("hang_up", ["PutEvents"], "ConnectionClosedError"),
        # EventBridge never answers so; what matters is that the event is not taken for settled.
        ("answer", ["PutEvents", {}], "UnknownAnswer"),
        ("answer", ["PutEvents", {"FailedEntryCount": 0, "Entries": []}], "UnknownAnswer"),
    ],
)


@FAULTS
def test_outcome_is_published_by_the_last_attempt_after_a_fault_of_the_others(
    aws: FakeAws, publish: Publish, clock: FakeClock, fault: str, arguments: list[Any], reason: str
) -> None:
    getattr(aws, fault)(*arguments, times=MAX_PUBLISH_ATTEMPTS - 1)

    publish()

    assert aws.outcomes == [OUTCOME.cloud_event] * MAX_PUBLISH_ATTEMPTS
    assert len(clock.sleeps) == MAX_PUBLISH_ATTEMPTS - 1


@FAULTS
def test_outcome_that_every_attempt_fails_to_publish_is_a_failure_with_the_reason(
    aws: FakeAws, publish: Publish, fault: str, arguments: list[Any], reason: str
) -> None:
    getattr(aws, fault)(*arguments, times=None)

    failure = failed(publish)

    assert (failure.code, failure.kind, failure.retryable) == ("Rename.OutcomeNotPublished", Kind.UNAVAILABLE, True)
    assert reason in failure.message
    assert not failure.retry_in_process
    assert len(aws.outcomes) == MAX_PUBLISH_ATTEMPTS


# ---- Time


@pytest.mark.parametrize(
    ("seconds", "waits"),
    [(19.0, []), (59.0, [20.0]), (1_000.0, [10.0 * 2**attempt for attempt in range(1, MAX_PUBLISH_ATTEMPTS)])],
)
def test_attempts_are_apart_by_growing_waits_with_jitter_and_end_by_the_deadline(
    aws: FakeAws,
    publish: Publish,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    waits: list[float],
) -> None:
    monkeypatch.setattr("function.domain.backoff.UNIFORM", lambda _, high: high)
    monkeypatch.setattr(f"{MODULE}.PUBLISH_BACKOFF_SECONDS", 10.0)
    aws.refuse_entry("ThrottlingException", times=None)

    failed(lambda: publish(seconds=seconds))

    assert clock.sleeps == waits
    assert len(aws.outcomes) == len(waits) + 1


# ---- Outcomes that are published concurrently share requests


class Publishers:
    """Threads that publish in one attempt each, through a client that answers when a test lets it.

    Attributes:
        requests: the ids of the events whose outcomes are in each.
        seconds: that each request had.
        refused: the ids whose entries are refused.
        error: what the client raises.
    """

    def __init__(self, pool: Executor, clock: FakeClock) -> None:
        self.requests: list[list[str]] = []
        self.seconds: list[float] = []
        self.refused: set[str] = set()
        self.error: BaseException | None = None
        self._began, self._may_answer = threading.Semaphore(0), threading.Semaphore(0)
        self._bus = EventBridge(cast("Any", self), BUS)
        self._pool = pool
        self._clock = clock

    def publish(self, id_: str, padding: int = 0, deadline: Deadline | None = None) -> Future[None]:
        """The outcome of an event of this id."""
        outcome = failure_of(event(id_), unavailable())
        outcome = replace(outcome, cloud_event=outcome.cloud_event | {"padding": "x" * padding})
        return self._pool.submit(self._bus.publish, outcome, deadline or self._clock.until(60))

    def publish_during_a_request(self, *ids: str, **arguments: Any) -> list[Future[None]]:
        """One whose request is in flight, and so many that come meanwhile."""
        futures = [self.publish("first")]
        self.await_request()
        for id_ in ids:
            futures.append(self.publish(id_, **arguments))
            time.sleep(0.01)  # so that they come in this order
        return futures

    def await_request(self) -> None:
        assert self._began.acquire(timeout=10)

    def answer(self, requests: int) -> None:
        self._may_answer.release(requests)

    def put_events(self, deadline: Deadline, *, Entries: Sequence[Mapping[str, str]]) -> dict[str, Any]:  # noqa: N803
        """EventBridge's client's."""
        ids = [json.loads(entry["Detail"])["data"]["request"]["id"] for entry in Entries]
        self.requests.append(ids)
        self.seconds.append(deadline.remaining())
        self._began.release()
        assert self._may_answer.acquire(timeout=10)
        if self.error:
            raise self.error
        return {"Entries": [{"ErrorCode": "InternalFailure"} if id_ in self.refused else {} for id_ in ids]}


def results(futures: Sequence[Future[None]]) -> list[type | None]:
    """The exception that each ended in, if any."""
    errors = [future.exception(10) for future in futures]
    return [type(error) if error else None for error in errors]


@pytest.fixture
def publishers(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publishers]:
    monkeypatch.setattr(f"{MODULE}.MAX_PUBLISH_ATTEMPTS", 1)
    with ThreadPoolExecutor(40) as pool:
        publishers = Publishers(pool, clock)
        yield publishers
        publishers.answer(100)


@pytest.mark.parametrize(
    ("ids", "padding", "sizes"),
    [
        pytest.param("abc", 0, [1, 3], id="all that came meanwhile"),
        pytest.param("abcdefghijklmnopqrstuvwxy", 0, [1, 10, 10, 5], id="ten at most"),
        pytest.param("abc", 100_000, [1, 2, 1], id="as many bytes as a request may have"),
    ],
)
def test_outcomes_that_come_during_a_request_share_the_next(
    publishers: Publishers, ids: str, padding: int, sizes: list[int]
) -> None:
    futures = publishers.publish_during_a_request(*ids, padding=padding)
    publishers.answer(len(sizes))

    assert results(futures) == [None] * len(futures)
    assert list(map(len, publishers.requests)) == sizes
    assert [id_ for request in publishers.requests for id_ in request] == ["first", *ids]


def test_outcomes_of_one_request_have_results_of_their_own(publishers: Publishers) -> None:
    publishers.refused = {"b"}
    futures = publishers.publish_during_a_request("a", "b")
    publishers.answer(2)

    assert results(futures) == [None, None, RenameFailedError]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(ClientError({"Error": {"Code": "Throttling"}}, "PutEvents"), RenameFailedError), (KeyError("x"), KeyError)],
)
def test_outcomes_of_a_request_that_fails_all_fail_and_the_next_is_published(
    publishers: Publishers, error: Exception, raised: type
) -> None:
    futures = publishers.publish_during_a_request("a", "b")
    publishers.error = error
    publishers.answer(2)
    assert results(futures) == [raised] * 3

    publishers.error = None
    publishers.answer(1)
    assert results([publishers.publish("next")]) == [None]


def test_outcomes_of_a_request_whose_thread_was_ended_are_not_published(publishers: Publishers) -> None:
    first, sender, other = publishers.publish_during_a_request("a", "b")
    publishers.answer(1)
    assert results([first]) == [None]
    publishers.await_request()
    publishers.error = SystemExit()
    publishers.answer(1)

    assert set(results([sender, other])) == {SystemExit, RenameFailedError}


def test_outcome_waits_for_a_request_no_longer_than_its_own_deadline(publishers: Publishers) -> None:
    first, late = publishers.publish_during_a_request("a", deadline=within(0.1))

    with pytest.raises(RenameFailedError, match="OutcomeNotPublished"):
        late.result(5)

    assert not first.done()
    publishers.answer(2)
    assert results([first, publishers.publish("next")]) == [None, None]
    assert publishers.requests == [["first"], ["next"]]


def test_outcome_without_time_left_does_not_wait_for_a_request(publishers: Publishers, clock: FakeClock) -> None:
    _, late = publishers.publish_during_a_request("a", deadline=clock.until(0))

    with pytest.raises(RenameFailedError, match="OutcomeNotPublished"):
        late.result(5)


def test_request_ends_by_the_deadline_of_the_thread_that_sends_it(publishers: Publishers, clock: FakeClock) -> None:
    publishers.answer(2)
    for seconds in (3.0, 60.0):
        assert results([publishers.publish("a", deadline=clock.until(seconds))]) == [None]

    assert publishers.seconds == [3.0, MAX_REQUEST_SECONDS]


def test_outcome_does_not_wait_for_a_request_that_hangs(
    publishers: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while it resolves a host name, or in a thread that outlasts its invocation."""
    monkeypatch.setattr(f"{MODULE}.MAX_REQUEST_SECONDS", 0.1)
    futures = []
    for id_ in ("first", "second"):
        futures.append(publishers.publish(id_, deadline=within(60)))
        publishers.await_request()
    publishers.answer(2)

    assert results(futures) == [None, None]
    assert publishers.requests == [["first"], ["second"]]


def test_outcome_in_a_request_that_hangs_is_sent_again(publishers: Publishers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}.MAX_PUBLISH_ATTEMPTS", 2)
    monkeypatch.setattr(f"{MODULE}.MAX_REQUEST_SECONDS", 0.2)
    _, *both = publishers.publish_during_a_request("a", "b", deadline=within(60))
    publishers.answer(1)
    publishers.await_request()
    assert publishers.requests[1:] == [["a", "b"]]

    publishers.await_request()

    publishers.answer(2)
    assert results(both) == [None, None]
    # then: it is the one of the two whose thread did not send the request that hangs
    assert publishers.requests[2:] in ([["a"]], [["b"]])
