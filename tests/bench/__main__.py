"""`make bench`: compares the function with the peer and the floor, all in the same run, and prints a table.

The results of 15 runs or more are stored in results.json, from which the plots are drawn.
"""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench import measurements
from tests.bench.clouds import READ_PREVIOUS_NAME, bench_clouds
from tests.bench.packages import Package, compile_runtime, floor, ours, peer
from tests.bench.report import table, to_json

RESULTS = Path(__file__).with_name("results.json")
RUNS = 15
PACKAGES = (
    *("aws-lambda-powertools", "huaweicloudsdkcore", "huaweicloudsdkvpcep", "jsonschema"),
    *("awslambdaric", "boto3", "botocore"),
)


def main(runs: int) -> None:
    measurements.progress("Building the packages …")
    compile_runtime()
    measured, other, least = ours(), peer(), floor()
    load_before = os.getloadavg()[0]
    results: dict[str, Any] = {
        "taken": datetime.now(UTC).date().isoformat(),
        "runs": runs,
        "read_previous_name": READ_PREVIOUS_NAME,
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "packages": {package.name: _described(package) for package in (measured, other, least)},
    }
    with bench_clouds() as clouds:
        pair = (measured, other)
        results |= measurements.cold_starts(clouds, (*pair, least), runs)
        results |= measurements.batches(clouds, pair, runs)
        results |= measurements.cpu_per_record(clouds, pair, runs)
        results |= measurements.backlogs(clouds, pair, runs)
    results["machine"]["load_average"] = [round(load, 1) for load in (load_before, os.getloadavg()[0])]
    if runs >= RUNS:
        RESULTS.write_text(to_json(results))
    print(table(results))


def _described(package: Package) -> dict[str, Any]:
    return {"zipped_bytes": package.zipped_bytes(), "bytecode": package.holds_bytecode()}


def _machine() -> dict[str, Any]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
    }


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
