"""Many at a time, slower while the other side throttles, and to an orderly end on Ctrl-C."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Final, TypeVar

from cli.model import Problem, StoppedError
from function.domain.backoff import full_jitter

Item = TypeVar("Item")
Value = TypeVar("Value")

# Without a throttling window in the reply: how long everything stops, doubled each time.
FIRST_PAUSE_SECONDS: Final = 1.0
MAX_PAUSE_SECONDS: Final = 60.0
# Throttled for this long without a single success: an operator must look.
PATIENCE_SECONDS: Final = 1800.0
# Of transient failures, in addition to the domain's own retries.
MAX_TRIES: Final = 3
# Failures of that kind in a row, of all workers: the other side is down.
MAX_UNANSWERED: Final = 30


class Pace:
    """When the next call may be made, for all workers."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.stopping = threading.Event()
        self._now = now
        self._lock = threading.Lock()
        self._resume_at = 0.0
        self._pause = 0.0
        self._last_success = now()
        self._unanswered = 0

    def wait(self) -> None:
        while (seconds := self._resume_at - self._now()) > 0 and not self.stopping.wait(seconds):
            pass

    def throttled(self, retry_after: float | None) -> bool:
        """Everything stops for a while. False where that has been so for too long."""
        with self._lock:
            now = self._now()
            if now >= self._resume_at:  # the first one of those that were in flight
                self._pause = min(MAX_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, 2 * self._pause))
                self._resume_at = now + max(retry_after or 0.0, self._pause)
            return now - self._last_success < PATIENCE_SECONDS

    def succeeded(self) -> None:
        with self._lock:
            self._last_success = self._now()
            self._unanswered = 0
            if self._last_success >= self._resume_at:
                self._pause /= 2

    def unanswered(self) -> None:
        """
        Raises:
            StoppedError: the other side is down.
        """
        with self._lock:
            self._unanswered += 1
            if self._unanswered >= MAX_UNANSWERED:
                raise StoppedError(
                    f"{self._unanswered} calls in a row were not answered as they should. Nothing is lost: "
                    "run the same command again, and it goes on where it stopped."
                )


def retry(call: Callable[[], Value], problem_of: Callable[[Value], Problem | None], pace: Pace) -> Value:
    """Call until it succeeds or fails permanently.

    Raises:
        StoppedError: it makes no sense to go on with anything.
    """
    tries = 0
    while True:
        pace.wait()
        value = call()
        problem = problem_of(value)
        if problem is None or not (problem.retryable or problem.fatal):
            pace.succeeded()
            return value
        if problem.fatal:
            raise StoppedError(str(problem))
        if pace.stopping.is_set():
            return value
        if problem.throttled:
            if not pace.throttled(problem.retry_after):
                return value
            continue
        pace.unanswered()
        tries += 1
        if tries == MAX_TRIES:
            return value
        seconds = full_jitter(tries, base=FIRST_PAUSE_SECONDS, cap=MAX_PAUSE_SECONDS)
        pace.stopping.wait(max(seconds, min(problem.retry_after or 0.0, MAX_PAUSE_SECONDS)))


def each(
    items: Iterable[Item], work: Callable[[Item], Value], *, pace: Pace, parallel: int
) -> Iterator[tuple[Item, Value]]:
    """The work for each item, as it is done; so many at a time, and no more than that waiting.

    When it is interrupted, or the work raises, what is in flight is finished and yielded first.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="vpcep-rename")
    source = iter(items)
    running: dict[Future[Value], Item] = {}
    failed: BaseException | None = None
    try:
        while True:
            if not pace.stopping.is_set():
                for item in islice(source, parallel - len(running)):
                    running[pool.submit(work, item)] = item
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                item = running.pop(future)
                if (error := future.exception()) is None:
                    yield item, future.result()
                else:
                    failed = failed or error
                    pace.stopping.set()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failed is not None:
        raise failed
    if pace.stopping.is_set():
        raise KeyboardInterrupt


@contextmanager
def interruptible(pace: Pace) -> Iterator[None]:
    """Ctrl-C, or a signal to end, lets what is in flight come to its end; the second one does not wait for that."""

    def stop(*_: object) -> None:
        if pace.stopping.is_set():
            raise KeyboardInterrupt
        pace.stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
