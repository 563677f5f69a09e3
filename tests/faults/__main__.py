"""`python -m tests.faults --seeds 1000`: so many runs; `--replay SEED`: one run, step by step."""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults.simulation import run
from tests.faults.sweep import sweep


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    arguments.add_argument("--seeds", type=int, default=1_000, help="how many runs (%(default)s)")
    arguments.add_argument("--from", type=int, default=0, dest="first", help="first seed (%(default)s)")
    arguments.add_argument("--replay", type=int, metavar="SEED", help="show this one run step by step")
    wanted = arguments.parse_args()
    if wanted.replay is not None:
        return _show(wanted.replay)
    started = time.monotonic()
    swept = sweep(wanted.first, wanted.seeds)
    seconds = time.monotonic() - started
    for seed, broken in swept.broken:
        print(f"seed {seed}: invariant {broken.invariant} is broken: {broken.text}")
    print(f"{wanted.seeds} runs, {swept.events} events, {swept.steps} steps in {seconds:.0f} s")
    return _show(swept.broken[0][0]) if swept.broken else 0


def _show(seed: int) -> int:
    result = run(seed, tracing=True)
    print(*result.trace, sep="\n")
    if result.broken is None:
        print(f"seed {seed}: {result.events} events, all invariants hold")
        return 0
    print(f"seed {seed}: invariant {result.broken.invariant} is broken: {result.broken.text}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
