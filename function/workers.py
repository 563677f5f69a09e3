"""Threads that an invocation waits for until its deadline, and no longer.

A thread may hang in a name lookup, which has no timeout. Its invocation then reports without it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from function.domain.deadline import Deadline

_Result = TypeVar("_Result")


class Workers:
    """Threads, each started when first needed and kept for the next invocation."""

    def __init__(self, most: int) -> None:
        """
        Args:
            most: threads that run at once.
        """
        self._most = most
        self._threads = ThreadPoolExecutor(most)

    def run(self, tasks: Sequence[Callable[[], _Result]], deadline: Deadline) -> list[_Result]:
        """Run the tasks concurrently, until all are done or the deadline has passed. Returns the results of those done.

        A task that has not started by then is cancelled. One that hangs keeps its thread, and the threads are replaced.

        Raises:
            Exception: from a task that is done.
        """
        running = [self._threads.submit(task) for task in tasks]
        done, hanging = wait(running, timeout=max(0.0, deadline.remaining()))
        if hanging:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = ThreadPoolExecutor(self._most)
        return [task.result() for task in running if task in done]
