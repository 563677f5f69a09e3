"""Checks of `make deploy` before the SAM CLI runs; with ``--build`` also the build for the stack's architecture.

Arguments are those of ``sam deploy --parameter-overrides``: ``NAME=VALUE``, with ``NAME=""`` for an empty value. They
are checked here because the SAM CLI ignores unknown parameters. Run by the SAM CLI's interpreter, in the checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from difflib import get_close_matches
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from samtranslator.yaml_helper import yaml_parse

PACKAGES = Path(".aws-sam/build")
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}


def main(arguments: list[str]) -> str | None:
    """An error message, or None."""
    declared = yaml_parse(Path("template.yml").read_text(encoding="utf-8"))["Parameters"]
    given = [argument for argument in arguments if argument != "--build"]
    if errors := parameter_errors(given, declared):
        return "\n".join(errors)
    try:
        architecture = stack_architecture(dict(word.split("=", 1) for word in given), os.environ["STACK"])
    except (BotoCoreError, ClientError) as error:
        return f"The stack's architecture is unknown: {error}"
    if architecture not in MACHINES:
        return f"Architecture={architecture}: it is one of {', '.join(MACHINES)}"
    if "--build" in arguments:
        make = ["make", "build", f"ARCHITECTURE={architecture}"]
        subprocess.run(make, check=True)  # noqa: S603 - no untrusted input: the architecture is one of MACHINES
    built = package_machines(PACKAGES)
    if built != {f"{MACHINES[architecture]}-linux-gnu"}:
        return (
            f"{PACKAGES} is built for {', '.join(sorted(built)) or 'nothing'}, and the stack is for {architecture}:"
            f" make build ARCHITECTURE={architecture}, or change the stack by Architecture=… in PARAMETERS"
        )
    return None


def parameter_errors(words: list[str], declared: dict[str, object]) -> list[str]:
    """One message for each error. Values are not shown, because they may be secret."""
    errors = []
    for word in words:
        name, equals, _ = word.partition("=")
        if not equals:
            errors.append(f"{name}: PARAMETERS is NAME=VALUE, separated by spaces")
        elif name not in declared:
            similar = get_close_matches(name, declared, n=1)
            errors.append(f"{name}: the template has no such parameter{''.join(f'; {each}?' for each in similar)}")
    counts = Counter(word.partition("=")[0] for word in words)
    return errors + [f"{name}: given {count} times" for name, count in counts.items() if count > 1]


def stack_architecture(overrides: dict[str, str], stack: str) -> str:
    """The stack's architecture: the given one, else the deployed one, else the template's default.

    Raises botocore's errors if the stack cannot be described.
    """
    if "Architecture" in overrides:
        return overrides["Architecture"]
    try:
        [found] = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError" and "does not exist" in str(error):
            found = {}
        else:
            raise
    now: dict[str, str] = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}
    return now.get("Architecture", "x86_64")


def package_machines(packages: Path) -> set[str]:
    """Platforms of the packages' extension modules, such as ``x86_64-linux-gnu``, from their file names."""
    return {path.name.split(".")[-2].split("-", 2)[-1] for path in packages.glob("*/**/*.cpython-*.so")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
