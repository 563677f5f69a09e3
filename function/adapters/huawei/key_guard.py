"""Whether a key may be used: keeps a refused one from being locked."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from function.adapters.huawei.credentials import Credentials
from function.domain import failures
from function.domain.deadline import MIN_CALL_SECONDS, Deadline
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import Target
from function.domain.ports import ReadPurpose, Reply

# Five wrong signatures in a row lock the key for five minutes; a refused key is left alone for this long.
REFUSED_KEY_PAUSE_SECONDS: Final = 60.0
# How long a key that was accepted is trusted to be so still.
ACCEPTED_KEY_SECONDS: Final = 60.0
# Of other projects in a row, before the key is left alone for all of them; the default project's may follow.
MAX_REFUSALS_OF_OTHER_PROJECTS: Final = 2
MAX_REMEMBERED_REFUSALS: Final = 1_000


class KeyGuard:
    """Whether a key has been accepted of late, and what it was refused for.

    Five wrong signatures in a row lock a key. So until it has been accepted calls go one by one, and what was refused
    is left alone for a while. A 401 for the default project is about the key. One for another project or region may be
    about that alone; two in a row are taken to be about the key, but the default project may still prove the contrary.
    Any other refusal is about the one endpoint service.
    """

    _EVERYBODY: Final = "everybody"
    _OTHER_PROJECTS: Final = "other projects"

    def __init__(
        self,
        credentials: Credentials,
        region: str,
        *,
        invalidate: Callable[[Credentials], None],
        now: Callable[[], float],
    ) -> None:
        """
        Args:
            region: where the key's own project is the default one.
            invalidate: called with a key that was refused.
            now: seconds since the epoch.
        """
        self._credentials = credentials
        self._home = region, credentials.project_id
        self._invalidate = invalidate
        self._now = now
        self._probe = _Probe()
        self._lock = threading.Lock()
        self._accepted_until = 0.0
        self._refused_in_a_row = 0
        self._refusals: dict[object, tuple[float, Failure]] = {}

    def call(
        self,
        target: Target,
        send: Callable[[], Reply],
        deadline: Deadline,
        purpose: ReadPurpose = ReadPurpose.DECISION,
    ) -> Reply:
        """Make a call and learn from what comes of it; while it is open whether the key is accepted, alone.

        Raises:
            RenameFailedError: the call's failure; the refusal that is remembered, or that there was no time for a call,
                with ``counts_as_attempt`` False.
        """
        if not self._is_accepted():
            with self._probing(deadline):
                if not self._is_accepted():
                    return self._call(target, send, deadline, purpose)
        return self._call(target, send, deadline, purpose)

    def raise_if_rejected(self, target: Target) -> None:
        """Raises RenameFailedError, counted as no attempt, where a call for this target was refused a moment ago."""
        now = self._now()
        with self._lock:
            for scope in self._scopes(target):
                until, failure = self._refusals.get(scope, (0.0, None))
                if failure is not None and now < until:
                    raise RenameFailedError(replace(failure, counts_as_attempt=False))

    @contextmanager
    def _probing(self, deadline: Deadline) -> Iterator[None]:
        probe = self._probe
        if not probe.lock.acquire(blocking=False):
            probe = self._waited(deadline)
        try:
            probe.deadline = deadline
            yield
        finally:
            probe.lock.release()

    def _waited(self, deadline: Deadline) -> "_Probe":
        while (seconds := deadline.remaining() - MIN_CALL_SECONDS) > 0:
            probe = self._probe
            if probe.lock.acquire(timeout=min(seconds, max(MIN_CALL_SECONDS, probe.deadline.remaining()))):
                return probe
            if probe.deadline.remaining() < 0:
                # Stuck before its request, which it does not send any more.
                with self._lock:
                    if self._probe is probe:
                        self._probe = _Probe()
        raise _not_called()

    def _is_accepted(self) -> bool:
        return self._now() < self._accepted_until

    def _call(self, target: Target, send: Callable[[], Reply], deadline: Deadline, purpose: ReadPurpose) -> Reply:
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
            elif failure.code.lower().startswith("endpoint."):  # VPCEP's own, which answers behind the gateway only
                self._accept()
            raise
        if reply.name is not None:
            self._accept()
        return reply

    def _accept(self) -> None:
        with self._lock:
            self._accepted_until = self._now() + ACCEPTED_KEY_SECONDS
            self._refused_in_a_row = 0
            self._refusals.pop(self._OTHER_PROJECTS, None)

    def _refuse(self, target: Target, failure: Failure) -> None:
        self._invalidate(self._credentials)  # first: who sees the refusal looks for another key at once
        with self._lock:
            now = self._now()
            self._refusals = {scope: refusal for scope, refusal in self._refusals.items() if now < refusal[0]}
            while len(self._refusals) > MAX_REMEMBERED_REFUSALS:
                del self._refusals[next(iter(self._refusals))]
            for scope in self._refused_scopes(target, failure):
                self._refusals[scope] = now + REFUSED_KEY_PAUSE_SECONDS, failure

    def _refused_scopes(self, target: Target, failure: Failure) -> Iterable[object]:
        *_, place, service = self._scopes(target)
        if failure.http_status != HTTPStatus.UNAUTHORIZED:
            return [service]
        self._accepted_until = 0.0
        self._refused_in_a_row += 1
        if place == self._home:
            return [self._EVERYBODY]
        if self._refused_in_a_row >= MAX_REFUSALS_OF_OTHER_PROJECTS:
            return [self._OTHER_PROJECTS, place]
        return [place]

    def _scopes(self, target: Target) -> list[object]:
        """Whose refusals concern a target, from everybody's to its own."""
        place = target.region, target.project_id
        others = [] if place == self._home else [self._OTHER_PROJECTS]
        return [self._EVERYBODY, *others, place, (*place, target.vpc_endpoint_service_id.casefold())]


class _Probe:
    """The right to make a call alone.

    Attributes:
        deadline: of the call that has it, or had it last.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.deadline = Deadline(0.0, 0.0)


def _not_called() -> RenameFailedError:
    return RenameFailedError(replace(failures.timeout(), counts_as_attempt=False))
