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

_tag_context = iam_actions.request_tag_context


def _with_event_source(service: str, action: str, body: bytes, parameters: dict) -> dict:
    """MiniStack does not know the condition key events:source, which the functions' roles restrict PutEvents by."""
    context = _tag_context(service, action, body, parameters)
    if action == "events:PutEvents":
        context["events:source"] = ",".join(sorted({entry["Source"] for entry in json.loads(body)["Entries"]}))
    return context


def _die_with_parent() -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    iam_actions.request_tag_context = _with_event_source
    # With TLS it would listen on port 443 as well.
    app._port_is_bindable = lambda host, port: False
    threading.Thread(target=_die_with_parent, daemon=True).start()
    app.main()
