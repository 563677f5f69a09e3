"""A table of the results: the goals, and whether each is reached."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

FLATNESS = 0.15
# The memory of an allocator varies by a few pages without growth.
MEMORY_NOISE_MIB = 1.0

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One measure: what ours, the peer and the floor took, and how ours compares with its goals."""

    measure: str
    packages: Sequence[str]
    goals: Sequence[Goal]


@dataclass(frozen=True)
class Goal:
    """A ratio (or a difference) and its bound; `reached` is None for one without a bound."""

    text: str
    value: float
    reached: bool | None = None


def to_json(results: Results) -> str:
    """With a line for each list of samples."""
    return re.sub(r"\[[^\[\]{}]*\]", lambda samples: " ".join(samples[0].split()), json.dumps(results, indent=1)) + "\n"


def table(results: Results) -> str:
    """In Markdown."""
    machine, versions = results["machine"], results["versions"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"load {' to '.join(map(str, machine['load_average']))}; {results['taken']}, {results['runs']} runs; "
        f"READ_PREVIOUS_NAME {results['read_previous_name']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
        "",
        "| measure: median (min – max) | ours | peer | floor | goal | measured | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows(results):
        for number, goal in enumerate(row.goals):
            cells = [row.measure, *row.packages] if number == 0 else [""] * 4
            reached = {None: "", True: "yes", False: "**no**"}[goal.reached]
            lines.append(f"| {' | '.join([*cells, goal.text, f'{goal.value:.2f}', reached])} |")
    return "\n".join(lines)


def rows(results: Results) -> list[Row]:
    return [
        _cold_start(results, "sqs", "first SQS event", peer_goal=0.33, floor_goal=0.90),
        _cold_start(results, "http", "first HTTP event", peer_goal=0.36, floor_goal=0.95),
        _cold_start_cpu(results, "sqs", "SQS"),
        _cold_start_cpu(results, "http", "HTTP"),
        _batch(results),
        _cpu(results),
        _package(results),
        _memory(results),
        _backlog(results),
    ]


def _cold_start(results: Results, trigger: str, what: str, *, peer_goal: float, floor_goal: float) -> Row:
    samples = results["cold_start_ms"][trigger]
    goals = [
        _at_most(goal, median(samples["ours"]) / median(samples[other]), f"× {other}")
        for other, goal in (("peer", peer_goal), ("floor", floor_goal))
    ]
    return Row(f"cold start, on whole cores, to the answer to the {what}", _spreads(samples, "ms"), goals)


def _cold_start_cpu(results: Results, trigger: str, what: str) -> Row:
    """In addition to the elapsed time, since other processes on the machine affect it less."""
    samples = results["cold_start_cpu_ms"][trigger]
    ours = median(samples["ours"])
    ratios = [Goal(f"× {other}", ours / median(samples[other])) for other in ("peer", "floor")]
    return Row(f"CPU time of that cold start, {what}", _spreads(samples, "ms"), ratios)


def _batch(results: Results) -> Row:
    ours, peer = results["batch_ms"]["ours"], results["batch_ms"]["peer"]
    ours_ten, peer_ten = median(ours["ten"]), median(peer["ten"])
    return Row(
        "ten messages for ten services, VPCEP answering after 50 ms; one alone",
        [*(f"{_spread(it['ten'], 'ms')}; {_spread(it['one'], 'ms')}" for it in (ours, peer)), ""],
        [
            _at_most(1.5, ours_ten / median(ours["one"]), "× one alone"),
            Goal("peer ≥ 6 × slower", peer_ten / ours_ten, reached=peer_ten / ours_ten >= 6),
        ],
    )


def _cpu(results: Results) -> Row:
    samples = results["cpu_per_record_ms"]
    goal = _at_most(0.9, median(samples["ours"]) / median(samples["peer"]), "× peer")
    return Row("CPU time a settled record, warm, ledger on", _spreads(samples, "ms"), [goal])


def _package(results: Results) -> Row:
    sizes = {name: package["zipped_bytes"] for name, package in results["packages"].items()}
    shown = [f"{sizes[name] / 1e6:.2f} MB" for name in ("ours", "peer", "floor")]
    return Row("package, zipped", shown, [_at_most(1.0, sizes["ours"] / sizes["peer"], "× peer")])


def _memory(results: Results) -> Row:
    memory = results["memory"]
    ours, peer = memory["ours"], memory["peer"]
    growth = ours["last_mib"] - ours["early_mib"]
    return Row(
        f"peak memory, {memory['batches']} batches; growth from batch {ours['early_batch']} on",
        [*(f"{it['peak_mib']:.1f} MiB; {it['last_mib'] - it['early_mib']:+.1f} MiB" for it in (ours, peer)), ""],
        [
            _at_most(1.0, ours["peak_mib"] / peer["peak_mib"], "× peer"),
            Goal("no growth (MiB)", growth, reached=growth <= MEMORY_NOISE_MIB),
        ],
    )


def _backlog(results: Results) -> Row:
    ours, peer = (
        {size: median(samples) for size, samples in results["backlog_event_ms"][name].items()}
        for name in ("ours", "peer")
    )
    flatness = _flatness(list(ours.values()))
    return Row(
        f"time an event, backlog of {', '.join(ours)}",
        [*(", ".join(f"{value:.1f}" for value in times.values()) + " ms" for times in (ours, peer)), ""],
        [
            Goal(f"flat within {FLATNESS:.0%}", flatness, reached=flatness <= FLATNESS),
            # Other load on the machine affects both.
            Goal("as a multiple of the peer's", _flatness([ours[size] / peer[size] for size in ours])),
        ],
    )


def _flatness(values: Sequence[float]) -> float:
    return max(values) / min(values) - 1


def _at_most(bound: float, value: float, unit: str) -> Goal:
    return Goal(f"≤ {bound:g} {unit}", value, reached=value <= bound)


def _spreads(samples: Mapping[str, Sequence[float]], unit: str) -> list[str]:
    return [_spread(samples[name], unit) if name in samples else "" for name in ("ours", "peer", "floor")]


def _spread(samples: Sequence[float], unit: str) -> str:
    digits: Callable[[float], str] = "{:.0f}".format if median(samples) >= 20 else "{:.1f}".format
    return f"{digits(median(samples))} ({digits(min(samples))} – {digits(max(samples))}) {unit}"
