"""Replies of the server of the page of `make up`, and its monitor. The page itself is tested by `make page-test`."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast

import pytest
import urllib3

from tests.fakes.identifiers import OTHER_SERVICE, SERVICE
from tests.localcloud import up
from tests.localcloud.aws import ROOT, LocalAwsError
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.monitor import FAULTS, Monitor
from tests.localcloud.page.server import MAX_BODY, Page
from tests.localcloud.stack import Clouds, Reply
from tests.unit.localcloud.clients import client_of, rename, result_of

FILES: Final = ("/", "/page.css", "/page.js", "/openapi.json")
SECONDS: Final = 10.0


class FakeClouds:
    """A local Huawei Cloud, an API that notes what it gets, and a bus with the outcomes that a test puts on it."""

    def __init__(self, huawei: HuaweiCloud) -> None:
        self.huawei = huawei
        self.aws = SimpleNamespace(client=lambda service: None, tail=lambda: "the end of its log")
        self.posted: list[tuple[Any, dict[str, str], str]] = []
        self.reply: Reply | Exception = Reply(200, {"content-type": "application/json"}, "{}")
        self.bus: list[dict[str, Any] | Exception] = []

    def post_rename_event(self, event: Any, headers: Mapping[str, str], *, query: str = "") -> Reply:
        self.posted.append((event, dict(headers), query))
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    def outcomes(self, timeout: float) -> list[dict[str, Any]]:
        if not self.bus:
            time.sleep(0.01)
            return []
        outcome = self.bus.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return [outcome]


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: str


@pytest.fixture
def clouds(cloud: HuaweiCloud) -> FakeClouds:
    return FakeClouds(cloud)


@pytest.fixture
def monitor(clouds: FakeClouds) -> Iterator[Monitor]:
    with Monitor(cast("Clouds", clouds)) as monitor:
        yield monitor


@pytest.fixture
def page(clouds: FakeClouds, monitor: Monitor) -> Iterator[Page]:
    with Page(cast("Clouds", clouds), monitor) as page:
        yield page


def port_of(page: Page) -> int:
    return int(page.url.rpartition(":")[2])


@contextmanager
def connection_to(page: Page) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=SECONDS)) as connection:
        yield connection


def ask(
    page: Page, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    with connection_to(page) as connection:
        connection.request(method, path, None if body is None else body.encode(), dict(headers or {}))
        reply = connection.getresponse()
        sent = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, sent, reply.read().decode("utf-8"))


def entries_until(monitor: Monitor, kind: str) -> list[str]:
    """The lines so far, the first of a kind included."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        entries = monitor.after(0, seconds=0.1)
        if any(entry.kind == kind for entry in entries):
            return [f"{entry.kind} {entry.text}" for entry in entries]
    pytest.fail(f"no {kind} in {SECONDS} s")


@pytest.mark.parametrize("path", FILES)
def test_file_of_the_page_is_served_and_requests_no_other_server(page: Page, path: str) -> None:
    answer = ask(page, "GET", path)

    assert answer.status == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert path == "/openapi.json" or re.findall(r"https?:|//[a-z]", re.sub(r"(?m)^//.*", "", answer.body)) == []


def test_openapi_document_is_that_of_the_documentation(page: Page) -> None:
    assert ask(page, "GET", "/openapi.json").body == (ROOT / "docs/openapi.json").read_text(encoding="utf-8")


def test_other_paths_and_methods_are_not_served(page: Page) -> None:
    assert [ask(page, "GET", path).status for path in ("/server.py", "/../server.py", "/fault")] == [404] * 3
    assert ask(page, "POST", "/", "x").status == 404
    assert ask(page, "PUT", "/", "x").status == 501


REQUESTS: Final = [
    *(("GET", path, None) for path in (*FILES, "/services", "/state", "/entries")),
    *(("POST", path, body) for path, body in (("/fault", "outage"), ("/logs", "on"), ("/rename-events", "{}"))),
]
FOREIGN: Final = {
    "a foreign host": {"Host": "evil.example"},
    "a foreign host on this port": {"Host": "evil.example:{port}"},
    "another port of this host": {"Host": "127.0.0.1:1"},
    "this host without its port": {"Host": "127.0.0.1"},
    "a foreign origin": {"Origin": "https://evil.example"},
    "an origin that is another port": {"Origin": "http://127.0.0.1:1"},
    "an origin that is none": {"Origin": "null"},
    "an origin over TLS": {"Origin": "https://127.0.0.1:{port}"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize(("method", "path", "body"), REQUESTS, ids=[f"{each[0]} {each[1]}" for each in REQUESTS])
def test_request_of_another_site_is_refused_without_effect(
    page: Page,
    clouds: FakeClouds,
    monitor: Monitor,
    headers: dict[str, str],
    method: str,
    path: str,
    body: str | None,
) -> None:
    sent = {name: value.format(port=port_of(page)) for name, value in headers.items()}

    answer = ask(page, method, path, body, sent)

    assert answer.status == 403
    assert (clouds.posted, monitor.fault, monitor.shows_logs) == ([], "none", False)


def test_request_without_a_host_is_refused(page: Page) -> None:
    with connection_to(page) as connection:
        connection.putrequest("GET", "/", skip_host=True)
        connection.endheaders()

        assert connection.getresponse().status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_request_of_the_page_itself_is_accepted(page: Page, monitor: Monitor, host: str) -> None:
    own = f"{host}:{port_of(page)}"

    answer = ask(page, "POST", "/fault", "outage", {"Host": own, "Origin": f"http://{own}"})

    assert (answer.status, monitor.fault) == (200, "outage")


def test_services_are_listed_with_their_names(page: Page, clouds: FakeClouds) -> None:
    clouds.huawei.add_service("another", name="")

    assert json.loads(ask(page, "GET", "/services").body) == {
        SERVICE: "billing",
        OTHER_SERVICE: "reports",
        "another": "",
    }


def test_state_has_the_fault_and_whether_log_lines_are_shown(page: Page) -> None:
    ask(page, "POST", "/fault", "slow\n")
    ask(page, "POST", "/logs", "on")

    assert json.loads(ask(page, "GET", "/state").body) == {"fault": "slow", "faults": FAULTS, "logs": True}


@pytest.mark.parametrize(("path", "word"), [("/fault", "flood"), ("/fault", ""), ("/logs", "maybe")])
def test_unknown_fault_or_log_setting_is_refused_with_the_known_ones(
    page: Page, monitor: Monitor, path: str, word: str
) -> None:
    answer = ask(page, "POST", path, word)

    assert answer.status == 400
    assert ("refused-key" if path == "/fault" else "off") in answer.body
    assert (monitor.fault, monitor.shows_logs) == ("none", False)


def test_rename_event_is_sent_to_the_api_with_its_headers_and_query(page: Page, clouds: FakeClouds) -> None:
    clouds.reply = Reply(
        503,
        {"content-type": "application/problem+json", "retry-after": "7", "server": "x", "x-amzn-trace-id": "y"},
        '{"title": "é"}',
    )
    headers = {"Content-Type": "application/json", "Prefer": "respond-async", "Ce-Id": "1", "Cookie": "x"}

    answer = ask(page, "POST", "/rename-events?dry_run=true", '{"a": "é"}', headers)

    sent = {"content-type": "application/json", "prefer": "respond-async", "ce-id": "1"}
    assert clouds.posted == [('{"a": "é"}', sent, "dry_run=true")]
    assert (answer.status, answer.body) == (503, '{"title": "é"}')
    assert (answer.headers["content-type"], answer.headers["retry-after"]) == ("application/problem+json", "7")
    assert "x-amzn-trace-id" not in answer.headers


@pytest.mark.parametrize(
    "error", [urllib3.exceptions.ProtocolError("gone"), urllib3.exceptions.ReadTimeoutError, ValueError("header")]
)
def test_api_without_a_reply_is_a_bad_gateway(page: Page, clouds: FakeClouds, error: Any) -> None:
    clouds.reply = error if isinstance(error, Exception) else error(cast("Any", None), "/", "late")

    answer = ask(page, "POST", "/rename-events", "{}")

    assert (answer.status, answer.body.partition(":")[0]) == (502, "The API has not answered")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "-1"}, 411),
        ({"Content-Length": "²"}, 411),
        ({"Content-Length": str(MAX_BODY + 1)}, 413),
        ({"Content-Length": "9" * 5000}, 413),
    ],
)
def test_body_without_a_length_or_too_long_is_refused(
    page: Page, clouds: FakeClouds, headers: dict[str, str], status: int
) -> None:
    with connection_to(page) as connection:
        connection.putrequest("POST", "/rename-events")
        for name, value in headers.items():
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders()

        assert connection.getresponse().status == status
    assert clouds.posted == []


@contextmanager
def entries_of(page: Page, **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The entries that are streamed."""
    with connection_to(page) as connection:
        connection.request("GET", "/entries", headers={name.replace("_", "-"): sent for name, sent in headers.items()})
        reply = connection.getresponse()
        assert reply.headers["content-type"] == "text/event-stream"
        yield (json.loads(line[6:]) for line in reply if line.startswith(b"data: "))


def test_entries_are_streamed_as_they_happen(page: Page, clouds: FakeClouds) -> None:
    with entries_of(page) as entries:
        ask(page, "POST", "/fault", "none")
        rename(client_of(clouds.huawei))

        shown = [(entry["kind"], entry["number"]) for entry in (next(entries), next(entries))]
        assert shown == [("fault", 1), ("VPCEP", 2)]


def test_stream_resumes_after_the_last_event_id(page: Page) -> None:
    for word in ("outage", "slow", "none"):
        ask(page, "POST", "/fault", word)

    with entries_of(page, Last_Event_ID="2") as entries:
        assert next(entries)["text"].startswith("none: ")


def test_stream_ends_with_the_server(clouds: FakeClouds, monitor: Monitor) -> None:
    with ExitStack() as stack:
        with Page(cast("Clouds", clouds), monitor) as page:
            entries = stack.enter_context(entries_of(page))

        assert list(entries) == []


def test_monitor_shows_a_call_before_its_outcome(monitor: Monitor, clouds: FakeClouds) -> None:
    rename(client_of(clouds.huawei))
    data = {"vpc_endpoint_service_id": SERVICE, "service_name": "orders"}
    clouds.bus.append({"type": "vpcep.endpoint_service.renamed.v1", "data": data})

    assert entries_until(monitor, "outcome") == [
        f"VPCEP PUT /v1/{{project_id}}/vpc-endpoint-services/{SERVICE}/name 'orders' → 200",
        f"outcome vpcep.endpoint_service.renamed.v1: {SERVICE} is named 'orders'",
    ]


FAILED: Final = {
    "code": "Rename.InvalidEvent",
    "kind": "invalid",
    "message": "No.",
    "violations": [{"path": "/data/x", "message": "must not be"}],
}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            {"vpc_endpoint_service_id": None, "error": FAILED},
            "None Rename.InvalidEvent (invalid): No. /data/x must not be",
        ),
        ({"vpc_endpoint_service_id": "\x1b[2J\r\n\u202eX", "service_name": "a"}, " [2J   X is named 'a'"),
    ],
    ids=["failure with its error", "control characters as spaces"],
)
def test_monitor_shows_an_outcome_in_printable_text(
    monitor: Monitor, clouds: FakeClouds, data: dict[str, Any], text: str
) -> None:
    clouds.bus.append({"type": "t", "data": data})

    assert entries_until(monitor, "outcome") == [f"outcome t: {text}"]


def test_monitor_shows_calls_without_a_project_or_a_reply(monitor: Monitor, clouds: FakeClouds) -> None:
    clouds.huawei.fail(kind="reset")
    with pytest.raises(Exception, match="Connection"):
        rename(client_of(clouds.huawei))
    urllib3.request("GET", f"{clouds.huawei.url}/x", retries=False)
    clouds.bus.append({"type": "t", "data": {"service_name": "a"}})

    reset, unknown, _ = entries_until(monitor, "outcome")

    assert reset.endswith("'orders' → no reply")
    assert unknown == "VPCEP GET /x → 404 APIGW.0101"


def test_end_of_the_local_aws_is_an_error_with_the_end_of_its_log(monitor: Monitor, clouds: FakeClouds) -> None:
    clouds.bus.append(ConnectionError("it is gone"))

    with pytest.raises(LocalAwsError, match="it is gone\nthe end of its log"):
        up._follow(monitor, cast("Clouds", clouds))


@pytest.mark.parametrize(
    ("fault", "results"),
    [
        ("outage", ["503 APIGW.0613"] * 6),
        ("refused-key", ["401 APIGW.0301"] * 6),
        ("throttling", [(200, "orders"), (200, "orders"), "429 APIGW.0308"]),
    ],
)
def test_fault_has_its_effect_until_it_is_ended(
    monitor: Monitor, clouds: FakeClouds, fault: str, results: list[object]
) -> None:
    client = client_of(clouds.huawei)
    monitor.set_fault(fault)

    assert [result_of(client) for _ in results] == results

    monitor.set_fault("none")
    assert result_of(client) == (200, "orders")


def test_slow_fault_delays_the_correct_reply_by_five_seconds(monitor: Monitor, clouds: FakeClouds) -> None:
    monitor.set_fault("slow")
    started = time.monotonic()

    assert result_of(client_of(clouds.huawei)) == (200, "orders")
    assert time.monotonic() - started >= 5


def test_fault_replaces_the_one_before(monitor: Monitor, clouds: FakeClouds) -> None:
    monitor.set_fault("throttling")
    monitor.set_fault("outage")

    assert [result_of(client_of(clouds.huawei)) for _ in range(3)] == ["503 APIGW.0613"] * 3
