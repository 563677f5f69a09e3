"""Stops calls with a rejected key before Huawei Cloud locks it."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPStatus
from typing import Final

from function.adapters.huawei.credentials import Credentials
from function.domain import failures
from function.domain.deadline import MIN_CALL_SECONDS, Deadline
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import Target
from function.domain.ports import ReadPurpose, Reply

# Five wrong signatures in a row lock a key for five minutes. A rejected key is not used for this long.
REFUSED_KEY_PAUSE_SECONDS: Final = 60.0
# How long an accepted key is assumed to be valid.
ACCEPTED_KEY_SECONDS: Final = 60.0
# After this many in a row the key is used only for the default project.
MAX_REFUSALS_OF_OTHER_PROJECTS: Final = 2
MAX_REMEMBERED_REFUSALS: Final = 1_000

# Scopes of rejections, in addition to regions with projects, and services.
_EVERY_CALL: Final = "every call"
_OTHER_PROJECTS: Final = "other projects"


class _Probe:
    """The lock that one call at a time holds.

    Attributes:
        deadline: of the call that holds it, or held it last.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.deadline = Deadline(0.0, 0.0)


@dataclass(eq=False, repr=False)
class KeyGuard:
    """Records whether a key was accepted recently, and for what it was rejected.

    Five wrong signatures in a row lock a key. So calls are made one at a time until one is accepted, and what was
    rejected is not called for a minute. A 401 for the default project concerns the key. A 401 for another project or
    region may concern only that one; after two in a row, only the default project is called. Any other rejection
    concerns only the endpoint service.

    Attributes:
        region: the default region.
        invalidate: called with a rejected key.
        now: seconds since the epoch.
    """

    credentials: Credentials
    region: str
    _: KW_ONLY
    invalidate: Callable[[Credentials], None]
    now: Callable[[], float]
    _probe: _Probe = field(init=False, default_factory=_Probe)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _accepted_until: float = field(init=False, default=0.0)
    _refused_in_a_row: int = field(init=False, default=0)
    _refusals: dict[object, tuple[float, Failure]] = field(init=False, default_factory=dict)

    def call(self, target: Target, send: Callable[[], Reply], deadline: Deadline, purpose: ReadPurpose) -> Reply:
        """Make a call and record its result. Until the key is known to be accepted, one call is made at a time.

        Raises:
            RenameFailedError: the call's failure. Not counted as an attempt: an earlier rejection, or no time left.
        """
        if not self._is_accepted():
            with self._probing(deadline):
                if not self._is_accepted():
                    return self._call_and_record(target, send, deadline, purpose)
        return self._call_and_record(target, send, deadline, purpose)

    def raise_if_rejected(self, target: Target) -> None:
        """Raises RenameFailedError, not counted as an attempt, if a call for this target was rejected recently."""
        now = self.now()
        with self._lock:
            for scope in self._scopes(target):
                until, failure = self._refusals.get(scope, (0.0, None))
                if failure is not None and now < until:
                    raise RenameFailedError(failure._replace(counts_as_attempt=False))

    @contextmanager
    def _probing(self, deadline: Deadline) -> Iterator[None]:
        probe = self._probe
        if not probe.lock.acquire(blocking=False):
            probe = self._wait_for_probe(deadline)
        try:
            probe.deadline = deadline
            yield
        finally:
            probe.lock.release()

    def _wait_for_probe(self, deadline: Deadline) -> _Probe:
        while (seconds := deadline.remaining() - MIN_CALL_SECONDS) > 0:
            probe = self._probe
            if probe.lock.acquire(timeout=min(seconds, max(MIN_CALL_SECONDS, probe.deadline.remaining()))):
                return probe
            if probe.deadline.remaining() < 0:
                # It hangs before its request, which it can no longer send after its deadline.
                with self._lock:
                    if self._probe is probe:
                        self._probe = _Probe()
        raise _not_called()

    def _is_accepted(self) -> bool:
        return self.now() < self._accepted_until

    def _call_and_record(
        self, target: Target, send: Callable[[], Reply], deadline: Deadline, purpose: ReadPurpose
    ) -> Reply:
        self.raise_if_rejected(target)
        if deadline.remaining() <= 0:
            raise _not_called()
        try:
            reply = send()
        except RenameFailedError as error:
            failure = error.failure
            is_about_the_key = failure.http_status == HTTPStatus.UNAUTHORIZED or purpose is not ReadPurpose.OUTCOME
            if failure.kind is Kind.ACCESS and is_about_the_key:
                self._refuse(target, failure)
            elif failure.code.lower().startswith("endpoint."):  # VPCEP's own: the gateway has accepted the key
                self._accept()
            raise
        if reply.name is not None:
            self._accept()
        return reply

    def _accept(self) -> None:
        with self._lock:
            self._accepted_until = self.now() + ACCEPTED_KEY_SECONDS
            self._refused_in_a_row = 0
            self._refusals.pop(_OTHER_PROJECTS, None)

    def _refuse(self, target: Target, failure: Failure) -> None:
        self.invalidate(self.credentials)  # first: a thread that sees the rejection asks for another key at once
        with self._lock:
            now = self.now()
            self._refusals = {scope: refusal for scope, refusal in self._refusals.items() if now < refusal[0]}
            while len(self._refusals) > MAX_REMEMBERED_REFUSALS:
                del self._refusals[next(iter(self._refusals))]
            for scope in self._refused_scopes(target, failure):
                self._refusals[scope] = now + REFUSED_KEY_PAUSE_SECONDS, failure

    def _refused_scopes(self, target: Target, failure: Failure) -> Iterable[object]:
        every_call, *others, place, service = self._scopes(target)
        if failure.http_status != HTTPStatus.UNAUTHORIZED:
            return [service]
        self._accepted_until = 0.0
        self._refused_in_a_row += 1
        if not others:
            return [every_call]
        return [*others, place] if self._refused_in_a_row >= MAX_REFUSALS_OF_OTHER_PROJECTS else [place]

    def _scopes(self, target: Target) -> list[object]:
        """The scopes of rejections that include a target, from all calls to only its service."""
        place = target.region, target.project_id
        others = [] if place == (self.region, self.credentials.project_id) else [_OTHER_PROJECTS]
        return [_EVERY_CALL, *others, place, (*place, target.vpc_endpoint_service_id.casefold())]


def _not_called() -> RenameFailedError:
    return RenameFailedError(failures.no_time_left()._replace(counts_as_attempt=False))
