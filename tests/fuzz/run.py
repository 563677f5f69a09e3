"""Calls a target with generated inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import TARGETS, FaultyWorld, faults


def fuzz(target: str, inputs: int, seed_: int | None = None) -> int:
    """Returns the number of inputs; raises the smallest failure that is found.

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
    @given(events, faults)
    def call(event: Any, faults: dict[str, Any]) -> None:
        nonlocal taken
        taken += 1
        check(event, FaultyWorld(faults))

    (call if seed_ is None else seed(seed_)(call))()
    return taken


class Task(NamedTuple):
    """Some of the inputs for one target."""

    target: str
    inputs: int
    seed: int


def run(task: Task) -> tuple[str, int, str | None]:
    """The target, its number of inputs, and the failure that was found."""
    try:
        return task.target, fuzz(task.target, task.inputs, task.seed), None
    except BaseException as error:  # noqa: BLE001 - also a failed assertion
        return task.target, 0, "\n".join([repr(error), *getattr(error, "__notes__", ())])
