"""Throws inputs at a target."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import TARGETS, weather


def fuzz(target: str, inputs: int, seed_: int | None = None) -> int:
    """How many inputs it took; the first that finds a fault is raised, made as small as it gets.

    Args:
        seed_: None for the same inputs each time.
    """
    events, check = TARGETS[target]
    taken = 0

    @settings(
        max_examples=inputs,
        derandomize=seed_ is None,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(events, weather)
    def throw(event: Any, conditions: dict[str, Any]) -> None:
        nonlocal taken
        taken += 1
        check(event, conditions)

    (throw if seed_ is None else seed(seed_)(throw))()
    return taken


class Task(NamedTuple):
    """Some of the inputs for one target."""

    target: str
    inputs: int
    seed: int


def run(task: Task) -> tuple[str, int, str | None]:
    """The target, how many inputs it took, and the fault that was found."""
    try:
        return task.target, fuzz(task.target, task.inputs, task.seed), None
    except BaseException as error:  # noqa: BLE001 - a failed assertion is what is looked for
        return task.target, 0, "\n".join([repr(error), *getattr(error, "__notes__", ())])
