"""The measurements. Each alternates between the packages, so that other load on the machine affects all of them."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.bench.clouds import SERVICES, BenchClouds, batch, request
from tests.bench.packages import Package
from tests.localcloud.lambda_runtime import LambdaRuntime

TRIGGERS = ("sqs", "http")
BATCH_SIZE = 10
ENDURANCE_BATCHES = 1_000
EARLY_BATCH = 100
CPU_RECORDS = 300
WARM_UP = 5
_BEGAN = time.monotonic()

Samples = dict[str, list[float]]
Runtimes = Mapping[str, LambdaRuntime]


class WrongAnswerError(Exception):
    """A package gave a wrong response."""


def progress(line: str) -> None:
    """To standard error, with the time since the start."""
    print(f"[{time.monotonic() - _BEGAN:6.1f} s] {line}", file=sys.stderr, flush=True)


def cold_starts(clouds: BenchClouds, packages: Sequence[Package], runs: int) -> dict[str, Any]:
    """From the start of the runtime to the response to its first event: milliseconds elapsed, and of CPU time."""
    clock: dict[str, Samples] = {trigger: {package.name: [] for package in packages} for trigger in TRIGGERS}
    cpu: dict[str, Samples] = {trigger: {package.name: [] for package in packages} for trigger in TRIGGERS}
    for run in range(runs):
        progress(f"Cold starts {run + 1} of {runs} …")
        for package in packages:
            for trigger in TRIGGERS:
                with clouds.runtime(package) as runtime:
                    seconds = _timed(runtime, batch([run]) if trigger == "sqs" else request(run))
                    clock[trigger][package.name].append(_milliseconds(seconds))
                    cpu[trigger][package.name].append(_milliseconds(_cpu_seconds(runtime)))
    return {"cold_start_ms": clock, "cold_start_cpu_ms": cpu}


def batches(clouds: BenchClouds, packages: Sequence[Package], runs: int) -> dict[str, Any]:
    """Milliseconds of one message alone and of ten for ten services, VPCEP answering after 50 ms; warm."""
    samples: dict[str, Samples] = {package.name: {"one": [], "ten": []} for package in packages}
    with _warm(clouds, packages, slow=True) as runtimes:
        for run in range(runs):
            progress(f"Batches {run + 1} of {runs} …")
            for name, runtime in runtimes.items():
                for number, size in (("one", 1), ("ten", BATCH_SIZE)):
                    samples[name][number].append(_milliseconds(_timed(runtime, batch(range(size)))))
    return {"batch_ms": samples}


def cpu_per_record(clouds: BenchClouds, packages: Sequence[Package], runs: int) -> dict[str, Any]:
    """Milliseconds of CPU that a settled record takes, warm, ledger on, in full batches."""
    samples: Samples = {package.name: [] for package in packages}
    chunk = max(1, CPU_RECORDS // BATCH_SIZE // runs)
    with _warm(clouds, packages) as runtimes:
        for run in range(runs):
            progress(f"CPU time {run + 1} of {runs} …")
            for name, runtime in runtimes.items():
                before = _cpu_seconds(runtime)
                for events in _backlog(chunk):
                    _timed(runtime, events)
                spent = _cpu_seconds(runtime) - before
                samples[name].append(_milliseconds(spent / (chunk * BATCH_SIZE)))
    return {"cpu_per_record_ms": samples}


def backlogs(clouds: BenchClouds, packages: Sequence[Package], runs: int) -> dict[str, Any]:
    """Milliseconds an event while a warm environment drains a backlog of so many, and its memory."""
    every = {10: 1, 100: 3, 1_000: 5}
    drains: dict[str, Samples] = {package.name: {str(size): [] for size in every} for package in packages}
    with _warm(clouds, packages) as runtimes:
        for run in range(runs):
            progress(f"Backlogs {run + 1} of {runs} …")
            for size in (size for size, nth in every.items() if run % nth == 0):
                for name, runtime in runtimes.items():
                    _timed(runtime, batch(range(BATCH_SIZE)))  # its connections have timed out meanwhile
                    seconds = sum(_timed(runtime, events) for events in _backlog(size // BATCH_SIZE))
                    drains[name][str(size)].append(_milliseconds(seconds / size))
    endurance = _endurance(clouds, packages, min(ENDURANCE_BATCHES, ENDURANCE_BATCHES * runs // 15))
    for package in packages:
        took = endurance[package.name].pop("event_ms")
        drains[package.name][str(endurance["batches"] * BATCH_SIZE)] = took
    return {"backlog_event_ms": drains, "memory": endurance}


def _endurance(clouds: BenchClouds, packages: Sequence[Package], count: int) -> dict[str, Any]:
    """One backlog, drained by a new environment of each package: time by tenths, memory by batches."""
    result: dict[str, Any] = {"batches": count}
    early, step = min(EARLY_BATCH, count // 2), max(1, count // 20)
    with ExitStack() as cleanup:
        runtimes = {package.name: cleanup.enter_context(clouds.runtime(package)) for package in packages}
        resident: dict[str, dict[str, float]] = {name: {} for name in runtimes}
        seconds: Samples = {name: [] for name in runtimes}
        for begin in range(0, count, step):
            numbers = range(begin + 1, min(begin + step, count) + 1)
            progress(f"Batch {numbers[-1]} of {count} …")
            # Alternately, but without pauses, as in a backlog.
            for name, runtime in runtimes.items():
                for number, events in zip(numbers, _backlog(step), strict=False):
                    seconds[name].append(_timed(runtime, events))
                    if number in (1, early) or number == numbers[-1]:
                        resident[name][str(number)] = _memory_mib(runtime, "VmRSS")
        for name, runtime in runtimes.items():
            tenth = max(1, count // 10)
            # The first batch is the cold start, which is measured separately.
            parts = [seconds[name][begin : begin + tenth] for begin in range(0, count - tenth + 1, tenth)]
            parts[0] = parts[0][1:] or parts[0]
            result[name] = {
                "peak_mib": _memory_mib(runtime, "VmHWM"),
                "early_batch": early,
                "early_mib": resident[name][str(early)],
                "last_mib": resident[name][str(count)],
                "resident_mib": resident[name],
                "event_ms": [_milliseconds(sum(part) / len(part) / BATCH_SIZE) for part in parts],
            }
    return result


@contextmanager
def _warm(clouds: BenchClouds, packages: Sequence[Package], *, slow: bool = False) -> Iterator[Runtimes]:
    """An environment of each package that has handled some batches of each size."""
    with ExitStack() as cleanup:
        runtimes = {package.name: cleanup.enter_context(clouds.runtime(package, slow=slow)) for package in packages}
        for runtime in runtimes.values():
            for _ in range(WARM_UP):
                _timed(runtime, batch(range(1)))
                _timed(runtime, batch(range(BATCH_SIZE)))
        yield runtimes


def _backlog(batches_: int) -> Iterator[dict[str, Any]]:
    """Full batches, each for ten services, in turn."""
    for number in range(batches_):
        first = number * BATCH_SIZE
        yield batch([service % SERVICES for service in range(first, first + BATCH_SIZE)])


def _timed(runtime: LambdaRuntime, event: Mapping[str, Any]) -> float:
    """Seconds until the response, which must be a success."""
    began = time.perf_counter()
    answer = runtime.invoke(event)
    seconds = time.perf_counter() - began
    if answer != {"batchItemFailures": []} and answer.get("statusCode") != 200:
        raise WrongAnswerError(f"{answer}\n{runtime.log()[-4000:]}")
    return seconds


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1_000, 2)


def _cpu_seconds(runtime: LambdaRuntime) -> float:
    """User and system time of the runtime, without the emulator that started it."""
    ticks = 0
    for process in _processes_under(runtime._process.pid):
        # The name before the closing parenthesis may hold anything.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # utime, stime, and those of children that have ended
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory_mib(runtime: LambdaRuntime, field: str) -> float:
    """VmRSS or VmHWM of the runtime."""
    kib = 0
    for process in _processes_under(runtime._process.pid):
        found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
        kib += int(found[1]) if found else 0
    return round(kib / 1024, 2)


def _processes_under(parent: int) -> Iterator[int]:
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from _processes_under(child)
