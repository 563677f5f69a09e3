"""Threads that an invocation waits for until its deadline, and no longer.

A thread may hang in a name lookup, which has no timeout. Its invocation then reports without it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from function.domain.deadline import Deadline


class Workers:
    """Threads, each started when first needed and kept for the next invocation."""

    def __init__(self, most: int) -> None:
        """
        Args:
            most: threads that run at once.
        """
        self._most = most
        self._threads = ThreadPoolExecutor(most)

    def run(self, tasks: Sequence[Callable[[], object]], deadline: Deadline) -> None:
        """Run the tasks concurrently, and return when all are done or the deadline has passed.

        A task that has not started by then is cancelled. One that hangs keeps its thread, and the threads are replaced.

        Raises:
            Exception: from a task that is done.
        """
        running = [self._threads.submit(task) for task in tasks]
        done, hanging = wait(running, timeout=max(0.0, deadline.remaining()))
        if hanging:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = ThreadPoolExecutor(self._most)
        for task in done:
            task.result()
