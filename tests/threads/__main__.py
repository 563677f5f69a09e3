"""`python -m tests.threads --events 20000`: so many events."""

from __future__ import annotations

import argparse
import sys

from tests.threads.run import run


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.threads", description=__doc__)
    arguments.add_argument("--events", type=int, default=5_000, help="how many events (%(default)s)")
    arguments.add_argument("--seed", type=int, default=0, help="decides what is sent (%(default)s)")
    wanted = arguments.parse_args()
    report = run(wanted.events, wanted.seed)
    for broken in report.broken:
        print(f"invariant {broken.invariant} is broken: {broken.text}")
    print(report)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
