"""Many runs, on all processors. A run depends on its seed alone, whichever process makes it."""

from __future__ import annotations

import gc
import multiprocessing
import os
from multiprocessing.pool import Pool
from typing import Final, NamedTuple

from tests.faults.broken import VARIANTS
from tests.faults.simulation import Result, run
from tests.faults.world import BrokenInvariant

CHUNK: Final = 20


class Sweep(NamedTuple):
    """The result of many runs.

    Attributes:
        broken: by seed, in order.
    """

    events: int
    steps: int
    broken: list[tuple[int, BrokenInvariant]]


def sweep(first: int, seeds: int) -> Sweep:
    """Run ``seeds`` seeds from ``first`` on."""
    with _processes() as pool:
        results = pool.map(_run, range(first, first + seeds), CHUNK)
    return Sweep(
        events=sum(result.events for result in results),
        steps=sum(result.steps for result in results),
        broken=[(result.seed, result.broken) for result in results if result.broken],
    )


def catch_variants(max_seeds: int) -> dict[str, tuple[int, BrokenInvariant] | None]:
    """For each broken variant the first seed that catches it, and how; None where none does."""
    with _processes() as pool:
        return dict(pool.imap_unordered(_caught, ((name, max_seeds) for name in VARIANTS)))


def _processes() -> Pool:
    # Spawned, not forked: a fork of a process with threads may deadlock.
    return multiprocessing.get_context("spawn").Pool(os.cpu_count(), _tune)


def _tune() -> None:
    """Garbage collection would take a tenth of the time."""
    gc.freeze()
    gc.set_threshold(100_000)


def _run(seed: int) -> Result:
    try:
        return run(seed)
    except Exception as error:
        error.add_note(f"in the run of seed {seed}")
        raise


def _caught(task: tuple[str, int]) -> tuple[str, tuple[int, BrokenInvariant] | None]:
    name, max_seeds = task
    results = (run(seed, VARIANTS[name].build) for seed in range(max_seeds))
    return name, next(((result.seed, result.broken) for result in results if result.broken), None)
