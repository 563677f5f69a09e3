"""Events of the running local clouds: calls to VPCEP, outcomes, faults, and log lines on request."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from threading import Condition, Event, RLock, Thread
from typing import Any, Final, Literal, Self

from cli.model import printable
from tests.localcloud.huawei import Call
from tests.localcloud.stack import FUNCTIONS, Clouds

NO_FAULT: Final = "none"
FAULTS: Final = {
    "outage": "503 APIGW.0613 to each call",
    "refused-key": "401 APIGW.0301 to each call",
    "throttling": "429 APIGW.0308 beyond two calls in ten seconds",
    "slow": "each reply takes five seconds",
    NO_FAULT: "ends the fault; the function may pause for up to a minute before it calls again",
}

CALLS_SECONDS: Final = 0.1
LOGS_SECONDS: Final = 0.5
# A line may be in CloudWatch later than others with a newer time.
_LATE_LINES_SECONDS: Final = 30.0
_KEPT_ENTRIES: Final = 10_000


@dataclass(frozen=True)
class Entry:
    """An event on the local clouds: one line of text, and the data that it is made from."""

    number: int
    time: float
    kind: Literal["VPCEP", "outcome", "fault", "log"]
    text: str
    detail: dict[str, Any] | None = None


class Monitor:
    """Collects entries until the end of the `with` block, and injects faults of Huawei Cloud."""

    def __init__(self, clouds: Clouds) -> None:
        self.fault = NO_FAULT
        self.shows_logs = False
        self.error: Exception | None = None
        self._clouds = clouds
        self._entries: deque[Entry] = deque(maxlen=_KEPT_ENTRIES)
        self._added = 0
        self._change = Condition()
        self._order = RLock()
        self._stopping = Event()
        self._logged: Counter[tuple[str, ...]] = Counter()
        self._logs_since = 0.0
        self._threads = [
            Thread(target=self._repeat, args=(seconds, collect), daemon=True)
            for seconds, collect in [
                (CALLS_SECONDS, self._collect_calls),
                (0.0, self._collect_outcome),
                (LOGS_SECONDS, self._collect_logs),
            ]
        ]

    def __enter__(self) -> Self:
        for service in ("sqs", "logs"):
            self._clouds.aws.client(service)  # threads must not make the same client at once
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def after(self, number: int, seconds: float) -> list[Entry]:
        """The entries after this number, oldest first; waits for one for so many seconds."""
        with self._change:
            self._change.wait_for(lambda: self._added > number or self.error is not None, timeout=seconds)
            return [entry for entry in self._entries if entry.number > number]

    def set_fault(self, name: str) -> None:
        """Inject this fault of Huawei Cloud, and end the one before.

        Raises:
            KeyError: there is no such fault.
        """
        with self._order:
            text = FAULTS[name]
            huawei = self._clouds.huawei
            huawei.end_faults()
            match name:
                case "outage":
                    huawei.fail(503, "APIGW.0613", times=None, on="any", message="No backend is available.")
                case "refused-key":
                    message = "Incorrect IAM authentication information: verify aksk signature fail"
                    huawei.fail(401, "APIGW.0301", times=None, on="any", message=message)
                case "throttling":
                    huawei.throttle(limit=2, seconds=10)
                case "slow":
                    huawei.fail(kind="slow", delay=5, times=None, on="any")
            self.fault = name
            self._add("fault", f"{name}: {text}")

    def show_logs(self, *, wanted: bool) -> None:
        """Start or stop showing log lines of the functions."""
        with self._order:
            if wanted and not self.shows_logs:
                self._logs_since = time.time()
            self.shows_logs = wanted

    def _repeat(self, seconds: float, collect: Callable[[], None]) -> None:
        try:
            while not self._stopping.wait(seconds):
                collect()
        except Exception as error:  # noqa: BLE001 - any error ends the command, with its text
            with self._change:
                self.error = error
                self._change.notify_all()

    def _collect_calls(self) -> None:
        with self._order:
            for call in self._clouds.huawei.take_calls():
                self._add("VPCEP", _call_line(call), asdict(call))

    def _collect_outcome(self) -> None:
        for outcome in self._clouds.outcomes(timeout=1.0):
            with self._order:
                self._collect_calls()  # which were made before it
                self._add("outcome", _outcome_line(outcome), outcome)

    def _collect_logs(self) -> None:
        if not self.shows_logs:
            return
        since = max(self._logs_since, time.time() - _LATE_LINES_SECONDS)
        client = self._clouds.aws.client("logs")
        found: Counter[tuple[str, ...]] = Counter()
        for function in FUNCTIONS:
            pages = client.get_paginator("filter_log_events").paginate(
                logGroupName=self._clouds.stack.resources[f"{function}Logs"], startTime=int(since * 1000)
            )
            for event in (event for page in pages for event in page["events"]):
                # MiniStack gives lines no ids; several may be the same.
                line = (function, event["logStreamName"], str(event["timestamp"]), event["message"])
                found[line] += 1
                if found[line] > self._logged[line]:
                    self._add("log", f"{function}: {event['message']}")
        self._logged = found

    def _add(self, kind: Literal["VPCEP", "outcome", "fault", "log"], text: str, detail: Any = None) -> None:
        with self._change:
            self._added += 1
            self._entries.append(Entry(self._added, time.time(), kind, printable(text).strip(), detail))
            self._change.notify_all()


def _call_line(call: Call) -> str:
    name = "" if call.name is None else f" {call.name!r}"
    answer = "no reply" if call.status is None else f"{call.status} {call.code or ''}"
    path = call.path.replace(call.project_id, "{project_id}") if call.project_id else call.path
    return f"{call.method} {path}{name} → {answer}"


def _outcome_line(outcome: dict[str, Any]) -> str:
    data = outcome["data"]
    if error := data.get("error"):
        told = f"{error['code']} ({error['kind']}): {error['message']}"
        violations = "; ".join(f"{each['path']} {each['message']}" for each in error["violations"])
        result = f"{told} {violations}"
    else:
        result = f"is named {data['service_name']!r}"
    return f"{outcome['type']}: {data.get('vpc_endpoint_service_id')} {result}"


def as_json(entry: Entry) -> str:
    return json.dumps(asdict(entry))
