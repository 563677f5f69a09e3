"""MiniStack's process: run by MiniStack's own interpreter, never imported by the tests.

It ends, with all functions that it runs, when the pipe from its parent closes, however that one ends. Then it removes
its directory.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs

from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import eventbridge, sts
from ministack.services.cloudformation import changesets, engine, provisioners

# The DigestInfo of SHA-256 that PKCS #1 has before the hash.
_SHA_256 = bytes.fromhex("3031300d060960864801650304020105000420")
_TOKEN = re.compile(rb"(?<=<WebIdentityToken>)[^<]+")

_tag_context = iam_actions.request_tag_context
_apply_transforms = engine._apply_transforms
_alarm = provisioners._RESOURCE_HANDLERS["AWS::CloudWatch::Alarm"]
_sts = sts.handle_request
_resolve_condition_key = iam_evaluator._resolve_condition_key
_access_denied = iam_actions.access_denied_response


def _with_condition_keys(service: str, action: str, body: bytes, parameters: dict) -> dict:
    """MiniStack lacks those with which the functions' roles restrict PutEvents and GetWebIdentityToken."""
    context = _tag_context(service, action, body, parameters)
    if action == "events:PutEvents":
        sources = sorted({entry["Source"] for entry in json.loads(body)["Entries"]})
        context["events:source"] = sources if len(sources) > 1 else sources[0]
    if action == "sts:GetWebIdentityToken":
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        context["sts:IdentityTokenAudience"] = [form[name] for name in form if name.startswith("Audience.member.")]
        context["sts:DurationSeconds"] = form.get("DurationSeconds", "300")
        context["sts:SigningAlgorithm"] = form.get("SigningAlgorithm", "")
    return context


def _resolved(key: str, context: iam_evaluator.EvalContext) -> object:
    """MiniStack has the session's ARN instead of the role's, and no key for services."""
    value = _resolve_condition_key(key, context)
    match key.lower():
        case "aws:principalarn":
            return re.sub(r":sts:(.*):assumed-role/([^/]+)/.*", r":iam:\1:role/\2", value)
        case "aws:principalisawsservice":
            return str(context.principal_type == "Service").lower()
    return value


def _tell_denied(service: str, action: str, principal: str = "", *rest: object, **named: object) -> tuple:
    """The log has who was denied what."""
    print(f"DENIED {principal} {action}", flush=True)
    return _access_denied(service, action, principal, *rest, **named)


def _create_bus_policy(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
    """MiniStack's CloudFormation does not create them, and its API does not support Deny."""
    bus, sid = properties["EventBusName"], properties["StatementId"]
    statement = {"Sid": sid, **properties["Statement"]}
    eventbridge._event_bus_policies[bus] = {"Version": "2012-10-17", "Statement": [statement]}
    return sid, {}


def _bus_policy(arn: str) -> tuple[dict, str] | None:
    """MiniStack stores the policy of a bus, and does not evaluate it."""
    policy = eventbridge._event_bus_policies.get(arn.rpartition("/")[2])
    return (policy, get_account_id()) if policy else None


def _with_parameters(template: dict, provided: list | None = None, previous: dict | None = None) -> dict:
    """MiniStack's SAM sees the parameters' defaults only: they are replaced by the values."""
    values = engine._transform_parameters(template, provided, previous)
    declared = template.get("Parameters", {})
    parameters = {name: {**declared[name], "Default": value} for name, value in values.items()}
    return _apply_transforms({**template, "Parameters": {**declared, **parameters}}, provided, previous)


def _create_archive(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
    """MiniStack has archives, but its CloudFormation does not create them."""
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
    """MiniStack has no saved queries: only their names are stored."""
    return properties["Name"], {}


def _create_alarm(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
    """MiniStack has no metric math: only the names of such alarms are stored."""
    if "Metrics" not in properties:
        return _alarm["create"](logical_id, properties, stack)
    name = f"{stack}-{logical_id}"
    return name, {"Arn": f"arn:aws:cloudwatch:{get_region()}:{get_account_id()}:alarm:{name}"}


def _delete_nothing(physical_id: str, properties: dict) -> None:
    """The cloud ends with its stack."""


async def _with_signed_tokens(*request: object) -> tuple:
    """MiniStack's web identity tokens are those of its root user, and their signature cannot be verified."""
    status, headers, body = await _sts(*request)
    body = body.encode() if isinstance(body, str) else body
    if found := _TOKEN.search(body):
        claims = json.loads(base64.urlsafe_b64decode(found[0].split(b".")[1] + b"=="))
        body = body.replace(found[0], _signed(claims))
        headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
    return status, headers, body


def _signed(claims: dict) -> bytes:
    """By RS256 (RSASSA-PKCS1-v1_5), since MiniStack's environment has no library for it."""
    issuer = json.loads(Path("issuer.json").read_text())
    role = re.sub(r":sts:(.*):assumed-role/([^/]+)/.*", r":iam:\1:role/\2", iam_evaluator.caller_arn())
    header = {"alg": "RS256", "kid": issuer["kid"], "typ": "JWT"}
    parts = [header, claims | {"iss": issuer["issuer"], "sub": role}]
    signed = b".".join(_encoded(json.dumps(part).encode()) for part in parts)
    size = (issuer["n"].bit_length() + 7) // 8
    digest = _SHA_256 + hashlib.sha256(signed).digest()
    padded = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
    signature = pow(int.from_bytes(padded, "big"), issuer["d"], issuer["n"])
    return signed + b"." + _encoded(signature.to_bytes(size, "big"))


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _die_with_parent(directory: str) -> None:
    sys.stdin.read()
    shutil.rmtree(directory, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    iam_actions.request_tag_context = _with_condition_keys
    iam_actions.access_denied_response = _tell_denied
    iam_evaluator._resolve_condition_key = _resolved
    eventbridge.bus_policy_for_arn = _bus_policy
    iam_evaluator._RESOURCE_POLICY_LOOKUPS["events"] = ("eventbridge", "bus_policy_for_arn")
    sts.handle_request = _with_signed_tokens
    changesets._apply_transforms = _with_parameters
    provisioners._RESOURCE_HANDLERS["AWS::CloudWatch::Alarm"] = {**_alarm, "create": _create_alarm}
    provisioners._RESOURCE_HANDLERS["AWS::Events::Archive"] = {"create": _create_archive, "delete": _delete_nothing}
    provisioners._RESOURCE_HANDLERS["AWS::Events::EventBusPolicy"] = {
        "create": _create_bus_policy,
        "delete": _delete_nothing,
    }
    provisioners._RESOURCE_HANDLERS["AWS::Logs::QueryDefinition"] = {"create": _note_query, "delete": _delete_nothing}
    # With TLS it would listen on port 443 as well.
    app._port_is_bindable = lambda host, port: False
    threading.Thread(target=_die_with_parent, args=(sys.argv.pop(),), daemon=True).start()
    app.main()
