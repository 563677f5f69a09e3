"""Clocks that a test moves, and a generator of jitter that it knows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from function.domain.deadline import Deadline
from tests.fakes.identifiers import START


class MovedClock:
    """The present time, moved by a test."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class FakeClock:
    """Goes on only when somebody sleeps or a call takes its time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.seconds += seconds

    def epoch(self) -> float:
        return START.timestamp() + self.seconds

    def until(self, seconds: float) -> Deadline:
        """So many seconds from now on, and a few more to report in."""
        at = self.epoch() + seconds
        return Deadline(at, at + 4.0, self.epoch)


@dataclass
class Jitter:
    """Stands in for `random.uniform`: picks the same share of each range, and remembers the ranges."""

    share: float = 1.0
    ranges: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, low: float, high: float) -> float:
        self.ranges.append((low, high))
        return low + (high - low) * self.share
