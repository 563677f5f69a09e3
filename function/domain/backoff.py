"""Exponential backoff with full jitter."""

import math
from collections.abc import Callable
from random import SystemRandom  # noqa: TID251 - asks the kernel
from typing import Final

# The kernel's, since those of the process would repeat themselves in all that come from one snapshot.
UNIFORM: Final = SystemRandom().uniform


def full_jitter(
    attempt: int, *, base: float, cap: float = math.inf, uniform: Callable[[float, float], float] | None = None
) -> float:
    """Seconds to wait after an attempt that failed.

    Args:
        attempt: from 1.
        base, cap: seconds.
        uniform: another source of chance than the kernel.
    """
    return (uniform or UNIFORM)(0, min(cap, base * 2**attempt))
