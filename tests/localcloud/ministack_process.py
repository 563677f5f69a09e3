"""MiniStack's process: run by MiniStack's own interpreter, never imported by the tests.

It ends, and every function that it runs with it, when the pipe to whoever started it closes, however that one ends.
"""

import json
import os
import signal
import sys
import threading

from ministack import app
from ministack.core import iam_actions
from ministack.core.responses import get_account_id, get_region
from ministack.services import eventbridge
from ministack.services.cloudformation import changesets, engine, provisioners

_tag_context = iam_actions.request_tag_context
_apply_transforms = engine._apply_transforms
_alarm = provisioners._RESOURCE_HANDLERS["AWS::CloudWatch::Alarm"]


def _with_event_source(service: str, action: str, body: bytes, parameters: dict) -> dict:
    """MiniStack does not know the condition key events:source, which the functions' roles restrict PutEvents by."""
    context = _tag_context(service, action, body, parameters)
    if action == "events:PutEvents":
        context["events:source"] = ",".join(sorted({entry["Source"] for entry in json.loads(body)["Entries"]}))
    return context


def _with_parameters(template: dict, provided: list | None = None, previous: dict | None = None) -> dict:
    """MiniStack lets SAM see the parameters' defaults only: the values take their places."""
    values = engine._transform_parameters(template, provided, previous)
    declared = template.get("Parameters", {})
    parameters = {name: {**declared[name], "Default": value} for name, value in values.items()}
    return _apply_transforms({**template, "Parameters": {**declared, **parameters}}, provided, previous)


def _create_archive(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
    """MiniStack has archives, but its CloudFormation makes none."""
    name = f"{stack}-{logical_id}"
    status, _, body = eventbridge._create_archive(
        {
            "ArchiveName": name,
            "EventSourceArn": properties["SourceArn"],
            "EventPattern": json.dumps(properties["EventPattern"]),
            "RetentionDays": int(properties["RetentionDays"]),
        }
    )
    if status >= 400:
        raise ValueError(body.decode())
    return name, {"Arn": json.loads(body)["ArchiveArn"]}


def _note_query(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
    """MiniStack knows no saved queries: their names are all that is kept."""
    return properties["Name"], {}


def _create_alarm(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
    """MiniStack computes no metric math: of alarms by it, the names are all that is kept."""
    if "Metrics" not in properties:
        return _alarm["create"](logical_id, properties, stack)
    name = f"{stack}-{logical_id}"
    return name, {"Arn": f"arn:aws:cloudwatch:{get_region()}:{get_account_id()}:alarm:{name}"}


def _delete_nothing(physical_id: str, properties: dict) -> None:
    """The cloud ends with its stack."""


def _die_with_parent() -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    iam_actions.request_tag_context = _with_event_source
    changesets._apply_transforms = _with_parameters
    provisioners._RESOURCE_HANDLERS["AWS::CloudWatch::Alarm"] = {**_alarm, "create": _create_alarm}
    provisioners._RESOURCE_HANDLERS["AWS::Events::Archive"] = {"create": _create_archive, "delete": _delete_nothing}
    provisioners._RESOURCE_HANDLERS["AWS::Logs::QueryDefinition"] = {"create": _note_query, "delete": _delete_nothing}
    # With TLS it would listen on port 443 as well.
    app._port_is_bindable = lambda host, port: False
    threading.Thread(target=_die_with_parent, daemon=True).start()
    app.main()
