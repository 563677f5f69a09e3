"""A Python process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import function

ROOT = Path(function.__file__).parents[1]
# As Lambda does; without a key botocore looks for one.
_LAMBDA_SETS = {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


def run_python(
    script: str, environment: Mapping[str, str], stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the script in this environment, and in nothing of the machine's own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        input=stdin,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **_LAMBDA_SETS, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
