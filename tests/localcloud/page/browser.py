"""`make page-test`: tests the page of `make up` in headless Chromium, and draws its picture.

Playwright and Chromium are not among the tools of `make test`, so this is a separate program. The page's server is
tested in `tests/unit/localcloud/test_page.py` and `tests/integration/test_up.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, expect, sync_playwright

ROOT: Final = Path(__file__).parents[3]
SERVICE_ID: Final = "070c4a63-8a62-448e-89ed-f2cbde8e6a3b"

TIMEOUT: Final = 20_000.0  # milliseconds


@contextmanager
def make_up() -> Iterator[str]:
    """`make up` without make; the address of its page."""
    with subprocess.Popen(
        [ROOT / ".venv/dev/bin/python", "-m", "tests.localcloud.up"],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                if found := re.search(r"on a page: (\S+)", line):
                    yield found[1]
                    return
            raise SystemExit("make up has ended before it had a page")
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def try_page(page: Page, url: str) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith(url) else None)
    page.goto(url)
    service, reply, entries = page.locator("#services tr").first, page.locator("#reply"), page.locator("#entries")
    send = page.get_by_role("button", name="Send")

    expect(page.get_by_role("status")).to_have_text("live")
    expect(service).to_contain_text(f"{SERVICE_ID}billing")
    expect(page.get_by_role("heading", name="POST /rename-events")).to_be_visible()
    print("The page shows the services and the API.")

    send.click()
    expect(reply).to_contain_text("HTTP 200")
    expect(reply).to_contain_text("vpcep.endpoint_service.renamed.v1")
    expect(service).to_contain_text(f"{SERVICE_ID}orders")
    expect(entries).to_contain_text("is named 'orders'")
    print("An event that is tried renames a service; the call, the outcome and the new name appear.")

    page.get_by_label("content-type").first.select_option("application/json")
    page.locator("#services tr").nth(1).get_by_role("button").click()
    body = page.get_by_label("body")
    body.fill(body.input_value().replace('"orders"', '"<img src=x onerror=alert(1)>"'))
    send.click()
    expect(reply).to_contain_text("HTTP 400")
    expect(entries).to_contain_text("Rename.InvalidEvent")
    expect(page.locator("#entries img, #reply img")).to_have_count(0)
    print("An invalid event is refused; markup in it stays text.")

    page.get_by_label("Fault of Huawei Cloud").select_option("outage")
    expect(entries).to_contain_text("outage: 503 APIGW.0613 to each call")
    page.get_by_label("content-type").first.select_option("application/cloudevents+json")
    send.click()
    expect(reply).to_contain_text("HTTP 202", timeout=40_000)
    expect(entries).to_contain_text("503 APIGW.0613")
    print("In a commanded outage the event is queued.")

    page.get_by_label("log lines").check()
    page.get_by_label("Fault of Huawei Cloud").select_option("none")
    page.locator("summary", has_text="Parameters").click()
    page.locator("#header-Prefer").fill("respond-async")
    page.get_by_role("button", name="New id and time").click()
    send.click()
    expect(reply).to_contain_text("preference-applied: respond-async")
    expect(entries).to_contain_text("RenameFromHttp:")
    print("Headers are sent and shown, log lines come on demand.")

    unexpected = [text for text in complaints if "400 (Bad Request)" not in text]
    assert (unexpected, foreign) == ([], []), f"{unexpected}, {foreign}"
    print("The browser complains about nothing, and asked no other server.")


def draw(page: Page, url: str, picture: Path) -> None:
    """The page after a rename, and another one that failed."""
    page.set_viewport_size({"width": 1200, "height": 720})
    page.goto(url)
    entries, send = page.locator("#entries"), page.get_by_role("button", name="Send")
    send.click()
    expect(entries).to_contain_text("is named 'orders'")
    page.get_by_label("content-type").first.select_option("application/json")
    body = page.get_by_label("body")
    body.fill(body.input_value().replace(SERVICE_ID[-12:], "0" * 12))
    send.click()
    expect(page.locator("#reply")).to_contain_text("HTTP 404")
    expect(entries).to_contain_text("EndPoint.2003 (not_found)")
    page.screenshot(path=picture)
    print(f"{picture} has the picture.")


def main(picture: Path) -> int:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        print("Chromium is needed, on Debian: apt install chromium", file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-proxy-server"])
        expect.set_options(timeout=TIMEOUT)
        for use in (try_page, partial(draw, picture=picture)):
            with make_up() as url:  # each on services that have their first names
                page = browser.new_page()
                page.set_default_timeout(TIMEOUT)
                use(page, url)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
