"""Runs work concurrently, slows down while the other side throttles, and finishes running work on Ctrl-C."""

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

# How long all calls pause if the reply has no throttling window; doubled each time.
FIRST_PAUSE_SECONDS: Final = 1.0
MAX_PAUSE_SECONDS: Final = 60.0
# After this long with throttling and without a success, an operator must act.
PATIENCE_SECONDS: Final = 1800.0
# For transient failures, in addition to the domain's own retries.
MAX_TRIES: Final = 3
# After this many transient failures in a row, of all workers, the other side is considered down.
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
        """Pause all calls. False if throttling has lasted too long."""
        with self._lock:
            now = self._now()
            if now >= self._resume_at:  # only the first of the calls in flight
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
        StoppedError: all other calls would fail too.
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
    """Yields each item with the result of its work, as it is done. At most ``parallel`` items are in progress.

    On an interrupt, or if the work raises, running work is finished and yielded first.

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
    """On SIGINT or SIGTERM, finish running work; a second signal does not wait for it."""

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
