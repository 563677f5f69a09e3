"""`python -m tests.fuzz --inputs 200000`: so many raw Lambda events, on all processors."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time

from tests.fuzz.run import Task, run
from tests.fuzz.targets import TARGETS

CHUNK = 1_000


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    arguments.add_argument("--inputs", type=int, default=200_000, help="how many (%(default)s)")
    arguments.add_argument("--seed", type=int, help="of an earlier run, to repeat its inputs")
    wanted = arguments.parse_args()
    first = random.randrange(2**32) if wanted.seed is None else wanted.seed
    print(f"Seed {first}", flush=True)
    share = wanted.inputs // len(TARGETS)
    tasks = [
        Task(target, min(CHUNK, share - begin), first + begin) for target in TARGETS for begin in range(0, share, CHUNK)
    ]
    began = time.monotonic()
    taken = dict.fromkeys(TARGETS, 0)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for target, inputs, fault in pool.imap_unordered(run, tasks):
            taken[target] += inputs
            if fault:
                print(f"{target}: {fault}")
                return 1
    counts = ", ".join(f"{inputs:,} {target}" for target, inputs in taken.items())
    print(f"{sum(taken.values()):,} inputs ({counts}), only documented responses; {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
