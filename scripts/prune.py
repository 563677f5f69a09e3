"""Lists and deletes unused versions of a stack's functions.

Each version takes code storage, and with SnapStart is charged for until it is deleted. Kept are the newest two of each
function, those that an alias sends traffic to (two during a gradual deployment), and the one in the stack. Run by the
SAM CLI's interpreter.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

KEEP_NEWEST = 2


def main(stack: str, *, yes: bool) -> str | None:
    """An error message, or None."""
    try:
        unused = unused_versions(stack)
        if not unused:
            print("No version to delete.")
            return None
        if not yes and input(f"Delete these {len(unused)}? [y/N] ").strip().lower() != "y":
            return "Nothing was deleted."
        return delete(unused)
    except EOFError:
        return "Nothing was deleted: there is no terminal to confirm on. Use YES=1 to delete without confirmation."
    except (BotoCoreError, ClientError) as error:
        return str(error)


def unused_versions(stack: str) -> list[tuple[str, str]]:
    """Functions with their unused versions, oldest first. Prints each version, with the reason to keep it if any."""
    cloudformation, client = boto3.client("cloudformation"), boto3.client("lambda")
    resources = _all(cloudformation, "list_stack_resources", "StackResourceSummaries", StackName=stack)
    ids = [(each["ResourceType"], each.get("PhysicalResourceId", "")) for each in resources]
    of_stack = {identifier for kind, identifier in ids if kind == "AWS::Lambda::Version"}
    unused = []
    for function in (identifier for kind, identifier in ids if kind == "AWS::Lambda::Function"):
        found = _all(client, "list_versions_by_function", "Versions", FunctionName=function)
        versions = sorted((each for each in found if each["Version"] != "$LATEST"), key=lambda v: int(v["Version"]))
        aliases = _all(client, "list_aliases", "Aliases", FunctionName=function)
        reasons = _reasons_to_keep(versions, aliases, of_stack)
        for version in versions:
            number = version["Version"]
            print(f"{function}:{number}  {version['LastModified']}  {reasons.get(number, 'to be deleted')}")
        unused += [(function, each["Version"]) for each in versions if each["Version"] not in reasons]
    return unused


def _reasons_to_keep(
    versions: list[dict[str, Any]], aliases: list[dict[str, Any]], of_stack: set[str]
) -> dict[str, str]:
    reasons = {each["Version"]: "among the newest" for each in versions[-KEEP_NEWEST:]}
    reasons |= {each["Version"]: "the stack's" for each in versions if each["FunctionArn"] in of_stack}
    for alias in aliases:
        weights = alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
        reasons |= dict.fromkeys([alias["FunctionVersion"], *weights], f"alias {alias['Name']}")
    return reasons


def delete(versions: list[tuple[str, str]]) -> str | None:
    """Delete each, and return the errors: an alias may have been moved to a version in the meantime."""
    client = boto3.client("lambda")
    errors = []
    for function, version in versions:
        try:
            client.delete_function(FunctionName=function, Qualifier=version)
        except client.exceptions.ResourceNotFoundException:
            continue  # already deleted
        except ClientError as error:
            errors.append(f"{function}:{version}: {error}")
    print(f"Deleted {len(versions) - len(errors)}.")
    return "\n".join(errors) or None


def _all(client: Any, operation: str, key: str, **arguments: str) -> list[dict[str, Any]]:
    return [each for page in client.get_paginator(operation).paginate(**arguments) for each in page[key]]


if __name__ == "__main__":
    sys.exit(main(os.environ["STACK"], yes="--yes" in sys.argv[1:]))
