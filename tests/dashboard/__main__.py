"""`make dashboard`: the template's dashboard for a run with an outage, on the local clouds.

For five minutes events are sent to both triggers, and for a minute and a half of them Huawei Cloud responds with 503.
The data points of CloudWatch are recorded from the sources that AWS uses: the function's metrics and durations from its
logs, the queues' sizes once a second, the API's from its responses. Each period of the dashboard is a sixtieth of that
in the template, just as the run is a sixtieth of five hours.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tests.bench.report import to_json
from tests.cloudwatch import Alarm, Metric, Record
from tests.dashboard.widgets import STACK, lines, resolve, values, widgets
from tests.localcloud.stack import FUNCTIONS, Clouds, Event, local_clouds, rename_event
from tests.template import of_type

FIGURES: Final = Path(__file__).with_name("figures.json")
RUN_SECONDS: Final = 300
OUTAGE_SECONDS: Final = range(60, 150)
SENT_A_SECOND: Final = 2
SERVICES: Final = 40
TIMES_FASTER: Final = 60
QUEUES: Final = ("RenameQueue", "UnsettledQueue", "RenameDeadLetterQueue")
# SQS's age excludes messages that were received so often.
COUNTED_RECEIVES: Final = 3


def main() -> None:
    began = time.time()

    def progress(line: str) -> None:
        print(f"[{time.time() - began:5.1f} s] {line}", file=sys.stderr, flush=True)

    with local_clouds(progress) as clouds:
        progress(f"Ready. Sending events for {RUN_SECONDS} seconds …")
        record = _Run(clouds).record(progress)
    FIGURES.write_text(to_json(figures(record)), encoding="utf-8")


def figures(record: Record) -> dict[str, Any]:
    """For each widget its lines by label, or its values; and the state of the alarms at the end."""
    shown_widgets: list[dict[str, Any]] = []
    for widget in widgets():
        properties = widget["properties"]
        place = {name: widget[name] for name in ("type", "x", "y", "width", "height")}
        match widget["type"], properties.get("view"):
            case "text", _:
                shown: dict[str, Any] = {"text": properties["markdown"].lstrip("# ")}
            case "alarm", _:
                names = [resolve(alarm) for alarm in properties["alarms"]]
                shown = {"title": properties["title"], "alarms": {name: _state(name, record) for name in names}}
            case "metric", "singleValue":
                whole = values(lines(widget, record), record, 0, RUN_SECONDS)
                shown = {"title": properties["title"], "values": {label: _short(it) for label, it in whole.items()}}
            case _:
                period = properties.get("period", 300) // TIMES_FASTER
                shown = {
                    "title": properties["title"],
                    "stacked": properties.get("stacked", False),
                    "period": period,
                    "lines": _lines(widget, record, period),
                }
        shown_widgets.append(place | shown)
    outage = [OUTAGE_SECONDS.start, OUTAGE_SECONDS.stop]
    return {"seconds": RUN_SECONDS, "outage": outage, "times_faster": TIMES_FASTER, "widgets": shown_widgets}


def _lines(widget: dict[str, Any], record: Record, period: int) -> dict[str, list[float | None]]:
    shown = lines(widget, record)
    spans = [values(shown, record, start, start + period) for start in range(0, RUN_SECONDS, period)]
    return {label: [_short(span[label]) for span in spans] for label in spans[0]}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _state(name: str, record: Record) -> str:
    properties = of_type("AWS::CloudWatch::Alarm")[name]
    return Alarm(properties, lambda value: resolve(_text(value))).states(record, RUN_SECONDS)[-1]


def _text(value: Any) -> str:
    """An intrinsic function in the syntax of Fn::Sub."""
    if isinstance(value, dict):
        [named] = value.values()
        return f"${{{named}}}"
    return str(value)


class _Run:
    """Sends events, and records the data points of CloudWatch."""

    def __init__(self, clouds: Clouds) -> None:
        self._clouds = clouds
        self._record = Record()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._sent: dict[str, float] = {}
        self._began = time.time()

    def record(self, progress: Any) -> Record:
        for number in range(SERVICES):
            self._clouds.huawei.add_service(f"service-{number}")
        self._began = time.time()
        sampler = threading.Thread(target=self._sample_queues)
        sampler.start()
        with ThreadPoolExecutor(8) as posts:
            for number in range(RUN_SECONDS * SENT_A_SECOND):
                time.sleep(max(0.0, number / SENT_A_SECOND - self._now()))
                self._command_outage(number, progress)
                event = _event(number)
                if number % 5 == 0:
                    posts.submit(self._post, event)
                else:
                    with self._lock:
                        self._sent[event["id"]] = self._now()
                    self._clouds.send_rename_event(event)
        time.sleep(max(0.0, RUN_SECONDS - self._now()))
        self._over.set()
        sampler.join()
        self._read_logs()
        return self._record

    def _command_outage(self, number: int, progress: Any) -> None:
        if number == OUTAGE_SECONDS.start * SENT_A_SECOND:
            progress("The outage of Huawei Cloud begins …")
            self._clouds.huawei.fail(503, "APIGW.0613", times=None, on="any")
        if number == OUTAGE_SECONDS.stop * SENT_A_SECOND:
            progress("The outage of Huawei Cloud ends …")
            self._clouds.huawei.reset()

    def _now(self) -> float:
        return time.time() - self._began

    def _put(self, at: float, metric: Metric, *points: float) -> None:
        with self._lock:
            self._record.put(at, metric, *points)

    def _post(self, event: Event) -> None:
        began = self._now()
        status = self._clouds.post_rename_event(event).status
        for name, value in (
            ("Count", 1.0),
            ("Latency", 1_000 * (self._now() - began)),
            ("4XXError", float(400 <= status < 500)),
            ("5XXError", float(status >= 500)),
        ):
            self._put(began, Metric.of("AWS/ApiGateway", name, ApiName=STACK, Stage="v1"), value)

    def _sample_queues(self) -> None:
        sqs = self._clouds.aws.client("sqs")
        names = {
            "ApproximateNumberOfMessages": "ApproximateNumberOfMessagesVisible",
            "ApproximateNumberOfMessagesNotVisible": "ApproximateNumberOfMessagesNotVisible",
        }
        second = 0
        while not self._over.is_set():
            time.sleep(max(0.0, second - self._now()))
            for queue in QUEUES:
                url = self._clouds.stack.resources[queue]
                found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names))["Attributes"]
                for attribute, name in names.items():
                    self._put(second, Metric.of("AWS/SQS", name, QueueName=queue), float(found[attribute]))
            second += 1

    def _read_logs(self) -> None:
        handled: dict[str, list[dict[str, Any]]] = {}
        for function in FUNCTIONS:
            for at, line in self._log_lines(function):
                if report := re.search(r"^REPORT .*\tDuration: ([0-9.]+) ms", line):
                    self._put(at, Metric.of("AWS/Lambda", "Duration", FunctionName=function), float(report[1]))
                    for name in ("Errors", "Throttles"):
                        self._put(at, Metric.of("AWS/Lambda", name, FunctionName=function), 0.0)
                elif re.search("Task timed out|Runtime exited", line):
                    self._put(at, Metric.of("AWS/Lambda", "Errors", FunctionName=function), 1.0)
                elif line.startswith('{"_aws"'):
                    self._read_metrics(json.loads(line))
                elif line.startswith("{") and (entry := json.loads(line)).get("message") == "rename event handled":
                    handled.setdefault(entry["correlation_id"], []).append(entry | {"at": at})
        self._put_age(handled)

    def _log_lines(self, function: str) -> Iterator[tuple[float, str]]:
        pages = self._clouds.aws.client("logs").get_paginator("filter_log_events")
        for page in pages.paginate(logGroupName=self._clouds.stack.resources[f"{function}Logs"]):
            for event in page["events"]:
                yield event["timestamp"] / 1_000 - self._began, event["message"].strip()

    def _read_metrics(self, document: dict[str, Any]) -> None:
        at = document["_aws"]["Timestamp"] / 1_000 - self._began
        for directive in document["_aws"]["CloudWatchMetrics"]:
            for metric in directive["Metrics"]:
                points = document[metric["Name"]]
                for names in directive["Dimensions"]:
                    dimensions = {name: document[name] for name in names}
                    named = Metric.of(directive["Namespace"], metric["Name"], **dimensions)
                    self._put(at, named, *(points if isinstance(points, list) else [points]))

    def _put_age(self, handled: dict[str, list[dict[str, Any]]]) -> None:
        """SQS's age of the oldest message: of those that are not settled and were not received three times."""
        counted: list[tuple[float, float]] = []
        for id_, sent in self._sent.items():
            ends = [
                entry["at"]
                for entry in handled.get(id_, [])
                if entry["status"] == "settled" or entry.get("receive_count", 1) >= COUNTED_RECEIVES
            ]
            counted.append((sent, min(ends, default=RUN_SECONDS)))
        for second in range(RUN_SECONDS):
            oldest = min((sent for sent, end in counted if sent <= second < end), default=second)
            metric = Metric.of("AWS/SQS", "ApproximateAgeOfOldestMessage", QueueName="RenameQueue")
            self._put(second, metric, second - oldest)


def _event(number: int) -> Event:
    """Most are valid; some are for a service that does not exist, and some have an invalid name."""
    service, name = f"service-{number % SERVICES}", f"name-{number}"
    if number % 50 == 7:
        service = "no-such-service"
    if number % 50 == 23:
        name = "not a name"
    return rename_event(service, name)


if __name__ == "__main__":
    main()
