"""The outcome bus: an outcome is on it, or the caller hears that it is not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from function.adapters.aws.eventbridge import (
    MAX_PUBLISH_ATTEMPTS,
    MAX_REQUEST_SECONDS,
    PUBLISH_BACKOFF_SECONDS,
    EventBridge,
)
from function.domain.deadline import Deadline
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import Outcome
from function.domain.rename_service import Unsettled
from tests.deadlines import within
from tests.fakes.aws import FakeAws, WithoutDeadline
from tests.fakes.clock import FakeClock
from tests.fakes.failures import failed, unavailable
from tests.fakes.identifiers import BUS
from tests.fakes.world import World


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """What the bus sleeps by; botocore does not retry here, so nobody else does."""
    clock = FakeClock()
    monkeypatch.setattr("function.adapters.aws.eventbridge.time", SimpleNamespace(sleep=clock.sleep))
    return clock


@pytest.fixture
def bus(aws: FakeAws) -> EventBridge:
    return EventBridge(client_of(aws), BUS)


def client_of(aws: FakeAws) -> Any:
    config = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
    return WithoutDeadline(boto3.client("events", endpoint_url=aws.url, config=config))


@pytest.fixture
def outcome(world: World) -> Outcome:
    outcome = world.give_up(Unsettled(unavailable()))
    assert isinstance(outcome, Outcome)
    return outcome


def refused(bus: EventBridge, outcome: Outcome, clock: FakeClock, seconds: float = 60.0) -> Failure:
    return failed(bus.publish, outcome, clock.until(seconds))


class TestPublishing:
    def test_puts_one_entry_on_the_bus(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock
    ) -> None:
        bus.publish(outcome, clock.until(60))

        [call] = aws.calls_of("PutEvents")
        [entry] = call["Entries"]
        assert entry["EventBusName"] == BUS
        assert entry["Source"] == "vpcep.rename"
        assert entry["DetailType"] == outcome.type == "vpcep.endpoint_service.rename_failed.v1"
        assert json.loads(entry["Detail"]) == outcome.cloud_event

    def test_takes_a_bus_by_its_arn(self, aws: FakeAws, outcome: Outcome, clock: FakeClock) -> None:
        arn = "arn:aws:events:eu-west-1:123456789012:event-bus/rename-outcomes"

        EventBridge(client_of(aws), arn).publish(outcome, clock.until(60))

        assert aws.calls_of("PutEvents")[0]["Entries"][0]["EventBusName"] == arn

    def test_carries_text_of_any_script(self, aws: FakeAws, bus: EventBridge, world: World, clock: FakeClock) -> None:
        outcome = world.settle(world.invalid_event('{"naïve": "名前 🚀"}'))
        assert isinstance(outcome, Outcome)

        bus.publish(outcome, clock.until(60))

        assert aws.outcomes == [outcome.cloud_event]

    @pytest.mark.parametrize("code", ["ThrottlingException", "InternalFailure", "InternalException"])
    def test_tries_a_refused_entry_again_though_the_status_was_200(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock, code: str
    ) -> None:
        aws.refuse_entry(code, times=MAX_PUBLISH_ATTEMPTS - 1)

        bus.publish(outcome, clock.until(60))

        assert aws.outcomes == [outcome.cloud_event] * MAX_PUBLISH_ATTEMPTS
        assert len(clock.sleeps) == MAX_PUBLISH_ATTEMPTS - 1

    @pytest.mark.parametrize(
        ("code", "status"), [("ThrottlingException", 400), ("InternalException", 500), ("ServiceUnavailable", 503)]
    )
    def test_tries_a_refused_call_again(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock, code: str, status: int
    ) -> None:
        aws.fail("PutEvents", code, status=status)

        bus.publish(outcome, clock.until(60))

        assert aws.outcomes == [outcome.cloud_event] * 2

    def test_tries_again_after_a_lost_connection(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock
    ) -> None:
        aws.hang_up("PutEvents")

        bus.publish(outcome, clock.until(60))

        assert aws.outcomes == [outcome.cloud_event] * 2


class TestRefusals:
    @pytest.mark.parametrize("code", ["ThrottlingException", "InternalFailure", "MalformedDetail"])
    def test_of_the_entry_are_told(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock, code: str
    ) -> None:
        aws.refuse_entry(code, times=None)

        failure = refused(bus, outcome, clock)

        assert (failure.code, failure.kind, failure.retryable) == (
            "Rename.OutcomeNotPublished",
            Kind.UNAVAILABLE,
            True,
        )
        assert code in failure.message
        assert len(aws.outcomes) == MAX_PUBLISH_ATTEMPTS

    @pytest.mark.parametrize(("code", "status"), [("AccessDeniedException", 400), ("ResourceNotFoundException", 400)])
    def test_of_the_call_are_told(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock, code: str, status: int
    ) -> None:
        aws.fail("PutEvents", code, status=status, times=None)

        failure = refused(bus, outcome, clock)

        assert failure.code == "Rename.OutcomeNotPublished"
        assert code in failure.message
        assert not failure.retry_in_process

    @pytest.mark.parametrize("body", [{}, {"FailedEntryCount": 0, "Entries": []}])
    def test_are_suspected_where_the_answer_does_not_name_the_entry(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock, body: dict[str, Any]
    ) -> None:
        # given: an answer that EventBridge never gives; what matters is that the event is not taken for settled
        aws.answer("PutEvents", body, times=None)

        assert "UnknownAnswer" in refused(bus, outcome, clock).message

    def test_of_a_dead_service_are_told(self, aws: FakeAws, outcome: Outcome, clock: FakeClock) -> None:
        client = client_of(aws)
        aws.hang_up("PutEvents", times=None)

        failure = refused(EventBridge(client, BUS), outcome, clock)

        assert failure.code == "Rename.OutcomeNotPublished"
        assert "ConnectionClosedError" in failure.message


class TestTime:
    def test_is_waited_with_jitter_that_grows(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock
    ) -> None:
        aws.refuse_entry("ThrottlingException", times=None)

        refused(bus, outcome, clock)

        limits = [PUBLISH_BACKOFF_SECONDS * 2**attempt for attempt in range(1, MAX_PUBLISH_ATTEMPTS)]
        assert len(clock.sleeps) == len(limits)
        assert all(0 <= slept <= limit for slept, limit in zip(clock.sleeps, limits, strict=True))

    def test_that_is_up_leaves_one_attempt(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock
    ) -> None:
        aws.refuse_entry("ThrottlingException", times=None)

        refused(bus, outcome, clock, seconds=-1.0)

        assert len(aws.outcomes) == 1
        assert clock.sleeps == []

    def test_that_is_up_does_not_keep_an_outcome_from_the_bus(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock
    ) -> None:
        bus.publish(outcome, clock.until(-1.0))

        assert len(aws.outcomes) == 1

    def test_that_is_short_bounds_the_attempts(
        self, aws: FakeAws, bus: EventBridge, outcome: Outcome, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("function.domain.backoff.UNIFORM", lambda _, high: high)
        aws.refuse_entry("ThrottlingException", times=None)

        refused(bus, outcome, clock, seconds=PUBLISH_BACKOFF_SECONDS * 2 + 0.01)

        assert len(aws.outcomes) == 2


class Bus:
    """EventBridge's client, that answers when it is let."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.seconds: list[float] = []
        self.refused: set[str] = set()
        self.error: BaseException | None = None
        self.began, self.may_answer = threading.Semaphore(0), threading.Semaphore(0)

    def put_events(self, deadline: Deadline, **request: Any) -> dict[str, Any]:
        ids = [json.loads(entry["Detail"])["data"]["request"]["id"] for entry in request["Entries"]]
        self.requests.append(ids)
        self.seconds.append(deadline.remaining())
        self.began.release()
        assert self.may_answer.acquire(timeout=10)
        if self.error:
            raise self.error
        return {"Entries": [{"ErrorCode": "InternalFailure"} if id_ in self.refused else {} for id_ in ids]}


class TestTogether:
    @pytest.fixture
    def client(self) -> Bus:
        return Bus()

    @pytest.fixture
    def publish(
        self, client: Bus, world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[..., Future[None]]]:
        """Publish the outcome of an event of this id, in a thread of its own, in one attempt."""
        monkeypatch.setattr("function.adapters.aws.eventbridge.MAX_PUBLISH_ATTEMPTS", 1)
        bus = EventBridge(cast("Any", client), BUS)
        with ThreadPoolExecutor(40) as pool:

            def start(id_: str, padding: int = 0, deadline: Deadline | None = None) -> Future[None]:
                outcome = world.give_up(Unsettled(unavailable()), world.event(id=id_))
                assert isinstance(outcome, Outcome)
                outcome = replace(outcome, cloud_event=outcome.cloud_event | {"padding": "x" * padding})
                return pool.submit(bus.publish, outcome, deadline or clock.until(60))

            yield start
            client.may_answer.release(100)

    def waiting(self, publish: Callable[..., Future[None]], client: Bus, *ids: str, **arguments: Any) -> list[Any]:
        """One that is on its way, and so many that come meanwhile."""
        first = publish("first")
        assert client.began.acquire(timeout=10)
        futures = [first]
        for id_ in ids:
            futures.append(publish(id_, **arguments))
            time.sleep(0.01)  # so that they come in this order
        return futures

    def test_goes_what_comes_while_a_request_is_under_way(
        self, publish: Callable[..., Future[None]], client: Bus
    ) -> None:
        futures = self.waiting(publish, client, "a", "b", "c")
        client.may_answer.release(2)

        assert [future.result(10) for future in futures] == [None] * 4
        assert client.requests == [["first"], ["a", "b", "c"]]

    def test_go_ten_at_the_most(self, publish: Callable[..., Future[None]], client: Bus) -> None:
        futures = self.waiting(publish, client, *(f"{number:02}" for number in range(25)))
        client.may_answer.release(4)

        assert [future.result(10) for future in futures] == [None] * 26
        assert list(map(len, client.requests)) == [1, 10, 10, 5]

    def test_goes_no_more_than_a_request_may_have(self, publish: Callable[..., Future[None]], client: Bus) -> None:
        futures = self.waiting(publish, client, "a", "b", "c", padding=100_000)
        client.may_answer.release(3)

        assert [future.result(10) for future in futures] == [None] * 4
        assert client.requests == [["first"], ["a", "b"], ["c"]]

    def test_each_is_told_its_own_result(self, publish: Callable[..., Future[None]], client: Bus) -> None:
        client.refused = {"b"}
        _, taken, refused_ = self.waiting(publish, client, "a", "b")
        client.may_answer.release(2)

        assert taken.result(10) is None
        with pytest.raises(RenameFailedError, match="OutcomeNotPublished"):
            refused_.result(10)

    @pytest.mark.parametrize("error", [ClientError({"Error": {"Code": "Throttling"}}, "PutEvents"), KeyError("x")])
    def test_all_are_told_what_became_of_the_request(
        self, publish: Callable[..., Future[None]], client: Bus, error: Exception
    ) -> None:
        futures = self.waiting(publish, client, "a", "b")
        client.error = error
        client.may_answer.release(2)

        for future in futures:
            with pytest.raises((RenameFailedError, KeyError)):
                future.result(10)
        # then: the bus is ready for the next
        client.error = None
        client.may_answer.release()
        assert publish("next").result(10) is None

    def test_that_were_on_their_way_when_a_thread_was_ended_are_not_taken_for_published(
        self, publish: Callable[..., Future[None]], client: Bus
    ) -> None:
        first, sender, other = self.waiting(publish, client, "a", "b")
        client.may_answer.release()
        assert first.result(10) is None
        assert client.began.acquire(timeout=10)
        client.error = SystemExit()
        client.may_answer.release()

        results = [future.exception(10) for future in (sender, other)]

        assert {type(result) for result in results} == {SystemExit, RenameFailedError}

    def test_wait_no_longer_than_their_own_deadlines(self, publish: Callable[..., Future[None]], client: Bus) -> None:
        first, left = self.waiting(publish, client, "a", deadline=within(0.1))

        with pytest.raises(RenameFailedError, match="OutcomeNotPublished"):
            left.result(5)

        assert not first.done()
        client.may_answer.release(2)
        assert first.result(10) is None
        assert publish("next").result(10) is None
        assert client.requests == [["first"], ["next"]]

    def test_without_time_do_not_wait_at_all(
        self, publish: Callable[..., Future[None]], client: Bus, clock: FakeClock
    ) -> None:
        _, left = self.waiting(publish, client, "a", deadline=clock.until(0))

        with pytest.raises(RenameFailedError, match="OutcomeNotPublished"):
            left.result(5)

    def test_share_a_request_that_ends_by_the_deadline_of_who_sends_it(
        self, publish: Callable[..., Future[None]], client: Bus, clock: FakeClock
    ) -> None:
        client.may_answer.release(2)
        for seconds in (3.0, 60.0):
            assert publish("a", deadline=clock.until(seconds)).result(10) is None

        assert client.seconds == [3.0, MAX_REQUEST_SECONDS]

    def test_do_not_depend_on_a_request_that_hangs(
        self, publish: Callable[..., Future[None]], client: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As while it looks up a name, or in a thread that outlives its invocation."""
        monkeypatch.setattr("function.adapters.aws.eventbridge.MAX_REQUEST_SECONDS", 0.1)
        hanging = publish("first", deadline=within(60))
        assert client.began.acquire(timeout=10)

        second = publish("second", deadline=within(60))
        assert client.began.acquire(timeout=10)
        client.may_answer.release(2)

        assert (hanging.result(10), second.result(10)) == (None, None)
        assert client.requests == [["first"], ["second"]]

    def test_that_went_with_a_request_that_hangs_go_again(
        self, publish: Callable[..., Future[None]], client: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("function.adapters.aws.eventbridge.MAX_PUBLISH_ATTEMPTS", 2)
        monkeypatch.setattr("function.adapters.aws.eventbridge.MAX_REQUEST_SECONDS", 0.2)
        _, *both = self.waiting(publish, client, "a", "b", deadline=within(60))
        client.may_answer.release()
        assert client.began.acquire(timeout=10)
        assert client.requests[1:] == [["a", "b"]]

        assert client.began.acquire(timeout=10)

        client.may_answer.release(2)
        assert [published.result(10) for published in both] == [None, None]
        # then: whichever of the two did not send the request that hangs
        assert client.requests[2:] in ([["a"]], [["b"]])
