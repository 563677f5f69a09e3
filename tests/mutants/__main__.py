"""`make mutants`: a sample of mutants of `function/`, and which of them the unit and contract tests do not detect.

By coverage, each mutant is tested only by the tests that run its lines, in a copy of the checkout. A survivor means a
missing test, or an equivalent mutant: it takes a person to tell.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from coverage import CoverageData

from tests.mutants.mutations import Mutant, mutants

ROOT = Path(__file__).parents[2]
TESTS = ("tests/unit", "tests/contract")
IGNORED = shutil.ignore_patterns(".git", ".venv", ".build", ".aws-sam", "__pycache__", ".*_cache", ".hypothesis")
TEST_SECONDS = 60  # of a mutant that does not end
MUTANT_SECONDS = 300.0
WORKERS = 2


class Case(NamedTuple):
    """A mutant of a file, and the tests that run its lines."""

    path: Path
    mutant: Mutant
    tests: Sequence[str]

    def __str__(self) -> str:
        return f"{self.path}:{self.mutant.lines[0]}  {self.mutant.before!r} → {self.mutant.after!r}"


def main() -> int:
    arguments = argparse.ArgumentParser(prog="make mutants")
    arguments.add_argument("--mutants", type=int, default=60)
    arguments.add_argument("--seconds", type=float, default=1800.0, help="start no mutant after that")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    ends_at = time.monotonic() + options.seconds

    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as directory:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(WORKERS):
            copy = Path(directory, str(number))
            shutil.copytree(ROOT, copy, ignore=IGNORED)
            (copy / ".venv").symlink_to(ROOT / ".venv")
            copies.put(copy)
        print("Measuring which tests run which lines …", flush=True)
        every = _cases(_covered(copies.get()))
        copies.put(Path(directory, "0"))
        sample = random.Random(options.seed).sample(every, min(options.mutants, len(every)))
        print(f"{len(sample)} of {len(every)} mutants, with --seed {options.seed}", flush=True)

        def survives_its_tests(case: Case) -> bool | None:
            """None where the time is over."""
            if time.monotonic() > ends_at:
                return None
            copy = copies.get()
            try:
                survives = _survives(case, copy)
            finally:
                copies.put(copy)
            print(f"{'SURVIVED' if survives else 'killed  '} {case}", flush=True)
            return survives

        with ThreadPoolExecutor(WORKERS) as workers:
            results = list(workers.map(survives_its_tests, sample))

    survivors = [case for case, survives in zip(sample, results, strict=True) if survives]
    print(f"\n{results.count(False)} killed, {len(survivors)} survived, {results.count(None)} not tried.")
    print(*survivors, sep="\n")
    return 0


def _pytest(copy: Path, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--no-header", *arguments]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / "examples")}
    return subprocess.run(
        command,
        cwd=copy,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=seconds,
        check=False,
    )


def _covered(copy: Path) -> dict[Path, dict[int, list[str]]]:
    """The tests that run each line of each file; none for a line that only an import runs."""
    measured = ("--cov", "--cov-context=test", "--cov-report=", "--cov-fail-under=0")
    done = _pytest(copy, *TESTS, *measured, f"-n{WORKERS}", seconds=1200.0)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-5000:]}\nThe tests fail without a mutant.")
    data = CoverageData(str(copy / ".coverage"))
    data.read()
    return {
        Path(name).relative_to(copy): {
            line: sorted({context.partition("|")[0] for context in contexts if context})
            for line, contexts in data.contexts_by_lineno(name).items()
        }
        for name in data.measured_files()
    }


def _cases(covered: dict[Path, dict[int, list[str]]]) -> list[Case]:
    return [
        Case(path, mutant, _nearest_first(path, _tests_of(mutant, lines)))
        for path, lines in sorted(covered.items())
        for mutant in mutants((ROOT / path).read_text(encoding="utf-8"))
    ]


def _tests_of(mutant: Mutant, covered: dict[int, list[str]]) -> set[str]:
    first, last = mutant.lines
    tests = {test for line in range(first, last + 1) for test in covered.get(line, [])}
    return tests or {test for tests_of_line in covered.values() for test in tests_of_line}


def _nearest_first(path: Path, tests: set[str]) -> list[str]:
    """Those of the module's own file, then the others; the properties, which take long, at the end."""
    return sorted(tests, key=lambda test: (f"/test_{path.stem}.py" not in test, "test_properties" in test, test))


def _survives(case: Case, copy: Path) -> bool:
    if not case.tests:
        return True
    target, arguments = copy / case.path, copy / "tests-of-the-mutant"
    before = target.read_text(encoding="utf-8")
    arguments.write_text("\n".join(case.tests), encoding="utf-8")
    target.write_text(case.mutant.source, encoding="utf-8")
    try:
        return _pytest(copy, "-x", f"--timeout={TEST_SECONDS}", f"@{arguments}", seconds=MUTANT_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        target.write_text(before, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
