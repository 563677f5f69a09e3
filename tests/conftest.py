"""How tests are shared out to processes, and what they found out in figures."""

import os
import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.localcloud.aws import no_proxy_on_loopback

pytest.register_assert_rewrite("tests.integration.observer")
os.environ.update(no_proxy_on_loopback())
# A shell that starts the tests in the background lets them, and all that they start, ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# They take long, and wait more than they work: concurrently with the others of the clouds they cost half as much.
APART = (
    "tests/integration/test_api_keys.py",
    "tests/integration/test_keyless.py",
    "tests/integration/test_least_privilege.py",
    "tests/integration/test_producers.py",
    "tests/integration/test_thousand_events.py",
)


class _OneProcessAGroup(LoadScopeScheduling):  # type: ignore[misc]
    """The marker `xdist_group` has no effect: xdist 3.8 puts it where pytest 9.2 does not look."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in APART:
            return "other clouds"
        if path.startswith("tests/integration/"):
            return "clouds"
        return "simulation" if path.startswith("tests/faults/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _OneProcessAGroup(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each property that a test recorded as figures: a process that runs tests for another one shows nothing."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, figures in getattr(report, "user_properties", ()):
                if name == "figures" and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid}: {figures}")
