"""Prints THIRD_PARTY.md, for `make licences`: the licences of what is in the package, as its metadata declares them."""

from __future__ import annotations

import sys
from importlib.metadata import distributions
from pathlib import Path

# Where the metadata is vague, or, for Powertools, at odds with the licence file beside it.
CLARIFIED = {
    ("aws_lambda_powertools", "MIT"): "MIT-0",
    ("defusedxml", "PSFL"): "PSF-2.0",
    ("requests-toolbelt", "Apache 2.0"): "Apache-2.0",
}
HEAD = """\
# Third-party licences

Packages that are deployed with the function. `make licences` generates this list. All licences are permissive, except
certifi's: if you distribute the package with changes to certifi's files, you must publish these files.

| package | licence (SPDX) |
|---|---|
"""


def licences(metadata: Path) -> dict[str, str]:
    """The licence of each package whose metadata is in that directory."""
    declared = {}
    for found in distributions(path=[str(metadata)]):
        [declared[found.name]] = found.metadata.get_all("License-Expression") or found.metadata.get_all("License") or []
    return {name: CLARIFIED.get((name, declared[name]), declared[name]) for name in sorted(declared, key=str.lower)}


def document(metadata: Path) -> str:
    return HEAD + "".join(f"| {name} | {licence} |\n" for name, licence in licences(metadata).items())


if __name__ == "__main__":
    sys.stdout.write(document(Path(sys.argv[1])))
