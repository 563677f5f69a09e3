"""Exponential backoff with full jitter."""

import math
from collections.abc import Callable
from random import SystemRandom  # noqa: TID251 - asks the kernel
from typing import Final

# From the kernel: a generator in the process would repeat its numbers in each environment restored from a snapshot.
UNIFORM: Final = SystemRandom().uniform


def full_jitter(
    attempt: int, *, base: float, cap: float = math.inf, uniform: Callable[[float, float], float] | None = None
) -> float:
    """Seconds to wait after a failed attempt.

    Args:
        attempt: from 1.
        base, cap: seconds.
        uniform: source of random numbers, None for the kernel's.
    """
    return (uniform or UNIFORM)(0, min(cap, base * 2**attempt))
