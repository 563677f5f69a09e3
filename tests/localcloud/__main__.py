"""`make run`: the function from the rename event to the outcome.

On two local clouds, or, with a key for Huawei Cloud in the environment, on the real one and a local AWS.
"""

import json
import os
import sys
import time
from dataclasses import dataclass

from tests.localcloud.aws import ROOT, LocalAwsError
from tests.localcloud.process import quiet_end
from tests.localcloud.stack import Clouds, Event, HuaweiAccount, local_clouds, rename_event

REQUIRED = {
    "HUAWEICLOUD_REGION": "region of the endpoint service, as in cn-north-4",
    "HUAWEICLOUD_SDK_PROJECT_ID": "its project",
    "RENAME_SERVICE_ID": "id of the endpoint service to rename",
    "RENAME_TO": "its new name",
}


@dataclass(frozen=True)
class Rename:
    """One rename event, its trigger, and the expected name or error code."""

    title: str
    trigger: str
    event: Event
    expected: str


def main() -> int:
    started = time.monotonic()

    def progress(line: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {line}")

    account = None
    if {"HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"} <= os.environ.keys():
        missing = [f"  {name}  {meaning}" for name, meaning in REQUIRED.items() if not os.environ.get(name)]
        if missing:
            print("There is a key for Huawei Cloud in the environment, so this would rename for real. It needs also:")
            print(*missing, sep="\n")
            print("Without HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK it renames on a local Huawei Cloud.")
            return 2
        account = _real_account()
    try:
        with local_clouds(progress, account) as clouds:
            progress("Ready.")
            as_expected = [_show(number, rename, clouds) for number, rename in enumerate(_renames(clouds), start=1)]
    except LocalAwsError as error:
        print(error, file=sys.stderr)
        return 1
    print("\nEverything arrived as expected." if all(as_expected) else "\nNot everything arrived as expected.")
    return 0 if all(as_expected) else 1


def _real_account() -> HuaweiAccount:
    region = os.environ["HUAWEICLOUD_REGION"]
    return HuaweiAccount(
        ak=os.environ["HUAWEICLOUD_SDK_AK"],
        sk=os.environ["HUAWEICLOUD_SDK_SK"],
        security_token=os.environ.get("HUAWEICLOUD_SDK_SECURITY_TOKEN"),
        project_id=os.environ["HUAWEICLOUD_SDK_PROJECT_ID"],
        region=region,
        # The SDK's own way to name another endpoint.
        endpoint=os.environ.get(f"HUAWEICLOUD_SDK_REGION_VPCEP_{region.upper().replace('-', '_')}", "").split(",")[0],
    )


def _renames(clouds: Clouds) -> list[Rename]:
    if clouds.local_huawei is None:
        event = rename_event(os.environ["RENAME_SERVICE_ID"], os.environ["RENAME_TO"])
        return [Rename("through the queue, on the real Huawei Cloud", "queue", event, os.environ["RENAME_TO"])]
    first = _sample("rename-structured.json")
    clouds.huawei.add_service(first["data"]["vpc_endpoint_service_id"], name="billing")
    return [
        Rename("through the queue", "queue", first, "orders"),
        Rename("through the HTTP API", "HTTP", _sample("rename-with-precondition.json"), "billing"),
        Rename("of a service that does not exist", "queue", _sample("unknown-service.json"), "EndPoint.2003"),
    ]


def _sample(name: str) -> Event:
    event: Event = json.loads((ROOT / "tests" / "events" / name).read_text(encoding="utf-8"))
    return event


def _show(number: int, rename: Rename, clouds: Clouds) -> bool:
    """Send one event, and print its calls and its outcome; whether that is as expected."""
    event, data = rename.event, rename.event["data"]
    service_id, name = data["vpc_endpoint_service_id"], data["endpoint_service_name"]
    calls_before = len(clouds.huawei.calls) if clouds.local_huawei else 0
    started = time.monotonic()
    print(f"\n{number}. A rename {rename.title}")
    _line("event", f"{event['id']} from {event['source']}: {service_id} → {name!r}")
    if rename.trigger == "queue":
        clouds.send_rename_event(event)
    else:
        _line("reply", f"HTTP {clouds.post_rename_event(event).status}")
    outcomes = clouds.outcomes(timeout=60, where=lambda outcome: bool(outcome["data"]["request"]["id"] == event["id"]))
    seconds = time.monotonic() - started
    if clouds.local_huawei:
        for call in clouds.huawei.calls[calls_before:]:
            path = call.path.replace(clouds.account.project_id, "{project_id}")
            _line("VPCEP", f"{call.method} {path} → {call.status} {call.code or ''}".rstrip())
    if not outcomes:
        function = "RenameFromQueue" if rename.trigger == "queue" else "RenameFromHttp"
        _line("outcome", f"none in {seconds:.0f} s; {function} logged:")
        print(*clouds.function_logs(function), sep="\n")
        return False
    outcome = outcomes[0]["data"]
    _line("outcome", f"{outcomes[0]['type']} after {seconds:.1f} s")
    if error := outcome.get("error"):
        _line("", f"{error['code']} ({error['kind']}): {error['message']}")
        return bool(error["code"] == rename.expected)
    _line("", f"the service is named {outcome['service_name']!r}")
    in_force = clouds.huawei.name_of(service_id) if clouds.local_huawei else name
    return bool(rename.expected == name == in_force)


def _line(label: str, text: str) -> None:
    print(f"   {label:<8} {text}")


if __name__ == "__main__":
    with quiet_end():
        sys.exit(main())
