"""The page of `make up`: the API with "try it", the endpoint services, and the calls and outcomes as they happen.

The browser uses this server alone, which signs its requests to the API with the producer's key. Pages of other sites
have no access: a `Host` or `Origin` other than this server's own is refused.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import urllib3

from tests.localcloud.aws import ROOT
from tests.localcloud.monitor import FAULTS, Monitor, as_json
from tests.localcloud.server import ConnectionTrackingServer, LoopbackServer
from tests.localcloud.stack import Clouds

OPENAPI: Final = ROOT / "docs" / "openapi.json"
MAX_BODY: Final = 16 * 1024 * 1024  # above the API's own limit, so that the API is seen to refuse
IDLE_SECONDS: Final = 30.0
_HERE: Final = Path(__file__).parent
_FILES: Final = {
    "/": (_HERE / "index.html", "text/html; charset=utf-8"),
    "/page.css": (_HERE / "page.css", "text/css; charset=utf-8"),
    "/page.js": (_HERE / "page.js", "text/javascript; charset=utf-8"),
    "/openapi.json": (OPENAPI, "application/json"),
}
_SECURITY: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TEXT: Final = "text/plain; charset=utf-8"


class Page(LoopbackServer):
    """On a free port of the loopback interface, until the end of the `with` block."""

    def __init__(self, clouds: Clouds, monitor: Monitor) -> None:
        super().__init__()
        self.clouds = clouds
        self.monitor = monitor

    def _listen(self) -> ConnectionTrackingServer:
        return _Server(self)


class _Server(ConnectionTrackingServer):
    def __init__(self, page: Page) -> None:
        self.page = page
        super().__init__(_Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vpcep-rename", ""
    timeout = IDLE_SECONDS
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if not self._is_from_here():
            return
        if path in _FILES:
            file, content_type = _FILES[path]
            self._reply(200, file.read_bytes(), content_type)
        elif path == "/services":
            self._reply(200, json.dumps(self.server.page.clouds.huawei.services()).encode(), "application/json")
        elif path == "/state":
            monitor = self.server.page.monitor
            state = {"fault": monitor.fault, "faults": FAULTS, "logs": monitor.shows_logs}
            self._reply(200, json.dumps(state).encode(), "application/json")
        elif path == "/entries":
            self._send_entries()
        else:
            self._refuse(404, "There is no such page.")

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        body = self._body() if self._is_from_here() else None
        if body is None:
            return
        monitor, word = self.server.page.monitor, body.decode(errors="replace").strip()
        match path:
            case "/rename-events":
                self._try(query, body)
            case "/fault" if word in FAULTS:
                monitor.set_fault(word)
                self._reply(200, f"{word}: {FAULTS[word]}\n".encode(), _TEXT)
            case "/fault":
                self._refuse(400, f"Send one of {', '.join(FAULTS)}.")
            case "/logs" if word in ("on", "off"):
                monitor.show_logs(wanted=word == "on")
                self._reply(200, f"Log lines are {word}.\n".encode(), _TEXT)
            case "/logs":
                self._refuse(400, "Send on or off.")
            case _:
                self._refuse(404, "There is no such page.")

    def _is_from_here(self) -> bool:
        """Whether the request is for this server by name, and from its own page or from no page at all."""
        port = self.server.server_address[1]
        hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        origins = self.headers.get_all("Origin", [])
        if self.headers.get_all("Host") in [[host] for host in hosts] and all(
            origin in {f"http://{host}" for host in hosts} for origin in origins
        ):
            return True
        self.close_connection = True  # the body is not read
        self._refuse(403, "This server answers its own page and the command line only.")
        return False

    def _body(self) -> bytes | None:
        """The request's body; None where it has been refused."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or not length.isascii() or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._refuse(411, "Content-Length is needed.")
            return None
        if len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
            self.close_connection = True
            self._refuse(413, "That is too long.")
            return None
        return self.rfile.read(int(length))

    def _try(self, query: str, body: bytes) -> None:
        """Send a request to the API, with the headers that its document has; the reply likewise."""
        operation = json.loads(OPENAPI.read_text(encoding="utf-8"))["paths"]["/rename-events"]["post"]
        names = {each["name"].lower() for each in operation["parameters"] if each["in"] == "header"} | {"content-type"}
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() in names}
        try:
            reply = self.server.page.clouds.post_rename_event(body.decode(errors="replace"), headers, query=query)
        except (urllib3.exceptions.HTTPError, ValueError) as error:  # ValueError: a header that HTTP does not have
            self._refuse(502, f"The API has not answered: {type(error).__name__}.")
            return
        documented = {name.lower() for each in operation["responses"].values() for name in each.get("headers", {})}
        kept = {name: value for name, value in reply.headers.items() if name in documented}
        content_type = reply.headers.get("content-type", "application/octet-stream")
        self._reply(reply.status, reply.body.encode(), content_type, kept)

    def _send_entries(self) -> None:
        """Entries as server-sent events, from where a browser that connects again left off."""
        number = self.headers.get("Last-Event-ID", "")
        last = int(number) if number.isdecimal() and len(number) < 16 else 0
        self.close_connection = True
        self._start(200, "text/event-stream")
        self.wfile.write(b"retry: 1000\n\n")
        while not self.server.page._stopping.is_set():
            for entry in self.server.page.monitor.after(last, seconds=1.0):
                last = entry.number
                self.wfile.write(f"id: {last}\ndata: {as_json(entry)}\n\n".encode())
            self.wfile.write(b":\n\n")  # fails where the connection is closed
            self.wfile.flush()

    def _refuse(self, status: int, text: str) -> None:
        self._reply(status, f"{text}\n".encode(), _TEXT)

    def _reply(self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        self._start(status, content_type, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def _start(self, status: int, content_type: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, **_SECURITY, **(headers or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
