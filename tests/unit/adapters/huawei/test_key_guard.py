"""A key that Huawei Cloud refuses is not tried again at once; rotation of keys, and failures to get one."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from function.adapters.huawei.credentials import Credentials
from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.adapters.huawei.error_codes import from_reply
from function.adapters.huawei.key_guard import MAX_REMEMBERED_REFUSALS, KeyGuard
from function.domain import failures
from function.domain.deadline import MIN_CALL_SECONDS, Deadline
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import Target
from function.domain.ports import ReadPurpose, Reply
from tests.deadlines import lasting_less_than, within
from tests.fakes.clock import MovedClock
from tests.fakes.failures import failed, refusal
from tests.fakes.identifiers import OTHER_PROJECT, OTHER_REGION, OTHER_SERVICE, PROJECT, REGION, SERVICE
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.huawei.clients import (
    KEY,
    LONG,
    SHORT,
    TARGET,
    Keys,
    adapter,
    in_parallel,
    rename,
    rename_failure,
)

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
WRONG_KEY = KEY._replace(secret_key="another-secret-key")


def target(project: str = PROJECT, service: str = SERVICE, region: str = REGION) -> Target:
    return Target(region, project, service)


# ---- The key guard


ACCEPTED = Reply("orders", 200, None)
ALL_TARGETS = (
    target(),
    target(service=OTHER_SERVICE),
    target(OTHER_PROJECT),
    target(OTHER_PROJECT, OTHER_SERVICE),
    target(region=OTHER_REGION),
    target(OTHER_PROJECT, OTHER_SERVICE, OTHER_REGION),
)


@pytest.fixture
def guard(clock: MovedClock) -> KeyGuard:
    return KeyGuard(KEY, REGION, invalidate=lambda _: None, now=clock)


def test_waiting_call_that_runs_out_of_time_does_not_release_the_probe_of_another(guard: KeyGuard) -> None:
    has_begun, may_end = threading.Event(), threading.Event()
    sent: list[str] = []

    def hang() -> Reply:
        has_begun.set()
        may_end.wait(LONG)
        return ACCEPTED

    def send() -> Reply:
        sent.append("concurrently")
        return ACCEPTED

    now = time.time()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(guard.call, target(), hang, Deadline(now + 0.95, now + LONG), ReadPurpose.DECISION)
        has_begun.wait(LONG)
        for _ in range(2):
            waiting = time.time() + MIN_CALL_SECONDS + 0.05
            failed(guard.call, target(), send, Deadline(waiting, waiting + LONG), ReadPurpose.DECISION)
        may_end.set()
        first.result()

    assert sent == []


def result_of(
    guard: KeyGuard, to: Target, answer: Reply | Failure, purpose: ReadPurpose = ReadPurpose.DECISION
) -> Failure | None:
    """The failure of a call that is answered so, if it is made."""

    def send() -> Reply:
        if isinstance(answer, Failure):
            raise RenameFailedError(answer)
        return answer

    [result] = in_parallel(1, lambda _: guard.call(to, send, within(LONG), purpose))
    return result if isinstance(result, Failure) else None


def rejected_targets(guard: KeyGuard) -> list[Target]:
    """The targets for which no call would be made."""
    rejected = []
    for each in ALL_TARGETS:
        try:
            guard.raise_if_rejected(each)
        except RenameFailedError as error:
            rejected += [each] * (not error.failure.counts_as_attempt)
    return rejected


@pytest.mark.parametrize(
    ("code", "status", "to", "concerned"),
    [
        ("APIGW.0301", 401, target(), ALL_TARGETS),
        (None, 401, target(), ALL_TARGETS),
        ("EndPoint.0003", 401, target(), ALL_TARGETS),
        ("APIGW.0301", 401, target(OTHER_PROJECT), [target(OTHER_PROJECT), target(OTHER_PROJECT, OTHER_SERVICE)]),
        ("APIGW.0307", 401, target(region=OTHER_REGION), [target(region=OTHER_REGION)]),
        ("APIGW.0302", 403, target(), [target()]),
        ("EndPoint.0004", 403, target(), [target()]),
        (None, 403, target(), [target()]),
        ("APIGW.0101", 404, target(), [target()]),
        ("APIGW.0501", 405, target(), [target()]),
        ("EndPoint.0014", 400, target(), [target()]),
        ("APIGW.0304", 403, target(OTHER_PROJECT), [target(OTHER_PROJECT)]),
        ("EndPoint.0004", 403, target(service=SERVICE.upper()), [target()]),
    ],
)
def test_refusal_is_remembered_for_a_minute_for_the_targets_that_it_concerns(
    guard: KeyGuard, clock: MovedClock, code: str | None, status: int, to: Target, concerned: Sequence[Target]
) -> None:
    refusal = from_reply(code, "No.", status=status)

    assert result_of(guard, to, refusal) == refusal

    assert rejected_targets(guard) == list(concerned)
    # then: for a minute
    clock.ahead += 59
    assert rejected_targets(guard) == list(concerned)
    clock.ahead += 2
    assert rejected_targets(guard) == []


@pytest.mark.parametrize(
    ("purpose", "code", "status", "rejected"),
    [
        (ReadPurpose.OUTCOME, "EndPoint.0004", 403, []),
        (ReadPurpose.OUTCOME, "APIGW.0301", 401, ALL_TARGETS),
        (ReadPurpose.DRY_RUN, "EndPoint.0004", 403, [target()]),
        (ReadPurpose.DRY_RUN, "APIGW.0301", 401, ALL_TARGETS),
    ],
)
def test_refused_read_is_remembered_depending_on_its_purpose(
    guard: KeyGuard, purpose: ReadPurpose, code: str, status: int, rejected: Sequence[Target]
) -> None:
    result_of(guard, target(), refusal(code, status), purpose)

    assert rejected_targets(guard) == list(rejected)


def test_two_projects_refused_in_a_row_reject_all_but_the_default_one(guard: KeyGuard) -> None:
    result_of(guard, target("project-2"), refusal("APIGW.0301", 401))
    result_of(guard, target("project-3"), refusal("APIGW.0301", 401))

    assert rejected_targets(guard) == [each for each in ALL_TARGETS if each[:2] != (REGION, PROJECT)]
    # when the default project proves the key
    result_of(guard, target(), ACCEPTED)
    # then: what was refused stays so, and nothing else
    assert rejected_targets(guard) == []
    with pytest.raises(RenameFailedError):
        guard.raise_if_rejected(target("project-2"))


def test_success_between_two_refused_projects_shows_that_the_key_is_valid(guard: KeyGuard) -> None:
    result_of(guard, target("project-2"), refusal("APIGW.0301", 401))
    result_of(guard, target(OTHER_PROJECT), ACCEPTED)
    result_of(guard, target("project-3"), refusal("APIGW.0301", 401))

    assert rejected_targets(guard) == []


def test_number_of_remembered_refusals_is_bounded(guard: KeyGuard) -> None:
    for number in range(MAX_REMEMBERED_REFUSALS + 100):
        result_of(guard, target(service=f"service-{number}"), refusal("EndPoint.0004", 403))

    assert len(guard._refusals) <= MAX_REMEMBERED_REFUSALS + 1
    with pytest.raises(RenameFailedError):
        guard.raise_if_rejected(target(service=f"service-{MAX_REMEMBERED_REFUSALS + 99}"))


@pytest.mark.parametrize(
    ("result", "accepts"),
    [
        (ACCEPTED, True),
        (Reply("", 200, None), True),
        (refusal("EndPoint.2003", 400), True),
        (refusal("EndPoint.0001", 500), True),
        (refusal("EndPoint.0022", 400), True),
        (refusal("endpoint.3045", 400), True),
        (Reply(None, 200, None), False),
        (Reply(None, 302, None), False),
        (from_reply(None, "", status=503), False),
        (from_reply(None, "", status=404), False),
        (from_reply(None, "", status=429), False),
        (from_reply(None, "", status=400), False),
        (refusal("APIGW.0308", 429), False),
        (refusal("APIGW.0201", 502), False),
        (refusal("APIGW.0201", 413), False),
        (refusal("APIGW.0601", 500), False),
        (refusal("EndPoint.0004", 403), False),
        (failures.unconfirmed_reply(200, None), False),
        (failures.timeout(in_doubt=True), False),
        (failures.connection_failed(), False),
    ],
    ids=lambda value: f"{value.code}-{value.http_status}" if isinstance(value, Failure) else repr(value),
)
def test_answer_of_vpcep_accepts_the_key_and_only_a_failure_of_access_is_remembered(
    guard: KeyGuard, result: Reply | Failure, accepts: bool
) -> None:
    result_of(guard, target(), result)

    assert guard._is_accepted() is accepts
    is_refusal = isinstance(result, Failure) and result.kind is Kind.ACCESS
    assert rejected_targets(guard) == ([target()] if is_refusal else [])


@pytest.mark.parametrize(
    ("project", "answer", "is_accepted"),
    [
        (PROJECT, refusal("APIGW.0301", 401), False),
        (OTHER_PROJECT, refusal("APIGW.0301", 401), False),
        (PROJECT, refusal("EndPoint.0004", 403), True),
    ],
)
def test_acceptance_of_the_key_ends_with_a_refusal_of_the_key(
    guard: KeyGuard, project: str, answer: Failure, is_accepted: bool
) -> None:
    result_of(guard, target(), ACCEPTED)
    assert guard._is_accepted()

    result_of(guard, target(project), answer)

    assert guard._is_accepted() is is_accepted


def test_acceptance_of_the_key_lasts_a_minute_by_the_wall_clock(guard: KeyGuard, clock: MovedClock) -> None:
    result_of(guard, target(), ACCEPTED)

    clock.ahead += 61

    assert not guard._is_accepted()


# ---- Refused keys: five wrong signatures in a row lock a key for five minutes


def test_refused_key_is_tried_once_by_ten_threads_and_then_once_a_minute(cloud: HuaweiCloud) -> None:
    now = 1_000.0
    keys = Keys(WRONG_KEY)
    vpcep = adapter(cloud.url, keys, now=lambda: now)

    results = in_parallel(10, lambda _: rename(vpcep))

    found = {(result.code, result.kind, result.retry_in_process) for result in results}
    assert found == {("APIGW.0301", Kind.ACCESS, False)}
    assert len(cloud.calls) == len(keys.invalidated) == 1

    # when: not yet a minute later
    now += 59
    assert rename_failure(vpcep).code == "APIGW.0301"
    assert failed(vpcep.read, TARGET, within(LONG)).code == "APIGW.0301"
    assert len(cloud.calls) == 1

    # when: more than a minute later
    now += 2
    in_parallel(10, lambda _: rename(vpcep))
    assert len(cloud.calls) == 2


def test_refused_key_is_tried_twice_for_other_projects_and_once_more_for_its_own(cloud: HuaweiCloud) -> None:
    projects = [f"project-{number}" for number in range(10)]
    for project in projects:
        cloud.add_project(project)
    vpcep = adapter(cloud.url, Keys(WRONG_KEY))

    in_parallel(10, lambda n: rename(vpcep, target=target(projects[n])))
    assert len(cloud.calls) == 2

    # then: two fewer than lock it
    in_parallel(10, lambda _: rename(vpcep))
    assert len(cloud.calls) == 3


def test_accepted_key_that_is_refused_is_not_tried_again(cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
    # given: a key that worked, and was taken away
    rename(vpcep)
    cloud.set_credentials(KEY.access_key, "rotated-secret-key")

    refusals = [rename_failure(vpcep) for _ in range(5)]

    assert {refusal.code for refusal in refusals} == {"APIGW.0301"}
    assert [call.authenticated for call in cloud.calls] == [True, False]


@pytest.mark.parametrize(
    "answer", [{"kind": "slow"}, {"status": 400, "code": "EndPoint.2003"}], ids=["success", "failure"]
)
def test_unknown_key_delays_concurrent_calls_by_one_call_at_most(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, answer: dict[str, Any]
) -> None:
    cloud.fail(delay=SHORT, times=None, **answer)

    # then: one call alone, then nine concurrently
    with lasting_less_than(6 * SHORT):
        in_parallel(10, lambda _: rename(vpcep))


# ---- Credentials


def test_changed_key_is_used_by_the_next_call(cloud: HuaweiCloud) -> None:
    keys = Keys()
    vpcep = adapter(cloud.url, keys)
    rename(vpcep)

    keys.key = KEY._replace(access_key="ROTATED", secret_key="rotated-secret-key")
    cloud.set_credentials("ROTATED", "rotated-secret-key")

    assert rename(vpcep, "billing").name == "billing"
    assert all(call.authenticated for call in cloud.calls)


def test_refused_key_is_invalidated(cloud: HuaweiCloud) -> None:
    keys = Keys(WRONG_KEY, next=KEY)
    vpcep = adapter(cloud.url, keys)

    failure = rename_failure(vpcep)

    # then: another try at once is worth it
    assert (failure.kind, failure.retry_in_process, keys.invalidated) == (Kind.ACCESS, True, [WRONG_KEY])
    assert rename(vpcep).name == "orders"


def test_refusal_is_reported_if_there_is_no_key_after_it(cloud: HuaweiCloud) -> None:
    keys = Keys(WRONG_KEY, next=failures.credentials("none", kind=Kind.UNAVAILABLE))

    failure = rename_failure(adapter(cloud.url, keys))

    assert (failure.code, failure.retry_in_process) == ("APIGW.0301", False)


def test_failure_of_the_credentials_is_reported(cloud: HuaweiCloud) -> None:
    failure = failures.credentials("The secret is gone.", kind=Kind.ACCESS)
    vpcep = adapter(cloud.url, Keys(failure))

    assert rename_failure(vpcep) == failure
    assert failed(vpcep.read, TARGET, within(LONG)) == failure
    assert cloud.calls == []


def test_concurrent_calls_that_are_refused_are_retried_with_the_new_key(cloud: HuaweiCloud) -> None:
    class SlowKeys(Keys):
        def invalidate(self, key: Credentials) -> None:
            time.sleep(SHORT)
            super().invalidate(key)

    vpcep = adapter(cloud.url, SlowKeys(WRONG_KEY, next=KEY))

    results = in_parallel(4, lambda _: rename(vpcep))

    assert [failure.retry_in_process for failure in results] == [True] * 4
    assert len(cloud.calls) == 1


def test_older_key_does_not_replace_a_newer_one(cloud: HuaweiCloud) -> None:
    """A thread is slow to take the old key to a call: by then it is known to be refused."""
    has_begun = threading.Event()

    def first_is_slow() -> None:
        if not has_begun.is_set():
            has_begun.set()
            time.sleep(SHORT)

    vpcep = adapter(cloud.url, Keys(WRONG_KEY, next=KEY, after_get=first_is_slow))

    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(rename_failure, vpcep)
        has_begun.wait(LONG)
        with suppress(RenameFailedError):  # unless the slow one has found out by now
            rename(vpcep)
        assert rename(vpcep).name == "orders"

    assert slow.result().retry_in_process
    assert [call.authenticated for call in cloud.calls].count(False) == 1


def test_credentials_that_hang_do_not_delay_other_calls(cloud: HuaweiCloud) -> None:
    may_end, hangs = threading.Event(), threading.Event()

    def first_hangs() -> None:
        if not hangs.is_set():
            hangs.set()
            may_end.wait(LONG)

    vpcep = adapter(cloud.url, Keys(after_get=first_hangs))
    with ThreadPoolExecutor(1) as threads:
        stuck = threads.submit(vpcep.rename, TARGET, "orders", within(LONG))
        hangs.wait(LONG)

        with lasting_less_than(1.0):
            assert rename(vpcep, "billing").name == "billing"

        may_end.set()
        assert stuck.result().name == "orders"
