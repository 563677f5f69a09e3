"""Notes in an SBOM which files of each package are not deployed: `note_left_out.py SBOM PACKAGES METADATA`.

CycloneDX records changes of a component in its pedigree. A directory that is left out completely ends with a slash.
"""

from __future__ import annotations

import csv
import json
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath


def main(sbom: Path, packages: Path, metadata: Path) -> None:
    document = json.loads(sbom.read_bytes())
    brought = {found.name: found for found in distributions(path=[str(metadata)])}
    for component in document["components"]:
        if left_out := _left_out(brought[component["name"]], packages):
            component["pedigree"] = {"notes": f"Left out: {', '.join(left_out)}"}
    sbom.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _left_out(distribution: Distribution, packages: Path) -> list[str]:
    """Sorted by name."""
    missing = set()
    # Not distribution.files, which omits missing files.
    for file in (PurePosixPath(path) for path, *_ in csv.reader((distribution.read_text("RECORD") or "").splitlines())):
        # ".." is the path to the scripts of a virtual environment.
        outside = file.parts[0] in ("..", "bin") or file.parts[0].endswith(".dist-info")
        if not outside and not (packages / file).exists():
            missing.add(_outermost(file, packages))
    return sorted(missing)


def _outermost(file: PurePosixPath, packages: Path) -> str:
    directories = reversed(file.parents[:-1])
    return next((f"{each}/" for each in directories if not (packages / each).exists()), str(file))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
