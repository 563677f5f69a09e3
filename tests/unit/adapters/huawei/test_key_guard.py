"""A key that Huawei Cloud refuses is not tried again at once; rotations and keys that cannot be had."""

from __future__ import annotations

import socket
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
from function.domain.ports import Reply
from tests.deadlines import within
from tests.fakes.clock import MovedClock
from tests.fakes.failures import failed, refusal
from tests.fakes.identifiers import OTHER_PROJECT, OTHER_SERVICE, PROJECT, REGION, SERVICE
from tests.fakes.raw_server import RawServer, receive_request
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.huawei.clients import (
    KEY,
    LONG,
    SHORT,
    TARGET,
    adapter,
    http_reply,
    in_parallel,
    rename_failure,
)

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
WRONG_KEY = KEY._replace(secret_key="another-secret-key")


def target(project: str = PROJECT, service: str = SERVICE, region: str = REGION) -> Target:
    return Target(region, project, service)


class TestTheKeyGuard:
    """Who is concerned by a refusal, and what proves a key."""

    OTHER_REGION = "eu-west-101"
    EVERYBODY = (
        target(),
        target(service=OTHER_SERVICE),
        target(OTHER_PROJECT),
        target(region=OTHER_REGION),
        target(OTHER_PROJECT, OTHER_SERVICE, OTHER_REGION),
    )

    @pytest.fixture
    def guard(self, clock: MovedClock) -> KeyGuard:
        return KeyGuard(KEY, REGION, invalidate=lambda _: None, now=clock)

    def test_call_in_progress_keeps_its_turn_when_a_waiting_call_runs_out_of_time(self, guard: KeyGuard) -> None:
        has_begun, goes_on = threading.Event(), threading.Event()
        sent: list[str] = []

        def hang() -> Reply:
            has_begun.set()
            goes_on.wait(LONG)
            return Reply("orders", 200, None)

        def send() -> Reply:
            sent.append("concurrently")
            return Reply("orders", 200, None)

        now = time.time()
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(guard.call, target(), hang, Deadline(now + 0.95, now + LONG))
            has_begun.wait(LONG)
            for _ in range(2):
                waiting = time.time() + MIN_CALL_SECONDS + 0.05
                failed(guard.call, target(), send, Deadline(waiting, waiting + LONG))
            goes_on.set()
            first.result()

        assert sent == []

    def call(self, guard: KeyGuard, to: Target, result: Reply | Failure) -> Failure | None:
        """The failure that a call ends in whose answer is this, if it is made."""

        def send() -> Reply:
            if isinstance(result, Failure):
                raise RenameFailedError(result)
            return result

        try:
            guard.call(to, send, within(LONG))
        except RenameFailedError as error:
            return error.failure
        return None

    def refused(self, guard: KeyGuard) -> list[Target]:
        """Those of everybody for whom no call would be made."""
        found = []
        for one in self.EVERYBODY:
            try:
                guard.raise_if_rejected(one)
            except RenameFailedError as error:
                found += [one] * (not error.failure.counts_as_attempt)
        return found

    @pytest.mark.parametrize(
        ("code", "status", "to", "concerned"),
        [
            ("APIGW.0301", 401, target(), EVERYBODY),
            (None, 401, target(), EVERYBODY),
            ("EndPoint.0003", 401, target(), EVERYBODY),
            ("APIGW.0301", 401, target(OTHER_PROJECT), [target(OTHER_PROJECT)]),
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
    def test_a_refusal_concerns(
        self,
        guard: KeyGuard,
        clock: MovedClock,
        code: str | None,
        status: int,
        to: Target,
        concerned: Sequence[Target],
    ) -> None:
        refusal = from_reply(code, "No.", status=status)

        assert self.call(guard, to, refusal) == refusal

        assert self.refused(guard) == list(concerned)
        # then: for a minute
        clock.ahead += 59
        assert self.refused(guard) == list(concerned)
        clock.ahead += 2
        assert self.refused(guard) == []

    def test_a_refused_project_holds_for_its_services_in_its_region(self, guard: KeyGuard) -> None:
        self.call(guard, target(OTHER_PROJECT), refusal("APIGW.0301", 401))

        with pytest.raises(RenameFailedError):
            guard.raise_if_rejected(target(OTHER_PROJECT, OTHER_SERVICE))
        guard.raise_if_rejected(target(OTHER_PROJECT, OTHER_SERVICE, self.OTHER_REGION))

    def test_two_projects_refused_in_a_row_concern_all_but_the_default_one(self, guard: KeyGuard) -> None:
        self.call(guard, target("project-2"), refusal("APIGW.0301", 401))
        self.call(guard, target("project-3"), refusal("APIGW.0301", 401))

        assert self.refused(guard) == [one for one in self.EVERYBODY if one[:2] != (REGION, PROJECT)]
        # when the default project proves the key
        self.call(guard, target(), Reply("orders", 200, None))
        # then: what was refused stays so, and nothing else
        assert self.refused(guard) == []
        with pytest.raises(RenameFailedError):
            guard.raise_if_rejected(target("project-2"))

    def test_a_success_between_two_refused_projects_tells_them_from_the_key(self, guard: KeyGuard) -> None:
        self.call(guard, target("project-2"), refusal("APIGW.0301", 401))
        self.call(guard, target(OTHER_PROJECT), Reply("orders", 200, None))
        self.call(guard, target("project-3"), refusal("APIGW.0301", 401))

        assert self.refused(guard) == []

    def test_refusals_are_remembered_within_bounds(self, guard: KeyGuard) -> None:
        for number in range(MAX_REMEMBERED_REFUSALS + 100):
            self.call(guard, target(service=f"service-{number}"), refusal("EndPoint.0004", 403))

        assert len(guard._refusals) <= MAX_REMEMBERED_REFUSALS + 1
        with pytest.raises(RenameFailedError):
            guard.raise_if_rejected(target(service=f"service-{MAX_REMEMBERED_REFUSALS + 99}"))

    @pytest.mark.parametrize(
        ("result", "accepts"),
        [
            (Reply("orders", 200, None), True),
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
            (failures.unconfirmed_reply(status=200, huawei_request_id=None), False),
            (failures.timeout(in_doubt=True), False),
            (failures.connection_failed(), False),
        ],
        ids=repr,
    )
    def test_an_answer_accepts_the_key(self, guard: KeyGuard, result: Reply | Failure, accepts: bool) -> None:
        self.call(guard, target(), result)
        at_once, most = 0, 0

        def send() -> Reply:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            time.sleep(0.02)
            at_once -= 1
            raise RenameFailedError(failures.connection_failed())

        in_parallel(8, lambda n: guard.call(target(service=f"service-{n}"), send, within(LONG)))

        assert (most > 1) is accepts

    @pytest.mark.parametrize("project", [PROJECT, OTHER_PROJECT])
    def test_a_refusal_of_the_key_ends_its_acceptance(self, guard: KeyGuard, project: str) -> None:
        self.call(guard, target(), Reply("orders", 200, None))
        assert guard._is_accepted()

        self.call(guard, target(project), refusal("APIGW.0301", 401))

        assert not guard._is_accepted()

    def test_a_missing_permission_does_not(self, guard: KeyGuard) -> None:
        self.call(guard, target(), Reply("orders", 200, None))
        self.call(guard, target(), refusal("EndPoint.0004", 403))

        assert guard._is_accepted()

    def test_an_acceptance_lasts_a_minute_by_the_wall_clock(self, guard: KeyGuard, clock: MovedClock) -> None:
        self.call(guard, target(), Reply("orders", 200, None))

        clock.ahead += 61

        assert not guard._is_accepted()

    def test_a_gateway_before_a_wrong_key_does_not_let_ten_signatures_through(self) -> None:
        answers = [http_reply("503 Service Unavailable")]
        requests = []

        def serve(connection: socket.socket) -> None:
            requests.append(receive_request(connection))
            connection.sendall(answers.pop() if answers else http_reply("401 No", b'{"error_code":"APIGW.0301"}'))

        with RawServer(serve) as server:
            vpcep = adapter(server.url)
            rename_failure(vpcep)

            in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", within(LONG)))

        assert len(requests) == 2


class TestAKeyThatIsRefused:
    """Five wrong signatures in a row lock it for five minutes."""

    def test_is_tried_once_by_ten_at_a_time_then_once_a_minute(self, cloud: HuaweiCloud) -> None:
        now = 1_000.0
        vpcep = adapter(cloud.url, lambda _: WRONG_KEY, now=lambda: now)

        # when
        results = in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", within(LONG)))

        # then
        assert [(result.code, result.kind, result.retry_in_process) for result in results] == [
            ("APIGW.0301", Kind.ACCESS, False)
        ] * 10
        assert len(cloud.calls) == 1

        # when: not yet a minute later
        now += 59
        assert rename_failure(vpcep).code == "APIGW.0301"
        assert failed(vpcep.read, TARGET, within(LONG)).code == "APIGW.0301"
        assert len(cloud.calls) == 1

        # when: more than a minute later
        now += 2
        in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", within(LONG)))
        assert len(cloud.calls) == 2

    def test_is_tried_twice_for_many_other_projects_and_once_more_for_its_own(self, cloud: HuaweiCloud) -> None:
        # given
        projects = [f"project-{number}" for number in range(10)]
        for project in projects:
            cloud.add_project(project)
        vpcep = adapter(cloud.url, lambda _: WRONG_KEY)

        # when
        in_parallel(10, lambda n: vpcep.rename(Target(REGION, projects[n], SERVICE), "orders", within(LONG)))
        assert len(cloud.calls) == 2

        # then: two fewer than lock it
        in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", within(LONG)))
        assert len(cloud.calls) == 3

    def test_works_again_when_it_was_put_right_on_the_other_side(self, cloud: HuaweiCloud) -> None:
        now = 1_000.0
        vpcep = adapter(cloud.url, lambda _: WRONG_KEY, now=lambda: now)
        rename_failure(vpcep)
        cloud.set_credentials(WRONG_KEY.access_key, WRONG_KEY.secret_key)

        # when
        now += 61

        # then
        assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"
        assert vpcep.rename(TARGET, "billing", within(LONG)).name == "billing"

    def test_gives_way_to_a_new_key_at_once(self, cloud: HuaweiCloud) -> None:
        keys = [WRONG_KEY]
        vpcep = adapter(cloud.url, lambda _: keys[-1])
        rename_failure(vpcep)

        # when
        keys.append(KEY)

        # then
        assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"

    def test_after_it_was_good_is_not_tried_again_either(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices
    ) -> None:
        # given: a key that worked, and was taken away
        vpcep.rename(TARGET, "orders", within(LONG))
        cloud.set_credentials(KEY.access_key, "rotated-secret-key")

        # when
        refusals = [rename_failure(vpcep) for _ in range(5)]

        # then
        assert {refusal.code for refusal in refusals} == {"APIGW.0301"}
        assert [call.authenticated for call in cloud.calls] == [True, False]

    @pytest.mark.parametrize(
        ("code", "status"),
        [("EndPoint.2003", 400), ("EndPoint.0001", 500), ("APIGW.0308", 429), ("EndPoint.3045", 400)],
    )
    def test_is_another_thing_than_a_call_that_fails(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, code: str, status: int
    ) -> None:
        cloud.fail(status, code)
        rename_failure(vpcep)

        assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"

    def test_is_another_thing_than_a_lost_connection(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.fail(kind="reset")
        rename_failure(vpcep)

        assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"

    @pytest.mark.parametrize(
        "answer", [{"kind": "slow"}, {"status": 400, "code": "EndPoint.2003"}], ids=["success", "failure"]
    )
    def test_or_is_not_known_yet_holds_up_nobody_for_longer_than_one_call(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, answer: dict[str, Any]
    ) -> None:
        # given
        cloud.fail(delay=SHORT, times=None, **answer)
        began = time.monotonic()

        # when
        in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", within(LONG)))

        # then: one call alone, then nine side by side
        assert time.monotonic() - began < 6 * SHORT


class TestCredentials:
    def test_that_change_are_picked_up_by_the_next_call(self, cloud: HuaweiCloud) -> None:
        keys = [KEY]
        vpcep = adapter(cloud.url, lambda _: keys[-1])
        vpcep.rename(TARGET, "orders", within(LONG))

        # when
        keys.append(KEY._replace(access_key="ROTATED", secret_key="rotated-secret-key"))
        cloud.set_credentials("ROTATED", "rotated-secret-key")

        # then
        assert vpcep.rename(TARGET, "billing", within(LONG)).name == "billing"
        assert all(call.authenticated for call in cloud.calls)

    def test_that_were_refused_are_asked_for_again(self, cloud: HuaweiCloud) -> None:
        keys, invalidated = [WRONG_KEY], []

        def invalidate(key: Credentials) -> None:
            invalidated.append(key)
            keys.append(KEY)

        vpcep = adapter(cloud.url, lambda _: keys[-1], invalidate=invalidate)

        failure = rename_failure(vpcep)

        # then: another try at once is worth it
        assert (failure.kind, failure.retry_in_process, invalidated) == (Kind.ACCESS, True, [WRONG_KEY])
        assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"

    def test_that_are_refused_and_stay_are_not_tried_at_once(self, cloud: HuaweiCloud) -> None:
        invalidated: list[Credentials] = []
        vpcep = adapter(cloud.url, lambda _: WRONG_KEY, invalidate=invalidated.append)

        failures_ = [rename_failure(vpcep) for _ in range(3)]

        assert [failure.retry_in_process for failure in failures_] == [False] * 3
        # then: only a call that was made asks for another key
        assert invalidated == [WRONG_KEY]
        assert len(cloud.calls) == 1

    def test_that_cannot_be_had_after_a_refusal_leave_the_refusal(self, cloud: HuaweiCloud) -> None:
        keys = [WRONG_KEY]

        def credentials(_: Deadline) -> Credentials:
            if not keys:
                raise RenameFailedError(failures.credentials("none", kind=Kind.UNAVAILABLE))
            return keys[-1]

        vpcep = adapter(cloud.url, credentials, invalidate=keys.remove)

        failure = rename_failure(vpcep)

        assert (failure.code, failure.retry_in_process) == ("APIGW.0301", False)

    def test_that_cannot_be_had_say_why(self, cloud: HuaweiCloud) -> None:
        failure = failures.credentials("The secret is gone.", kind=Kind.ACCESS)

        def credentials(_: Deadline) -> Credentials:
            raise RenameFailedError(failure)

        vpcep = adapter(cloud.url, credentials)

        assert rename_failure(vpcep) == failure
        assert failed(vpcep.read, TARGET, within(LONG)) == failure
        assert cloud.calls == []


class TestARotationAmidCalls:
    """Threads that meet it find the new key, whichever of them is first."""

    def test_who_sees_a_refusal_finds_the_new_key(self, cloud: HuaweiCloud) -> None:
        keys = [WRONG_KEY]

        def invalidate(key: Credentials) -> None:
            time.sleep(SHORT)
            keys[0] = KEY

        vpcep = adapter(cloud.url, lambda _: keys[0], invalidate=invalidate)

        with ThreadPoolExecutor(4) as threads:
            failures_ = list(threads.map(lambda _: rename_failure(vpcep), range(4)))

        assert [failure.retry_in_process for failure in failures_] == [True] * 4
        assert len(cloud.calls) == 1

    def test_an_older_key_does_not_take_the_place_of_a_newer_one(self, cloud: HuaweiCloud) -> None:
        """A thread is slow to take the old key to a call: by then it is known to be refused."""
        keys, has_begun = [WRONG_KEY], threading.Event()

        def credentials(_: Deadline) -> Credentials:
            key = keys[0]
            if not has_begun.is_set():
                has_begun.set()
                time.sleep(SHORT)
            return key

        def invalidate(key: Credentials) -> None:
            keys[0] = KEY

        vpcep = adapter(cloud.url, credentials, invalidate=invalidate)

        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(rename_failure, vpcep)
            has_begun.wait(LONG)
            with suppress(RenameFailedError):  # unless the slow one has found out by now
                vpcep.rename(TARGET, "orders", within(LONG))
            assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"

        assert slow.result().retry_in_process
        assert [call.authenticated for call in cloud.calls].count(False) == 1


class TestAQuestionForTheKeyThatHangs:
    def test_holds_up_nobody_else(self, cloud: HuaweiCloud) -> None:
        goes_on, hangs = threading.Event(), threading.Event()

        def credentials(_: Deadline) -> Credentials:
            if not hangs.is_set():
                hangs.set()
                goes_on.wait(LONG)
            return KEY

        vpcep = adapter(cloud.url, credentials)
        with ThreadPoolExecutor(1) as threads:
            stuck = threads.submit(vpcep.rename, TARGET, "orders", within(LONG))
            hangs.wait(LONG)
            began = time.monotonic()

            assert vpcep.rename(TARGET, "billing", within(LONG)).name == "billing"
            assert time.monotonic() - began < 1.0

            goes_on.set()
            assert stuck.result().name == "orders"
